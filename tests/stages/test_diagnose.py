"""Truth in the place of each part of stage 3, on the tiny base."""

import contextlib

import numpy as np
import pytest

from meta_animator.data.manifest import find_clip
from meta_animator.errors import UserError
from meta_animator.sampling.animate import Animator
from meta_animator.stages import diagnose as diagnosing
from meta_animator.stages.diagnose import START_SHARES, _changed, diagnose
from meta_animator.stages.sample import load_animator


@pytest.fixture
def config(make_config, prepared, puppet_data, tmp_path):
    return make_config(
        "sample", model__control_from=prepared, model__tasks="[dwpose]", sample__driving=puppet_data / "train",
        sample__reference=puppet_data / "person", sample__identity="p0", sample__num_inference_steps=5,
        sample__guidance_scale=2.0,
    )  # fmt: skip


def test_every_part_is_scored_against_the_truth(config):
    numbers, rows = diagnose(config)
    changed = ["guidance 1", "from noise, not inversion", "no control"]  # not: a first latent as it is, no motion module
    assert list(numbers) == ["decoder", *(f"truth with noise {share}" for share in START_SHARES), "as configured", *changed]
    assert len(rows) == len(numbers) + 1 and all(len(row) == 4 for row in rows)
    assert all(row["frames"] == 4 for row in numbers.values())
    by_name = dict(zip(["truth", *numbers], rows, strict=True))

    def distance(one: str, other: str) -> float:
        return float(np.abs(np.stack(by_name[one]).astype(float) - np.stack(by_name[other])).mean())

    assert 0 < distance("decoder", "truth with noise 0.2") < distance("decoder", "truth with noise 1.0")
    assert distance("as configured", "from noise, not inversion") > 0
    assert distance("as configured", "no control") > 0


def test_the_truth_s_own_poses_drive_with_the_kernels_of_the_config(config, monkeypatch, capsys):
    entered = []
    monkeypatch.setattr(diagnosing, "kernels_of", lambda config: entered.append(config) or contextlib.nullcontext())
    monkeypatch.setattr(diagnosing, "_diagnose", lambda config: config)
    config.sample.fit_pose = "limbs"
    assert diagnose(config).sample.fit_pose == "no" and len(entered) == 1
    assert "note: sample.fit_pose is left out" in capsys.readouterr().out


def test_a_driving_clip_without_frames_is_refused(config, tmp_path, puppet_data):
    clip = find_clip(puppet_data / "train", "p0")
    points = np.stack([clip.load(k, ("keypoints",)).keypoints for k in range(clip.num_frames)])
    np.savez(tmp_path / "pose.npz", keypoints=points, width=clip.width, height=clip.height, fps=12.0)
    config.sample.driving = str(tmp_path / "pose.npz")
    with pytest.raises(UserError, match="shows no frames to compare with"):
        diagnose(config)


def test_a_variant_keeps_the_prompt_with_the_description(config):
    models = load_animator(config).models
    animator = Animator(config.sample, config.seed, models, "{description} {identifier}", "p0", "a tall man")
    assert animator.prompt.startswith("a tall man ")
    assert _changed(config, animator, "sample", "guidance_scale", 1.0).prompt == animator.prompt
