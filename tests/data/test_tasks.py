"""The plan of draws: balanced, deterministic, one task per batch, the same for any number of ranks."""

import itertools
from collections import Counter

import pytest

from meta_animator.data.orders import ByPerson
from meta_animator.data.tasks import TaskPlan
from meta_animator.settings import TASKS

POOLS = {task: list(range(10 * k, 10 * k + 3 + 5 * k)) for k, task in enumerate(TASKS)}


def plan(**changes) -> TaskPlan:
    return TaskPlan(**({"samples": POOLS, "batch_size": 4, "seed": 3} | changes))


def test_every_task_gets_its_share_of_steps_whatever_its_number_of_samples():
    assert Counter(plan().draws_of(step)[0].task for step in range(45)) == dict.fromkeys(TASKS, 5)
    orders = [tuple(plan().draws_of(9 * cycle + k)[0].task for k in range(9)) for cycle in range(5)]
    assert all(set(order) == set(TASKS) for order in orders) and len(set(orders)) > 1


def test_weights_say_how_often_a_task_comes_in_a_cycle():
    weighted = plan(weights={"blurred": 4, "unused": 3})
    assert Counter(weighted.draws_of(step)[0].task for step in range(24)) == dict.fromkeys(TASKS, 2) | {"blurred": 8}
    drawn = [draw.sample for step in range(36) for draw in weighted.draws_of(step) if draw.task == "blurred"]
    pool = POOLS["blurred"]
    assert len(drawn) == 48 > len(pool) and sorted(drawn[: len(pool)]) == pool, "all are drawn before one comes again"
    assert all(list(plan(weights={}).draws_of(step)) == plan().draws_of(step) for step in range(20))


def test_one_task_per_step_with_samples_of_its_own():
    for step in range(30):
        draws = plan(micro_batches=2, world_size=2).draws_of(step)
        assert {draw.task for draw in draws} == {plan().draws_of(step)[0].task} and len(draws) == 16
        assert {draw.sample for draw in draws} <= set(POOLS[draws[0].task])


def test_samples_of_a_task_are_all_drawn_before_one_comes_again():
    for task, pool in POOLS.items():
        drawn = [draw.sample for step in range(9 * 60) for draw in plan().draws_of(step) if draw.task == task]
        epochs = [drawn[k : k + len(pool)] for k in range(0, len(drawn) - len(pool) + 1, len(pool))]
        assert all(sorted(epoch) == pool for epoch in epochs)
        assert len(epochs) > 1 and any(epoch != epochs[0] for epoch in epochs)


def test_a_plan_is_a_function_of_seed_and_step():
    whole = list(plan(micro_batches=2).batches(0, 20))
    assert list(plan(micro_batches=2).batches(7, 20)) == whole[14:]
    assert list(plan(micro_batches=2, seed=4).batches(0, 20)) != whole
    numbers = [draw.number for batch in whole for draw in batch]
    assert numbers == list(range(20 * 8))


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_two_ranks_draw_what_one_rank_with_the_double_batch_draws(micro_batches, auxiliary):
    more = {"auxiliary": {task: [900, 901, 902] for task in TASKS}, "auxiliary_fraction": 0.5} if auxiliary else {}
    single = plan(batch_size=8, micro_batches=micro_batches, **more)
    double = plan(batch_size=4, micro_batches=micro_batches, world_size=2, **more)
    ranks = zip(*(double.batches(0, 20, rank) for rank in range(2)), strict=True)
    assert [one + two for one, two in ranks] == list(single.batches(0, 20))
    assert single.steps_per_epoch == double.steps_per_epoch


def test_the_samples_of_a_step_do_not_depend_on_how_it_is_split():
    def drawn(**split):
        ranks = zip(*(plan(**split).batches(0, 12, rank) for rank in range(split["world_size"])), strict=True)
        return [draw for micro in ranks for batch in micro for draw in batch]

    whole = drawn(batch_size=8, micro_batches=1, world_size=1)
    for split in ((4, 1, 2), (2, 2, 2), (1, 1, 8), (1, 8, 1)):
        assert drawn(batch_size=split[0], micro_batches=split[1], world_size=split[2]) == whole


