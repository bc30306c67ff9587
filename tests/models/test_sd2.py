"""A folder in the shape of Stable Diffusion 2.1: linear projections, heads per block, another text encoder, velocities."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextModel

from meta_animator.diffusion.samplers import ddim
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import ModelConfig
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tiny.make_base(tmp_path_factory.mktemp("sd2") / "base")
    unet = tiny.tiny_unet(use_linear_projection=True, attention_head_dim=(2, 4), cross_attention_dim=24)
    unet.save_pretrained(folder / "unet")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").config
    text.hidden_size, text.hidden_act, text.num_hidden_layers = 24, "gelu", 2
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(tiny.SCHEDULER | {"prediction_type": "v_prediction"}))
    return folder


def test_it_samples_as_diffusers_does(base):
    """Text, guidance and DDIM of the whole model, against StableDiffusionPipeline."""
    ours = load_backbone(ModelConfig(base=str(base)))
    parts = {"vae": ours.vae, "text_encoder": ours.text_encoder, "tokenizer": ours.tokenizer, "unet": ours.unet}
    scheduler = DDIMScheduler.from_pretrained(base / "scheduler")
    extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    theirs = StableDiffusionPipeline(**parts, scheduler=scheduler, **extra)
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = theirs("a person", latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="latent").images
    context, null = (ours.embed_text([text]) for text in ("a person", ""))
    denoise = Denoiser(
        backbone=ours, control=ours.make_control(["dwpose"], 2), tasks={"dwpose": 1.0}, guidance_scale=3.0, context=context,
        null_context=null, control_latents={"dwpose": torch.zeros_like(noise)[:, None]},  # a fresh ControlNet adds nothing
    )  # fmt: skip
    process = ours.process
    sampled = ddim(denoise, noise[:, None], process, process.sampling_timesteps(4))[:, 0]
    torch.testing.assert_close(sampled, wanted, rtol=0, atol=1e-4)
    assert process.prediction_type == "v_prediction"


def test_stage_0_trains_on_it(base, tmp_path):
    data = tiny.make_data(tmp_path / "data", people=2)
    stage, samples, _ = tiny.make_stage(tiny.make_config(tmp_path / "run", base, data, model__tasks="[dwpose]"))
    weights = {name: p for group in stage.param_groups() for name, p in group.parameters.items()}
    before = {name: p.detach().clone() for name, p in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    batch = tiny.first_batch(samples, "dwpose")
    stage.begin_step([batch], 1, lambda x: x)
    losses = []
    for _ in range(4):
        loss, _ = stage(batch, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    linear = [name for name in weights if ".proj_in." in name]
    assert linear and all(not torch.equal(before[name], weights[name]) for name in linear)


def test_a_fresh_motion_module_leaves_its_frames_alone(base):
    models = Assembly(ModelConfig(base=str(base), tasks=["dwpose"]), load_backbone(ModelConfig(base=str(base))), with_motion=True)
    x, t = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    with torch.no_grad():
        context = models.backbone.embed_text(["a person"])
        video = models.backbone.predict(x, t, context)
        frames = models.backbone.predict(x[0], t.expand(3), context.expand(3, -1, -1))
    torch.testing.assert_close(video[0], frames, rtol=0, atol=1e-5)
