"""Lines of metrics: means since the last line, task by task, also over a stop and over processes."""

import json
import math
import shutil
from pathlib import Path

import pytest

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.stages.train import train
from meta_animator.training.means import Means
from meta_animator.training.stage import Mean


def lines(config) -> list[dict]:
    return [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]


STEPS = [
    {"task": "seg", "loss": 1.0, "face": Mean(0.5, 3.0), "learning_rate": 0.1},
    {"task": "canny", "loss": 5.0, "face": Mean(9.0, 0.0), "learning_rate": 0.2},
    {"task": "seg", "loss": 2.0, "face": Mean(0.1, 1.0), "learning_rate": 0.3},
    {"task": "seg", "loss": math.nan, "face": Mean(0.0, 0.0), "learning_rate": 0.4, "skipped_steps": 1},
]  # fmt: skip


@pytest.mark.parametrize("cut", [0, 2, 3])
def test_means_are_weighted_by_task_and_survive_json_and_merging(cut):
    first, second = Means(), Means()
    for step in STEPS[:cut]:
        first.add(step)
    for step in STEPS[cut:]:
        second.add(step)
    means = Means(json.loads(json.dumps(first.state(), allow_nan=False)))
    means.merge(second)
    seg, canny = sorted(means.lines(), key=lambda line: line["task"], reverse=True)
    assert seg == {"task": "seg", "loss": 1.5, "face": pytest.approx((1.5 + 0.1) / 4), "learning_rate": 0.4, "skipped_steps": 1}
    assert canny == {"task": "canny", "loss": 5.0, "learning_rate": 0.2}
    assert means.overall()["loss"] == pytest.approx(8 / 3) and means.overall()["face"] == pytest.approx(0.4)


def test_a_task_whose_only_loss_is_not_finite_says_so():
    means = Means()
    means.add(STEPS[3])
    assert math.isnan(means.lines()[0]["loss"])


def test_a_line_is_the_mean_of_its_steps_and_a_stop_in_between_changes_nothing(make_config):
    settings = {"train__max_steps": 8, "loss__image_weight": 0.5, "loss__face_weight": 0.5, "loss__max_noise_level": 0.6}
    every, fourth = (make_config(name=f"every-{n}", train__log_every=n, **settings) for n in (1, 4))
    train(every)
    train(fourth)
    steps = lines(every)
    for line in lines(fourth):
        mine = [s for s in steps if line["step"] - 4 < s["step"] <= line["step"] and s["task"] == line["task"]]
        assert line["loss"] == pytest.approx(sum(s["loss"] for s in mine) / len(mine), rel=1e-9)
        weights = [s["gated_images"] for s in mine]
        if sum(weights):
            pixel = sum(s.get("pixel", 0) * w for s, w in zip(mine, weights, strict=True)) / sum(weights)
            assert line["pixel"] == pytest.approx(pixel, rel=1e-9)
    assert len(lines(fourth)) == sum(len({s["task"] for s in steps[k : k + 4]}) for k in (0, 4))
    stopped = make_config(name="stopped", train__log_every=4, train__checkpoint_every=3, **settings)
    train(stopped)
    shutil.rmtree(list_checkpoints(Path(stopped.output_dir))[-1])  # back to step 6, in the middle of the second line
    assert len(lines(stopped)) == len(lines(fourth))
    train(stopped)
    assert lines(stopped) == lines(fourth)
