"""The embedded base model that is shipped: does it show puppets, and does fine-tuning on it teach a person?"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.config import load_config
from meta_animator.data.conditions import draw_condition
from meta_animator.data.samples import read_clips, to_pixels
from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.diffusion.samplers import ddim
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.face import FaceEmbedder
from meta_animator.puppets.base.judge import two_frames, verification
from meta_animator.puppets.dataset import make_driving, make_person, make_train
from meta_animator.puppets.rendering import render_clip
from meta_animator.sampling.animate import Animator
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.opening import open_inputs
from meta_animator.sampling.windows import temporal_windows
from meta_animator.settings import PuppetsConfig
from meta_animator.stages import reference
from meta_animator.stages.data import load_batches
from meta_animator.training.engine import Trainer
from meta_animator.training.processes import make_accelerator

ROOT = Path(__file__).parent.parent
BASE = ROOT / "assets" / "base"
UNSEEN = 31  # seed of a held-out person


@pytest.fixture(scope="module")
def models():
    config = load_config(ROOT / "configs/demo/step0.yaml", [f"model.base={BASE}"]).model
    models = Assembly(config, load_backbone(config))
    load_control(models, *read_weights(BASE / "control"), "the shipped stage 0")
    return models


def test_assets_stay_within_their_budget():
    assert sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file()) <= 24e6


def test_vae_shows_an_unseen_puppet(models):
    pixels = to_pixels(render_clip(2_000_003, 2_000_003, 1)[0].frame)[None]
    with torch.no_grad():
        error = (models.backbone.decode(models.backbone.encode(pixels)).clamp(-1, 1) - pixels).pow(2).mean()
    assert 10 * torch.log10(4 / error) > 24


def test_face_embedder_tells_unseen_people_apart_in_other_poses():
    """200 people gave 99.3 % (assets/base/README.md); 24 have about twenty pairs of faces of one person."""
    found = verification(FaceEmbedder.from_pretrained(BASE / "face").eval(), [two_frames(2_000_100 + k) for k in range(24)])
    assert found["same_pairs"] >= 12 and found["accuracy"] >= 0.95


def test_ddim_inversion_and_back_under_control(models):
    """Same model, prompt and control both ways, guidance 1, 50 steps: latent error of at most 5 %."""
    layers = render_clip(2_000_004, 2_000_004, 1)[0]
    backbone = models.backbone
    with torch.no_grad():
        context = backbone.embed_text(["person looks like <id001>"])
        control = {"dwpose": backbone.encode_condition(to_pixels(draw_condition("dwpose", layers))[None, None])}
        latents = backbone.encode(to_pixels(layers.frame)[None, None])
    denoise = Denoiser(
        backbone=backbone, control=models.control, tasks={"dwpose": 1.0}, control_latents=control, context=context
    )
    steps = backbone.process.sampling_timesteps(50)
    noise = ddim_inversion(denoise, latents, backbone.process, steps, fixed_point_iterations=2)
    back = ddim(denoise, noise, backbone.process, steps)
    assert (back - latents).norm() / latents.norm() <= 5e-2
    assert 0.7 < noise.std() < 1.3


@pytest.mark.timeout(900)
def test_stage_2_learns_an_unseen_person_from_an_identifier(tmp_path):
    """Prompts name only the identifier; unseen poses; error inside the person falls below stage 0's."""
    puppets = PuppetsConfig(seed=UNSEEN, identities=4, frames=2, photos=6, driving_frames=4, fps=4)
    for name, make in (("person", make_person), ("train", make_train), ("driving", make_driving)):
        make(puppets, tmp_path / name)
    config = load_config(
        ROOT / "configs/demo/step2.yaml",
        [
            f"model.base={BASE}", f"model.face={BASE}/face", f"model.control_from={BASE}/control",
            f"output_dir={tmp_path}/run", f"data.train=[{tmp_path}/person]", f"data.auxiliary=[{tmp_path}/train]",
            "data.prompt=Person looks like {identifier}", "data.puppets.root=", "data.crops=2", "train.max_steps=80",
            "train.batch_size=6", "train.preview_every=0",
        ],
    )  # fmt: skip
    accelerator = make_accelerator(config.train.mixed_precision)
    training = reference.build(config, accelerator)
    stage, samples, plan = training.stage, training.samples, training.plan
    config.sample.reference, config.sample.driving = f"{tmp_path}/person", f"{tmp_path}/driving"
    config.sample.num_inference_steps, config.sample.guidance_scale = 10, 1.0
    animator = Animator(config.sample, config.seed, stage.models, template=config.data.prompt, person=stage.parts.about["person"])
    assert animator.prompt == f"Person looks like {stage.models.identifiers[stage.parts.about['person']]}"
    inputs = open_inputs(config.sample, config.data, config.seed, config.model)
    truth = read_clips([f"{tmp_path}/driving"], "train")[0]
    layers = [truth.load(k, ("frame", "mask")) for k in range(truth.num_frames)]

    def person_error() -> float:
        """Mean squared error inside the person, from the DDIM inversion of the first photo."""
        frames = np.stack(list(animator.animate(*inputs).frames)).astype(float)
        difference = frames - np.stack([layer.frame for layer in layers])
        return float(np.square(difference[np.stack([layer.mask for layer in layers])]).mean())

    before = person_error()
    loader = lambda first, last: load_batches(config.data, samples, plan, accelerator, first, last)  # noqa: E731
    Trainer(config, accelerator, stage, loader).run()
    assert person_error() < before


def encode_poses(models, seed):
    """Control latents (24 c h w) of a clip's skeletons."""
    images = [draw_condition("dwpose", layers) for layers in render_clip(seed, seed, 24, fps=24)]
    return models.backbone.encode_condition(torch.stack([to_pixels(image) for image in images]))


def test_windows_leave_no_seam(models):
    """Clips of two windows: neighbouring frames across the seam differ no more than neighbours elsewhere do. Means over
    three motions, since a motion has jerks of its own; between equals chance decides which is largest: hence the tenth.
    A hard cut between the windows fails by far."""
    torch.manual_seed(0)
    motion = models.backbone.with_motion(32)
    for name, module in motion.named_modules():
        if name.endswith("proj_out"):  # zero in a fresh module: windows would not matter
            torch.nn.init.normal_(module.weight, std=0.5)
    windows = temporal_windows(24, 16, 4)
    with torch.no_grad():
        context = models.backbone.embed_text(["person looks like <id001>"])
        control = torch.stack([encode_poses(models, seed) for seed in (2_000_005, 2_000_006, 2_000_007)])
        x_T = torch.randn(3, 1, *control.shape[2:]).expand(-1, 24, -1, -1, -1)
        context = context.expand(3, -1, -1)

        together = Denoiser(
            backbone=models.backbone, control=models.control, tasks={"dwpose": 1.0}, control_latents={"dwpose": control},
            context=context,
        )  # fmt: skip
        denoise = dataclasses.replace(together, window=16, overlap=4)
        latents = ddim(denoise, x_T, models.backbone.process, models.backbone.process.sampling_timesteps(8))
        t = torch.full((3,), 500)
        whole, blended = together(x_T, t), denoise(x_T, t)
    assert not torch.allclose(whole, blended, atol=1e-4), "the windows must matter for this test to mean anything"
    jumps = latents.diff(dim=1).flatten(2).norm(dim=2).mean(0)
    (_, first_end), (second_start, _) = windows
    inside = torch.zeros(23, dtype=torch.bool)
    inside[second_start - 1 : first_end] = True
    assert jumps[inside].max() <= 1.1 * jumps[~inside].max()
