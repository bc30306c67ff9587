"""Stage 3 through its entry: files, frame rate, half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator.conversion.lora import extract
from meta_animator.data.puppets.dataset import HELDOUT, describe
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.media.probe import probe_video
from meta_animator.media.video import VideoSource
from meta_animator.pipelines.driving import open_inputs
from meta_animator.stages.build import train
from meta_animator.stages.sample import held, load_animator, sample
from meta_animator.training.checkpoint import find_checkpoint
from meta_animator.weights import read_json, write_json


@pytest.fixture
def sampled(make_config, prepared, puppet_data):
    defaults = {
        "model__control_from": prepared, "sample__reference": puppet_data / "person", "sample__identity": "p0",
        "sample__driving": puppet_data / "train", "sample__num_inference_steps": 4, "sample__guidance_scale": 1.5,
    }  # fmt: skip

    def run(name, **overrides):
        config = make_config("sample", name, **(defaults | overrides))
        video = sample(config)
        folder = Path(config.output_dir)
        return video, np.stack([read_image(path) for path in sorted((folder / "frames").glob("*.png"))]).astype(int)

    return run


def test_the_output_follows_the_driving_clip(sampled):
    video, frames = sampled("plain")
    facts = probe_video(video)
    assert (facts.num_frames, facts.fps, len(frames)) == (4, 12, 4)
    assert len(list((video.parent / "driving").glob("*.png"))) == 4
    _, again = sampled("again")
    assert np.array_equal(frames, again)
    video, fewer = sampled("fewer", sample__max_frames=2, sample__fps=5)
    assert len(fewer) == 2 and probe_video(video).fps == 5


def test_stage_3_shows_what_stage_1_was_trained_at(sampled, make_config, prepared, capsys):
    stage_1 = {"model__control_from": prepared, "train__max_steps": 1, "data__num_frames": 2}
    own, slow = make_config("motion", "own", **stage_1), make_config("motion", "slow", **stage_1, data__fps=7)
    train(own)
    assert "note:" not in capsys.readouterr().out
    train(slow)
    assert "note: data.fps: 7 frames per second cannot be had of all clips" in (said := capsys.readouterr().out)
    assert "it is 6 from 12" in said
    runs = {run.output_dir: find_checkpoint(run.output_dir) / "manifest.json" for run in (own, slow)}
    assert [read_json(manifest)["fps"] for manifest in runs.values()] == [12, 6]

    def facts(name, run, **how):
        video, frames = sampled(name, model__motion_from=run.output_dir, sample__window=2, sample__overlap=1, **how)
        shown = probe_video(video)
        return len(frames), shown.num_frames, shown.fps, read_json(video.parent / "times.json")["driving_frames"]

    assert facts("a", own) == (4, 4, 12, [0, 1, 2, 3])
    assert facts("b", slow) == (2, 4, 12, [0, 2]), "generated at the trained rate, shown at the driving's"
    twice = VideoSource(Path(slow.output_dir).parent / "b" / "animation.mp4").read([0, 1, 2, 3]).astype(int)
    assert np.abs(twice[[0, 2]] - twice[[1, 3]]).max() < np.abs(twice[1] - twice[2]).max()
    assert facts("e", slow, sample__fps=6) == (2, 2, 6, [0, 2])
    assert "has 12 frames per second; it is resampled by time to 6" in capsys.readouterr().out
    assert facts("c", slow, sample__fps=12) == (4, 4, 12, [0, 1, 2, 3])
    assert "note: sample.fps is 12; the motion module" in (said := capsys.readouterr().out) and "was trained at 6" in said
    old = read_json(runs[slow.output_dir])
    old.pop("fps")
    write_json(runs[slow.output_dir], old)
    assert facts("d", slow) == (4, 4, 12, [0, 1, 2, 3]), "a run that does not say is shown at the driving's rate"
    write_json(runs[slow.output_dir], {**old, "fps": "fast"})
    with pytest.raises(UserError, match=r"manifest\.json: fps is 'fast'; expected one number"):
        facts("e", slow)


def test_the_sampler_can_be_chosen(sampled):
    """Of two steps the first and the last are first order, so that both walk the same way; of three, the middle one differs."""

    def frames(sampler, steps):
        name = f"{sampler}{steps}"
        return sampled(name, sample__sampler=sampler, sample__num_inference_steps=steps, sample__init_noise="random")[1]

    assert np.abs(frames("ddim", 2) - frames("dpm_solver_2m", 2)).max() <= 1
    assert np.abs(frames("ddim", 3) - frames("dpm_solver_2m", 3)).max() > 1


def test_extracted_folders_are_enough_to_sample(sampled, make_config, prepared):
    _, frames = sampled("run")
    extract(make_config("extract", "loras", extract__checkpoint=prepared))
    folder = Path(make_config("extract", "loras").output_dir)
    with pytest.raises(UserError, match=r"is a ControlNet without LoRAs; name some in sample.loras"):
        sampled("bare", model__control_from=folder / "controlnet")
    loras = f"{{{folder / 'dwpose'}: 1.0}}"
    _, again = sampled("elsewhere", model__control_from=folder / "controlnet", sample__loras=loras)
    assert np.array_equal(frames, again)


def test_half_precision_samples_nearly_the_same(sampled):
    _, full = sampled("full")
    _, half = sampled("half", train__mixed_precision="bf16")
    difference = np.abs(full - half)
    assert 0 < difference.mean() < 4, "bf16 must take effect, and change little"


def test_another_person_in_the_reference_is_said(sampled, make_config, prepared, puppet_data, capsys):
    tuned = make_config("reference", "tuned", model__control_from=prepared, train__max_steps=1)
    train(tuned)
    sampled("same", model__control_from=tuned.output_dir, sample__identity="")
    assert "note:" not in capsys.readouterr().out
    sampled("other", model__control_from=tuned.output_dir, sample__identity="", sample__reference=puppet_data / "train")
    assert "note: sample.reference shows 'p0', the prompt calls 'held-out'" in capsys.readouterr().out


def test_the_prompt_describes_whom_the_checkpoint_was_tuned_on(make_config, prepared):
    tuned = make_config(
        "reference", "described", model__control_from=prepared, train__max_steps=1, data__prompt="'{description} {identifier}'"
    )
    train(tuned)
    config = make_config("sample", "described-sample", model__control_from=tuned.output_dir)
    animator = load_animator(config)
    described, word = animator.prompt.rsplit(" ", 1)
    assert word == animator.models.identifiers["held-out"]
    assert describe(HELDOUT).startswith(described) and len(described) > 60, "as much as the tiny text encoder reads"
    config.sample.identity = next(name for name in animator.models.identifiers if name != "held-out")
    other = load_animator(config)
    assert other.prompt == other.models.identifiers[config.sample.identity]


@pytest.mark.parametrize("start", [{}, {"sample__init_noise": "random"}, {"sample__shared_noise": 0.5}])
def test_the_first_latents_can_be_scaled(make_config, prepared, puppet_data, start):
    def first(scale):
        config = make_config(
            "sample", f"scale{scale}", model__control_from=prepared, sample__identity="p0", sample__num_inference_steps=4,
            sample__reference=puppet_data / "person", sample__driving=puppet_data / "train", sample__init_noise_scale=scale,
            **start,
        )  # fmt: skip
        driving, reference = open_inputs(config)
        animator = load_animator(config)
        control = {"dwpose": animator._encode_conditions(driving, "dwpose")}
        with torch.no_grad():
            return animator._first_latents(reference, animator.models.backbone.embed_text([""]), len(driving), control)

    whole = first(1.0)
    assert whole.shape[:2] == (1, 4) and whole.std() > 0.3
    assert torch.allclose(first(0.5), 0.5 * whole, atol=1e-6)


def test_frames_are_held_until_the_driving_ends():
    shown = list(held(iter("abcde"), 5, 12, 30, shown=14))
    assert "".join(shown) == "aaabbcccddeeee", "at 30 frames per second, the last one longer"
    assert "".join(held(iter("abc"), 3, 12, 12)) == "abc"
