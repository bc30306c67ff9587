"""Meta-Animator as a diffusers pipeline: it answers as stage 3 does, and comes back from disk as it went."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from PIL import Image

from meta_animator.diffusion.samplers import ddim
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.control import MetaControlNet
from meta_animator.pipelines.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.pipelines.guidance import Guide
from meta_animator.pipelines.windows import predict_in_windows, temporal_windows, window_weights
from tests import tiny

FRAMES, STEPS, SCALE = 5, 3, 2.0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    config = tiny.make_config(folder / "run", tiny.make_base(folder / "base"), folder).model
    models = Assembly(config, load_backbone(config), with_motion=True)
    tiny.randomise_zeros(models.control)
    tiny.randomise_zeros(models.motion)
    return models


@pytest.fixture
def pipeline(models):
    pipe = MetaAnimatorPipeline.from_assembly(models)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(FRAMES, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(seed))


def make(pipe, **changes):
    arguments = {
        "prompt": "person looks like <id001>", "conditions": {"dwpose": images()}, "num_inference_steps": STEPS,
        "guidance_scale": SCALE, "window": 3, "overlap": 1, "generator": torch.Generator().manual_seed(3),
        "output_type": "latent",
    }  # fmt: skip
    return pipe(**(arguments | changes)).frames


def test_it_answers_as_stage_3_does(models, pipeline):
    """The same networks through our own samplers, windows and guidance."""
    backbone = models.backbone
    control = {"dwpose": backbone.encode_condition(images() * 2 - 1)[None]}
    x_T = torch.randn(1, 1, *control["dwpose"].shape[2:], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        context, null = backbone.embed_text(["person looks like <id001>"]), backbone.embed_text([""])
    guide = Guide(backbone=backbone, control=models.control, tasks={"dwpose": 1.0}, guidance_scale=SCALE)
    windows = temporal_windows(FRAMES, 3, 1)
    weights = window_weights(FRAMES, windows, 1)

    def denoise(x_t, t):
        return predict_in_windows(
            lambda x, part: guide.predict(x, t, context, null, {"dwpose": control["dwpose"][:, part]}), x_t, windows, weights
        )

    process = backbone.process
    ours = ddim(denoise, x_T.expand(-1, FRAMES, -1, -1, -1), process, process.sampling_timesteps(STEPS))
    theirs = make(pipeline)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(theirs, ours.to(theirs), rtol=0, atol=1e-4)
    assert (make(pipeline, conditions={"dwpose": images(1)}) - theirs).abs().max() > 1e-2, "the condition must count"


def test_it_comes_back_from_disk(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = MetaAnimatorPipeline.from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(make(loaded), make(pipeline))


def test_meta_controlnet_comes_back_with_its_loras(models, tmp_path):
    models.control.save_pretrained(tmp_path / "control")
    loaded = MetaControlNet.from_pretrained(tmp_path / "control")
    assert loaded.bank.tasks == models.control.bank.tasks
    assert loaded.bank.rank == models.control.bank.rank
    x, t = torch.randn(1, *models.backbone.encode(images()[:1] * 2 - 1).shape[1:]), torch.tensor([5])
    context = models.backbone.embed_text(["a"])
    for network in (models.control, loaded):
        network.bank.use(tiny.TASKS[-1])
    for a, b in zip(models.control(x, t, context).down, loaded(x, t, context).down, strict=True):
        torch.testing.assert_close(a, b)


def test_without_motion_frames_stand_alone(models):
    base = models.backbone
    alone = MetaAnimatorPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=base.unet, control=models.control,
        scheduler=DDIMScheduler(clip_sample=False, **base.scheduler),
    )  # fmt: skip
    alone.set_progress_bar_config(disable=True)
    whole, first = make(alone), make(alone, conditions={"dwpose": images()[:1]})
    torch.testing.assert_close(whole[:, :1], first, rtol=0, atol=1e-5)


def test_outputs_callbacks_and_other_schedulers(pipeline):
    frames = make(pipeline, output_type="pil", conditions={"dwpose": [Image.new("RGB", (tiny.SIZE,) * 2, "red")] * FRAMES})
    assert len(frames[0]) == FRAMES and frames[0][0].size == (tiny.SIZE, tiny.SIZE)
    array = make(pipeline, output_type="np")
    assert array.shape == (1, FRAMES, tiny.SIZE, tiny.SIZE, 3) and array.min() >= 0 and array.max() <= 1
    seen = []

    def callback(pipe, step, t, given):
        seen.append((step, int(t)))
        return {"latents": torch.zeros_like(given["latents"])}

    assert not make(pipeline, callback_on_step_end=callback).any()
    assert [step for step, _ in seen] == list(range(STEPS)) and seen[0][1] > seen[-1][1]
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    assert np.isfinite(make(pipeline, output_type="np")).all()
    assert isinstance(pipeline, DiffusionPipeline)


def test_wrong_conditions_are_named(pipeline):
    with pytest.raises(ValueError, match=r"expected images for one or more of .*; got hed"):
        make(pipeline, conditions={"hed": images()})
    two = {tiny.TASKS[0]: images(), tiny.TASKS[1]: images()[:2]}
    with pytest.raises(ValueError, match="as many images, of one size"):
        make(pipeline, conditions=two)