def test_ranks_may_have_tasks_of_their_own():
    own = plan(world_size=3, micro_batches=2, task_per_rank=True)
    ranks = [list(own.batches(0, 30, rank)) for rank in range(3)]
    tasks = [[batch[0].task for batch in batches] for batches in ranks]
    assert tasks[0] != tasks[1] and all(one == two for row in tasks for one, two in zip(row[::2], row[1::2], strict=True))
    assert Counter(task for row in tasks for task in row) == dict.fromkeys(TASKS, 30 * 3 * 2 // 9)
    draws = [draw for batches in ranks for batch in batches for draw in batch]
    assert sorted(draw.number for draw in draws) == list(range(30 * 3 * 2 * 4))
    for task, pool in POOLS.items():
        order = [draw.sample for draw in sorted(draws, key=lambda draw: draw.number) if draw.task == task]
        assert sorted(order[: len(pool)]) == pool


def test_auxiliary_samples_take_their_fraction():
    pools = {task: [900, 901, 902] for task in TASKS}
    for fraction in (0.0, 0.25, 1.0):
        mixed = plan(auxiliary=pools, auxiliary_fraction=fraction)
        draws = [draw for step in range(300) for draw in mixed.draws_of(step)]
        share = sum(draw.sample >= 900 for draw in draws) / len(draws)
        assert share == pytest.approx(fraction, abs=0.05 if 0 < fraction < 1 else 0)
        assert {draw.sample for draw in draws if draw.sample >= 900} == {index for index in mixed.pools() if index >= 900}


def test_an_epoch_is_as_many_draws_as_there_are_pairs():
    assert plan().steps_per_epoch == sum(map(len, POOLS.values())) / 4
    assert plan(samples={"dwpose": [1]}).steps_per_epoch == 1


SIZES = {0: (64, 64), 1: (88, 48), 2: (48, 88)}
MIXED = {"dwpose": list(range(23)), "seg": list(range(15, 40))}
BUCKETS = {index: SIZES[0 if index < 11 else 1 if index < 37 else 2] for index in range(40)} | {900: (64, 64), 901: (48, 88)}


def test_plans_of_one_size_draw_what_they_always_drew():
    """The first draws of a plan with auxiliary samples, as they were before there were buckets."""
    drawn = plan(auxiliary={task: [900, 901, 902] for task in TASKS}, auxiliary_fraction=0.3, micro_batches=2).draws_of(7)
    assert [draw.sample for draw in drawn] == [44, 41, 42, 901, 46, 51, 902, 56]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_step_has_one_size_and_every_sample_its_share(auxiliary):
    """In buckets of 23 to 2 samples; auxiliary ones are of other sizes than some of the others."""
    more = {"auxiliary": {task: [900, 901] for task in MIXED}, "auxiliary_fraction": 0.25} if auxiliary else {}
    mixed, steps = plan(samples=MIXED, batch_size=3, micro_batches=2, buckets=BUCKETS, **more), 6000
    counts = {task: Counter() for task in MIXED}
    for step in range(steps):
        draws = mixed.draws_of(step)
        assert len({BUCKETS[draw.sample] for draw in draws}) == 1 and len(draws) == 6
        counts[draws[0].task].update(draw.sample for draw in draws)
    for task, pool in MIXED.items():
        due = {index: (0.75 if auxiliary else 1.0) / len(pool) for index in pool}
        due |= {index: 0.125 for index in (900, 901)} if auxiliary else {}
        assert counts[task].keys() == due.keys()
        for index, share in due.items():
            assert counts[task][index] == pytest.approx(steps / 2 * 6 * share, rel=0.02, abs=8), index


def test_small_buckets_come_as_evenly_as_large_ones():
    mixed = plan(samples={"dwpose": list(range(40))}, batch_size=1, buckets=BUCKETS)
    steps = [step for step in range(4000) if BUCKETS[mixed.draws_of(step)[0].sample] == SIZES[2]]
    gaps = {b - a for a, b in itertools.pairwise(steps)}
    assert len(steps) == pytest.approx(4000 * 3 / 40, abs=2) and max(gaps) <= 40 / 3 + 3, "never starved"


def test_the_sizes_of_a_step_do_not_depend_on_how_it_is_split_or_begun():
    def drawn(first=0, **split):
        mixed = plan(samples=MIXED, buckets=BUCKETS, **split)
        ranks = zip(*(mixed.batches(first, 12, rank) for rank in range(split["world_size"])), strict=True)
        return [draw for micro in ranks for batch in micro for draw in batch]

    whole = drawn(batch_size=8, micro_batches=1, world_size=1)
    for split in ((4, 1, 2), (2, 2, 2), (1, 8, 1)):
        assert drawn(batch_size=split[0], micro_batches=split[1], world_size=split[2]) == whole
    assert drawn(first=5, batch_size=8, micro_batches=1, world_size=1) == whole[40:]
    assert len({BUCKETS[draw.sample] for draw in whole}) > 1


# people

OWNERS = {index: ("long", "a") for index in range(900)}
OWNERS |= {900 + k: ("three", clip) for k, clip in enumerate("bbccccd")} | {907: ("photo", "e")}


def drawn(count, **changes) -> list[int]:
    people = plan(samples={"dwpose": list(OWNERS)}, batch_size=1, owners=OWNERS, **changes)
    return [draw.sample for step in range(count) for draw in people.draws_of(step)]


def test_people_not_frames_are_drawn_evenly_and_so_are_their_clips():
    samples = drawn(3 * 900)
    assert all(len({OWNERS[s][0] for s in samples[k : k + 3]}) == 3 for k in range(0, 2700, 3)), "each once in a round"
    long = [s for s in samples if OWNERS[s][0] == "long"]
    assert sorted(long) == list(range(900)), "all frames before one comes again"
    gaps = [b - a for a, b in itertools.pairwise(sorted([0, *long[:30], 899]))]
    assert max(gaps) < 2 * 900 / 30, "few draws show all of a clip"
    counts = Counter(samples)
    assert {clip: sum(counts[s] for s in OWNERS if OWNERS[s][1] == clip) for clip in "bcd"} == {"b": 300, "c": 300, "d": 300}
    assert {counts[s] for s in (902, 903, 904, 905)} == {75} and counts[907] == 900


def test_people_are_a_function_of_seed_and_step():
    whole = drawn(60)
    people = plan(samples={"dwpose": list(OWNERS)}, batch_size=2, micro_batches=3, owners=OWNERS)
    assert [draw.sample for batch in people.batches(5, 10) for draw in batch] == whole[30:]
    assert drawn(60, seed=4) != whole


def test_people_have_their_share_in_every_size():
    """One person's clips are of two sizes, another's of one that is rare."""
    sizes = {index: (64, 64) for index in OWNERS} | {906: (48, 88), 907: (48, 88)}
    samples = Counter(OWNERS[s] for s in drawn(6000, buckets=sizes))
    assert samples["long", "a"] == pytest.approx(2000, rel=0.06) and samples["photo", "e"] == pytest.approx(2000, rel=0.06)
    assert [samples["three", clip] for clip in "bcd"] == pytest.approx([2000 / 3] * 3, rel=0.2)


def test_auxiliary_draws_balance_people_too():
    people = plan(
        samples={"dwpose": [907]}, auxiliary={"dwpose": list(range(897, 907))}, auxiliary_fraction=0.5, owners=OWNERS,
        batch_size=2,
    )  # fmt: skip
    counts = Counter(OWNERS[draw.sample][0] for step in range(100) for draw in people.draws_of(step))
    assert counts == {"photo": 100, "long": 50, "three": 50}


def test_draws_do_not_depend_on_where_the_data_lie():
    """The same data set in another folder, or on another machine, is drawn in the same order."""

    def drawn(folder):
        owners = {k: (f"person {k % 3}", f"{folder}/clip {k // 4}") for k in range(24)}
        order = ByPerson(range(24), range(24), 0, "order", owners)
        return [order.sample(k) for k in range(60)]

    assert drawn("/here/data") == drawn("elsewhere") and len(set(drawn("x"))) == 24
