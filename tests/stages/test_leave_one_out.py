"""Each photo left out of a run of its own, and what is made of it."""

import json
from pathlib import Path

import pytest

from meta_animator.checkpoints.best import read_best
from meta_animator.checkpoints.files import read_weights
from meta_animator.config import load_config
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.stages.leave_one_out import _measured, leave_one_out
from meta_animator.stages.meters import Meters
from meta_animator.stages.train import train


@pytest.fixture
def tuned(make_config, prepared):
    def make(name="run", **settings):
        own = {"model__control_from": prepared, "train__measure_every": 1, "train__max_steps": 3, "train__checkpoint_every": 100}
        return make_config("reference", name, **(own | settings))

    return make


def train_file(path: Path) -> None:
    train(load_config(path, []))


def test_the_step_at_which_left_out_photos_come_out_best_is_taken_of_a_run_on_all(tuned, monkeypatch, capsys):
    """Each of four photos alone is at its best elsewhere than their mean, which is at step 2."""
    told = [(1.0, 4.0, 9.0), (9.0, 2.0, 1.0), (5.0, 3.0, 9.0), (9.0, 7.0, 6.0)]
    errors = iter([error for row in told for error in row])
    likeness = {"held_out_face": 0.5}
    monkeypatch.setattr(
        Meters, "measure",
        lambda self: {"held_out_error": next(errors), **likeness} if self.measured.held_out else {"fixed_noise_error": 1.0},
    )
    outcome = leave_one_out(config := tuned(train__keep_checkpoints=1), train_file)
    home = Path(config.output_dir)
    assert outcome.steps == [1, 2, 3] and outcome.errors == [list(row) for row in told] and outcome.best == 2
    assert outcome.error == [6.0, 4.0, 6.25] and outcome.faces == [[0.5] * 3] * 4
    assert read_json(home / "leave_one_out.json") == {
        "best": 2, "steps": [1, 2, 3], "error": [6.0, 4.0, 6.25], "errors": [list(row) for row in told],
        "faces": [[0.5] * 3] * 4, "face": [0.5] * 3,
    }  # fmt: skip
    last = [home / "leave_one_out" / f"without-{k}" / "checkpoints" / "step-000003" for k in range(4)]
    left = [read_weights(folder)[0]["held_out"] for folder in last]
    assert len({photo for photos in left for photo in photos}) == 4 and {len(photos) for photos in left} == {1}
    output = capsys.readouterr().out
    assert "run 1 of 5: one photo left out" in output and "best at step 2 (error 4.0000, likeness of the face 0.500)" in output
    assert "at the last, 3, it is 6.2500" in output and "step 2 is as train.best_step asks" in output
    metadata, _ = read_weights(home)
    assert metadata["step"] == 2 and metadata["held_out"] == [] and read_best(home)["step"] == 2
    assert f"{home}: takes step 2 of 3, as train.best_step asks" in capsys.readouterr().out

    def no_more(path):  # nothing is measured again: all runs are over
        train_file(path)

    assert leave_one_out(config, no_more) == outcome


def test_a_measurement_that_was_not_finite_counts_for_nothing(tmp_path):
    lines = [{"step": 1, "held_out_error": None}, {"step": 2, "held_out_error": 0.5}, {"step": 3, "loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(_measured(tmp_path)) == [2]


def test_two_photos_at_a_time(tuned, capsys):
    outcome = leave_one_out(tuned(data__held_out=2, train__max_steps=1), train_file)
    output = capsys.readouterr().out
    assert "run 3 of 3: all photos" in output and len(outcome.errors) == 2 and "more may be better still" in output


@pytest.mark.parametrize(("settings", "said"), [
    ({"train__early_stop": 2}, "train.early_stop, train.best_step: each run goes to its end"),
    ({"train__measure_every": 0}, "train.measure_every: nothing is ever measured"),
    ({"data__held_out": 4}, "data.held_out: 4 of 4 photos"),
])  # fmt: skip
def test_what_could_not_say_anything_is_refused_before_it_is_trained(tuned, settings, said):
    with pytest.raises(UserError, match=said):
        leave_one_out(tuned(**settings), lambda path: pytest.fail("was trained"))


def test_a_folder_that_holds_another_run_is_refused(tuned, monkeypatch):
    """It went past the step that is asked for now."""
    train(tuned())
    monkeypatch.setattr(Meters, "measure", lambda self: {"held_out_error": 1.0})
    with pytest.raises(UserError, match="was trained before and did not keep step 1; name another output_dir"):
        leave_one_out(tuned(), train_file)
