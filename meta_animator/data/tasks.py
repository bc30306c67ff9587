"""Which sample and which task each batch gets: a deterministic map from the step number, so that resuming needs no state."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from meta_animator.data.orders import ByPerson, Owner, Shuffled
from meta_animator.diffusion.randomness import rng


@dataclasses.dataclass(frozen=True)
class Draw:
    """One sample to load. `number` counts all draws of a run, over all ranks."""

    number: int
    task: str
    sample: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task per optimizer step and group of ranks; the tasks come in a fresh order in every cycle, so each gets the same
    number of steps, or `weights` times as many.

    A group is all ranks together, or with `task_per_rank` each rank. Inside a task its samples are walked in shuffled
    epochs, or with `owners` in rounds of people: a task with few samples repeats them sooner. What a step draws depends on
    the number of its samples alone, not on how they are split into ranks and micro-batches (with `task_per_rank`: also on
    the number of ranks).

    samples         {task: sample indices that have this task}
    batch_size      samples per rank and micro-batch
    micro_batches   gradient-accumulation steps; all of one task
    world_size      ranks
    task_per_rank   every rank has a task of its own instead of all the same
    weights         {task: how often it comes in a cycle}, 1 for those not named; those that are not in `samples` do not count
    auxiliary       {task: sample indices} of which `auxiliary_fraction` of the draws are taken
    buckets         {sample index: its size}: all draws of a step and group are then of one size, the sizes in turns that give
                    every sample its share; None: all samples are of one size
    owners          {sample index: (person, clip)}: every person is drawn as often, and of a person every clip; None: every
                    sample is
    """

    samples: dict[str, list[int]]
    batch_size: int
    seed: int
    micro_batches: int = 1
    world_size: int = 1
    task_per_rank: bool = False
    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    auxiliary: dict[str, list[int]] | None = None
    auxiliary_fraction: float = 0.0
    buckets: Mapping[int, tuple[int, ...]] | None = None
    owners: Mapping[int, Owner] | None = None
    _memory: dict[str, "list[Pool]"] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def draws_per_step(self) -> int:
        return self.batch_size * self.micro_batches * self.world_size

    @property
    def rank_groups(self) -> int:
        return self.world_size if self.task_per_rank else 1

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps after which as many samples were drawn as there are (sample, task) pairs."""
        return max(1.0, sum(len(s) for s in self.samples.values()) / self.draws_per_step)

    def pools(self) -> set[int]:
        """All samples that can be drawn."""
        auxiliary = self.auxiliary if self.auxiliary and self.auxiliary_fraction > 0 else {}
        return {index for table in (self.samples, auxiliary) for pool in table.values() for index in pool}

    def _turn(self, step: int, group: int) -> tuple[str, int]:
        """The task of a step and group, and how often it was drawn before."""
        tasks = [task for task in sorted(self.samples) for _ in range(self.weights.get(task, 1))]
        cycle, place = divmod(step * self.rank_groups + group, len(tasks))
        order = [tasks[k] for k in rng(self.seed, "tasks", cycle).permutation(len(tasks))]
        task = order[place]
        return task, cycle * order.count(task) + order[:place].count(task)

    def draws_of(self, step: int, group: int = 0) -> list[Draw]:
        """The draws of an optimizer step and group, in order."""
        (task, turn), count = self._turn(step, group), self.draws_per_step // self.rank_groups
        first, pools = step * self.draws_per_step + group * count, self._pools(task)
        which, turn = _turn_of(tuple(pool.share for pool in pools), self._starts(task, len(pools)), turn)
        return [Draw(first + slot, task, self._sample(pools[which], turn * count + slot)) for slot in range(count)]

    def _sample(self, pool: "Pool", position: int) -> int:
        """The sample of a pool's draw number `position`. Auxiliary draws are spread evenly among the others."""
        if len(pool.auxiliary):
            before = math.floor(position * pool.auxiliary_fraction)
            if math.floor((position + 1) * pool.auxiliary_fraction) > before:
                return pool.auxiliary.sample(before)
            position -= before
        return pool.main.sample(position)

    def _pools(self, task: str) -> list["Pool"]:
        """The samples of a task, those of each size apart; the share of a pool is what all its samples are due."""
        if task not in self._memory:
            auxiliary = (self.auxiliary or {}).get(task, [])
            fraction = self.auxiliary_fraction if auxiliary else 0.0
            if self.buckets is None:
                self._memory[task] = [self._pool(task, self.samples[task], auxiliary, task, fraction)]
            else:
                self._memory[task] = self._split(task, self.samples[task], auxiliary, fraction)
        return self._memory[task]

    def _pool(self, task: str, main: list[int], auxiliary: list[int], name: str, fraction: float) -> "Pool":
        """Some of a task's samples. Of all draws of the task, `fraction` are auxiliary ones, though no pool needs to have that
        fraction."""
        wholes = {"main": self.samples[task], "auxiliary": (self.auxiliary or {}).get(task, [])}
        here, there = (
            Shuffled(indices, wholes[kind], self.seed, f"order {name} {kind}") if self.owners is None
            else ByPerson(indices, wholes[kind], self.seed, f"order {name} {kind}", self.owners)
            for indices, kind in ((main, "main"), (auxiliary, "auxiliary"))
        )  # fmt: skip
        due, extra = (1 - fraction) * here.share, fraction * there.share
        share = fraction if self.buckets is None else extra / max(due + extra, 1e-9)
        return Pool(here, there, share, due + extra)

    def _split(self, task: str, main: list[int], auxiliary: list[int], fraction: float) -> list["Pool"]:
        """A pool for each size."""
        pools = []
        for size in sorted({self.buckets[index] for index in [*main, *auxiliary]}):
            here, there = ([index for index in each if self.buckets[index] == size] for each in (main, auxiliary))
            pools.append(self._pool(task, here, there, f"{task} {size}", fraction))
        return [pool for pool in pools if pool.share > 0]

    def _starts(self, task: str, count: int) -> tuple[float, ...]:
        """Where in its own cycle each pool of a task begins, in [0, 1)."""
        return tuple(rng(self.seed, f"buckets {task}").random(count).tolist()) if count > 1 else (0.0,)

    def draws_before(self, last_step: int) -> Iterator[Draw]:
        """All ranks' draws of the optimizer steps before `last_step`."""
        for step in range(last_step):
            for group in range(self.rank_groups):
                yield from self.draws_of(step, group)

    def batches(self, first_step: int, last_step: int, rank: int = 0) -> Iterator[list[Draw]]:
        """This rank's micro-batches from optimizer step `first_step` up to, not including, `last_step`."""
        for step in range(first_step, last_step):
            draws = self.draws_of(step, rank if self.task_per_rank else 0)
            for micro in range(self.micro_batches):
                place = micro if self.task_per_rank else micro * self.world_size + rank
                yield draws[place * self.batch_size : (place + 1) * self.batch_size]


@dataclasses.dataclass(frozen=True)
class Pool:
    """Samples of a task that are of one size, and the share of the task's steps that are theirs."""

    main: Shuffled
    auxiliary: Shuffled
    auxiliary_fraction: float
    share: float


def _turn_of(shares: tuple[float, ...], starts: tuple[float, ...], turn: int) -> tuple[int, int]:
    """(which of several takes turn number `turn`, how often it had one before); turns come as evenly as the shares allow.

    Number k of one with share s is due at time (k + start) / s; as the shares make 1, about `turn` are due before time `turn`.
    """
    if len(shares) == 1:
        return 0, turn
    begin, span = turn - len(shares) - 1, 2 * len(shares) + 3
    before = [max(0, math.ceil(begin * share - start)) for share, start in zip(shares, starts, strict=True)]
    due = sorted(
        ((k + start) / share, which, k)
        for which, (share, start, first) in enumerate(zip(shares, starts, before, strict=True))
        for k in range(first, first + math.ceil(span * share) + 2)
    )
    return due[turn - sum(before)][1:]
