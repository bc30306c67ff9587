"""What sampling starts from: noise of the kind that the motion module has learned from, unless the config says otherwise."""

from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.config import load_config
from meta_animator.data.conditions import draw_condition
from meta_animator.data.samples import to_pixels
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.sampling.opening import open_inputs
from meta_animator.stages.sample import load_animator
from meta_animator.stages.train import train


@pytest.fixture(scope="module")
def moving(tmp_path_factory, tiny_base, puppet_data, prepared):
    """The folder of a stage-1 run with 60 % of shared noise."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("moving")
    settings = {"model__control_from": prepared, "train__max_steps": 1, "train__shared_noise": 0.6}
    train(tiny.make_config(folder, tiny_base, puppet_data, "motion", **settings))
    return folder


@pytest.fixture
def first_latent(make_config, prepared, puppet_data):
    """(animator, x_T) of four frames for a stage-3 config."""

    def make(**overrides):
        config = make_config(
            "sample", model__control_from=prepared, sample__identity="p0", sample__num_inference_steps=4, sample__window=3,
            sample__overlap=1, sample__reference=puppet_data / "person", sample__driving=puppet_data / "train", **overrides,
        )  # fmt: skip
        driving, reference = open_inputs(config.sample, config.data, config.seed, config.model)
        animator = load_animator(config)
        control = {"dwpose": animator._encode_conditions(driving, "dwpose")}
        with torch.no_grad():
            shape = tuple(control["dwpose"].shape[1:])
            return animator, animator._first_latents(reference, animator._denoiser(control, None), shape)

    return make


def correlation(x_T: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([x_T[0, 0].flatten(), x_T[0, 2].flatten()]))[0, 1].item()


def test_stage_3_shares_as_much_noise_as_stage_1_did_and_says_where_not(first_latent, moving, capsys):
    animator, x_T = first_latent(model__motion_from=moving, sample__init_noise="random")
    assert animator.shared_noise == 0.6 and correlation(x_T) == pytest.approx(0.6, abs=0.1)
    assert MetaAnimatorPipeline.from_animator(animator).config.shared_noise == 0.6
    assert "shared_noise" not in capsys.readouterr().out
    first_latent(model__motion_from=moving, sample__shared_noise=0)
    assert "note: every frame starts from noise of its own, none from the inverted photo" in capsys.readouterr().out
    _, x_T = first_latent(model__motion_from=moving, sample__init_noise="random", sample__shared_noise=0.1)
    assert correlation(x_T) == pytest.approx(0.1, abs=0.1)
    said = "note: sample.shared_noise is 0.1, the motion module was trained with train.shared_noise 0.6"
    assert said in capsys.readouterr().out


def test_where_nothing_is_known_all_frames_start_from_the_inverted_photo(first_latent, moving, tmp_path):
    """Without a motion module, and with one of a run that does not say."""
    animator, still = first_latent()
    assert animator.shared_noise == 1 and torch.equal(still[:, :1].expand_as(still), still)
    file = list_checkpoints(Path(moving))[-1] / "manifest.json"
    known = read_json(file)
    write_json(file, {key: value for key, value in known.items() if key != "shared_noise"})
    animator, moved = first_latent(model__motion_from=moving)
    write_json(file, known)
    assert animator.shared_noise == 1 and torch.equal(moved, still)


def test_the_pipeline_starts_from_the_inverted_photo_as_stage_3_does(first_latent, make_config, puppet_data, moving):
    animator, _ = first_latent(model__motion_from=moving)
    config = make_config("sample", model__motion_from=moving)
    _, reference = open_inputs(animator.sample, config.data, animator.seed, config.model)
    pipe = MetaAnimatorPipeline.from_animator(animator)
    pipe.set_progress_bar_config(disable=True)
    pose = draw_condition("dwpose", reference)
    with torch.no_grad():
        control = {"dwpose": animator.models.backbone.encode_condition(to_pixels(pose)[None, None])}
        wanted = animator._invert(reference, animator._denoiser(control, None))
    found = pipe.invert(reference.frame, {"dwpose": [pose]}, num_inference_steps=4)
    assert found.shape == (1, *wanted.shape)
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(pipe.invert(reference.frame, num_inference_steps=4)[:, 0], wanted, atol=1e-2), "the pose counts"
    shape = (1, 3, *wanted.shape[1:])
    noise, own = (
        pipe._first_noise(shape, torch.Generator().manual_seed(0), "cpu", torch.float32, one) for one in (found, 0 * found)
    )
    torch.testing.assert_close(noise - own, 0.6**0.5 * found.expand(shape), rtol=1e-4, atol=1e-5)
    call = {"conditions": {"dwpose": [pose] * 3}, "num_inference_steps": 2, "window": 3, "overlap": 1, "output_type": "latent"}
    made = pipe(**call, shared_latents=found, generator=torch.Generator().manual_seed(0)).frames
    torch.testing.assert_close(made, pipe(**call, latents=noise, generator=torch.Generator().manual_seed(5)).frames)
    with pytest.raises(ValueError, match="shared_latents: expected"):
        pipe(**call, shared_latents=found, latents=noise)
    with pytest.raises(ValueError, match="conditions: expected one image of the photo's size"):
        pipe.invert(reference.frame, {"dwpose": [pose, pose]})


def test_the_pipeline_draws_such_noise(first_latent, moving):
    animator, _ = first_latent(model__motion_from=moving, sample__init_noise="random")
    pipe = MetaAnimatorPipeline.from_animator(animator)
    noise = pipe._first_noise((1, 3, 4, 64, 64), torch.Generator().manual_seed(0), "cpu", torch.float32)
    assert correlation(noise) == pytest.approx(0.6, abs=0.05)
    pipe.register_to_config(shared_noise=1.0)
    assert pipe._first_noise((1, 3, 4, 8, 8), None, "cpu", torch.float32).shape == (1, 1, 4, 8, 8)


def test_former_keys_are_read_as_what_they_are_now(tmp_path, capsys):
    path = tmp_path / "old.yaml"
    path.write_text("sample: {frame_noise: 0.25, inversion_share: 1.0, inversion_fixed_point_iterations: 0}\n")
    assert load_config(path).sample.shared_noise == 0.75
    assert capsys.readouterr().out == f"note: {path}: sample.frame_noise=0.25 is now sample.shared_noise=0.75\n"
    config = load_config(path, ["sample.frame_noise=1", "sample.inversion_share=0.5"])
    assert config.sample.shared_noise == 0
    assert "sample.inversion_share=0.5 is no longer a setting and left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"sample\.frame_noise: expected a number, got 'much'"):
        load_config(path, ["sample.frame_noise=much"])


def test_a_window_that_is_longer_than_the_clips_of_stage_1_is_said(first_latent, moving, capsys):
    file = list_checkpoints(Path(moving))[-1] / "manifest.json"
    known = read_json(file)
    for trained, said in ((3, False), (2, True)):
        write_json(file, known | {"settings": {**known["settings"], "data.num_frames": trained}})
        animator, _ = first_latent(model__motion_from=moving)
        note = f"note: sample.window is 3, the motion module was trained on clips of {trained} frames\n"
        assert animator.sample.window == 3 and (note in capsys.readouterr().out) == said
    write_json(file, known)
