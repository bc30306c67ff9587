"""What is said of a run's meters."""

import json

from meta_animator.training.watch import Watch


def test_a_bad_meter_is_said_when_it_begins_and_at_the_end():
    watch, said = Watch(), {}
    for step, obedience in enumerate((0.0, 0.001, 0.5, 0.0, 0.0, 0.01), 1):
        said[step] = len(watch.add(step, {"obedience": obedience, "copying": 0.3}, last=step == 6))
        watch = Watch(state=json.loads(json.dumps(watch.state())))  # an interruption changes nothing
    assert said == {1: 1, 2: 0, 3: 0, 4: 1, 5: 0, 6: 1}
    (note,) = watch.add(7, {"obedience": 0.5, "copying": 2.5})
    assert "training photos are copied" in note and "by 2.5 dB" in note
    assert watch.best is None and not watch.over


def test_an_error_that_rises_is_said_once_and_the_least_is_the_best():
    watch, said = Watch(), []
    for step, error in enumerate((3.0, 2.0, 2.0, 2.5, float("nan"), 2.4, 2.6, 1.0, 1.5), 1):
        said.append(watch.add(step, {"held_out_error": error}))
    assert [len(notes) for notes in said] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert "was least at step 2, 3 measurements ago" in said[5][0]
    assert watch.best == {"step": 8, "meter": "held_out_error", "value": 1.0} and watch.is_best(8) and not watch.is_best(9)


def test_a_run_is_over_after_so_many_measurements_without_a_better_one():
    watch = Watch(early_stop=2)
    over = []
    for step, error in enumerate((1.0, 1.1, 0.9, 0.9, 0.95), 1):
        watch.add(step, {"held_out_error": error})
        over.append(watch.over)
    assert over == [False, False, False, False, True]
    assert Watch(2, watch.state()).over and not Watch(0, watch.state()).over


def test_a_step_that_is_known_to_be_the_best_is_so_once_it_is_trained():
    watch, best = Watch(best_step=2), []
    for step in (1, 2, 3):
        watch.pass_by(step)
        best.append(watch.is_best(2))
        watch = Watch(0, json.loads(json.dumps(watch.state())), best_step=2)  # an interruption changes nothing
    assert best == [False, True, True]
    assert Watch(0, watch.state(), best_step=5).best is None and Watch(0, watch.state()).best is None, "no more"
    measured = {"measured": 2, "best": {"step": 2, "meter": "held_out_error", "value": 1.0}}
    assert Watch(0, measured).is_best(2) and Watch(0, measured, best_step=4).best is None
