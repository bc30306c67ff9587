"""An AutoencoderTiny (TAESD) in the VAE's place, for what is only looked at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from meta_animator.config import load_config
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.models.backbones import backbone_without_weights, load_backbone
from meta_animator.models.counting import PeakMemory
from meta_animator.settings import ModelConfig
from meta_animator.stages.checks import check_run
from meta_animator.stages.memory import sampling_steps, sampling_without_weights
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from tests import tiny


@pytest.fixture
def backbones(tiny_base):
    """Of the same base, without and with one."""
    small = str(tiny_base / "tiny_vae")
    return [load_backbone(ModelConfig(base=str(tiny_base), tiny_vae=name)) for name in ("", small)]


def test_it_shows_what_diffusers_decodes(backbones, tiny_base):
    plain, small = backbones
    small.tiny_vae.register_to_config(scaling_factor=2.0)  # as a pipeline of diffusers, which divides by it
    latents = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = torch.cat(list(small.show_in_turn(latents, 2)), dim=1)
    theirs = AutoencoderTiny.from_pretrained(tiny_base / "tiny_vae")
    with torch.no_grad():
        expected = torch.stack([theirs.decode(clip / 2).sample for clip in latents])
    torch.testing.assert_close(shown, expected)
    exact = torch.cat(list(plain.show_in_turn(latents, 2)), dim=1)
    torch.testing.assert_close(exact, plain.decode(latents))
    assert (shown - exact).abs().mean() > 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_shows_in_half_precision_too(backbones, dtype):
    _, small = backbones
    latents = torch.randn(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = next(small.show_in_turn(latents, 2))
    small.hold_frozen_in(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        halved = next(small.show_in_turn(latents, 2))
    assert small.tiny_vae.dtype == dtype and halved.dtype == torch.float32
    assert 0 < (halved - exact).abs().max() < 0.1


def test_losses_cards_and_caches_know_nothing_of_it(backbones):
    plain, small = backbones
    latents = torch.randn(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.decode(latents), small.decode(latents))
    assert (plain.fingerprint(), plain.encoder_fingerprint()) == (small.fingerprint(), small.encoder_fingerprint())
    assert plain.named_weights().keys() == small.named_weights().keys()
    assert small.tiny_vae.encoder is None and not any(p.requires_grad for p in small.parameters())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"latent_channels": 8}, "reads latents of 8 channels for 4 x 4 pixels; the base's have 4 for 4 x 4"),
        ({"decoder_block_out_channels": (8, 8), "num_decoder_blocks": (1, 1)}, "of 4 channels for 2 x 2 pixels"),
    ],
)
def test_one_for_other_latents_is_refused(tiny_base, tmp_path, changes, match):
    tiny.tiny_vae(**changes).save_pretrained(tmp_path)
    for load in (load_backbone, backbone_without_weights):
        with pytest.raises(UserError, match=match):
            load(ModelConfig(base=str(tiny_base), tiny_vae=str(tmp_path)))


def test_without_weights_it_is_quiet_and_on_the_hub_it_is_taken_to_fit(caplog):
    for name, parameters in (("assets/base/tiny_vae", 90_891), ("someone/taesd-of-eight-channels", 1_000_000)):
        small = backbone_without_weights(ModelConfig(tiny_vae=name))
        assert next(small.show_in_turn(torch.empty(1, 2, 8, 32, 32, device="meta"), 2)).shape == (1, 2, 3, 128, 128)
        assert sum(p.numel() for p in small.tiny_vae.parameters()) == pytest.approx(parameters, rel=0.2)
    assert not caplog.records


def test_a_check_says_so_before_any_weights_are_read(make_config, tmp_path):
    with pytest.raises(UserError, match=r"model.tiny_vae .*none: no such folder here; expected one, or a name on the hub"):
        check_run(make_config(model__tiny_vae=tmp_path / "none"), dry=True)


def test_one_that_is_not_there_is_said_in_a_line(tiny_base, tmp_path):
    for name, match in ((tmp_path, "no config.json; expected a AutoencoderTiny"), (tmp_path / "none", "no such folder here")):
        with pytest.raises(UserError, match=f"model.tiny_vae .*{match}"):
            load_backbone(ModelConfig(base=str(tiny_base), tiny_vae=str(name)))


def test_stage_3_and_previews_show_it(make_config, tiny_base, prepared, puppet_data):
    """Frames of stage 3 and a preview by each: alike in where they come from, other in what they show."""
    shown = []
    for name in ("", tiny_base / "tiny_vae"):
        config = make_config(
            "sample", f"stage3-{bool(name)}", model__control_from=prepared, model__tiny_vae=name,
            sample__identity="p0", sample__max_frames=2, sample__num_inference_steps=2, sample__init_noise="random",
            sample__driving=puppet_data / "train",
        )  # fmt: skip
        frames = [read_image(file) for file in sorted((sample(config).parent / "frames").glob("*.png"))]
        run = make_config(
            "control", f"stage0-{bool(name)}", model__tiny_vae=name, train__max_steps=1, train__preview_every=1
        )
        train(run)
        shown.append((np.stack(frames), read_image(Path(run.output_dir) / "previews" / "step-000001.png")))
    for plain, small in zip(*shown, strict=True):
        assert plain.shape == small.shape and np.abs(plain.astype(int) - small).mean() > 3


def test_decoding_with_it_takes_less_memory():
    """TAESD at SD1.5's size, counted without its weights."""
    names = ("", "madebyollin/taesd")
    configs = [load_config("configs/sd15/step3.yaml", [f"model.tiny_vae={name}"]) for name in names]
    small = backbone_without_weights(configs[1].model)
    assert next(small.show_in_turn(torch.empty(1, 4, 4, 64, 64, device="meta"), 4)).shape == (1, 4, 3, 512, 512)
    assert sum(p.numel() for p in small.tiny_vae.parameters()) == 1_222_531
    peaks = []
    for config, models in ((config, sampling_without_weights(config)) for config in configs):
        with torch.no_grad(), PeakMemory() as memory:
            sampling_steps(config, models)["decoding"]()
        peaks.append(memory.peak)
    assert peaks[1] < peaks[0] / 2
