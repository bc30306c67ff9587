"""A training step against a plain loop over diffusers' own modules, in float32."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch.func import functional_call

from meta_animator.benchmark.rivals import control_of_latents, same_weights
from meta_animator.diffusion.randomness import noise_for
from meta_animator.models.kernels import kernels_of
from tests import tiny

TASK = "seg"


def plain(stage, batch):
    """(loss, {name: gradient} of the shared weights and of the task's LoRA): everything encoded, decoded and multiplied out."""
    models, config = stage.models, stage.config
    base, bank = models.backbone, models.control.bank
    shared = {name: weight.detach().clone().requires_grad_() for name, weight in models.control.base_state().items()}
    lora = {name: weight.detach().clone().requires_grad_() for name, weight in bank.state(TASK).items()}
    layers = {name.rsplit(".lora_", 1)[0] for name in lora}
    added = {f"{n}.weight": lora[f"{n}.lora_B.weight"] @ lora[f"{n}.lora_A.weight"] for n in layers}
    weights = {name: weight + added.get(name, 0) for name, weight in shared.items()}
    unet, vae, control = same_weights(base.unet), same_weights(base.vae), control_of_latents(models)
    process = DDPMScheduler(**{key: base.scheduler[key] for key in DDPMScheduler().config if key in base.scheduler})

    latents, condition = (
        vae.encode(pixels[:, 0]).latent_dist.mode() * vae.config.scaling_factor for pixels in (batch.pixels, batch.control_pixels)
    )
    noise, t = noise_for(config.seed, batch.draws, tuple(latents.shape[1:])), stage.timesteps(batch.draws)
    x_t, text = process.add_noise(latents, noise, t), base.embed_text(batch.prompts)
    down, mid = functional_call(
        control, weights, (condition, t, text), {"controlnet_cond": condition, "return_dict": False}
    )
    prediction = unet(
        x_t, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
    )[0]
    alpha = process.alphas_cumprod[t].view(-1, 1, 1, 1)
    if process.config.prediction_type == "epsilon":
        target, x_0 = noise, (x_t - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    else:
        target, x_0 = process.get_velocity(latents, noise, t), alpha.sqrt() * x_t - (1 - alpha).sqrt() * prediction
    decoded = vae.decode(x_0 / vae.config.scaling_factor).sample
    loss = (prediction - target).square().mean() + 0.5 * (decoded - batch.pixels[:, 0]).square().mean()
    loss.backward()
    return loss, {name: weight.grad for name, weight in (*shared.items(), *lora.items())}


@pytest.mark.parametrize(
    "settings",
    [{}, {"train__gradient_checkpointing": True}, {"model__attention": "math"}],
)
def test_loss_and_gradients_are_those_of_a_plain_loop(make_config, settings):
    """Whatever makes it faster or smaller and claims to be exact."""
    exact = {"loss__image_weight": 0.5, "loss__face_weight": 0, "loss__max_noise_level": 1, "data__cache_latents": False}
    config = make_config(**(exact | settings))
    stage, samples, _ = tiny.make_stage(config)
    tiny.randomise_zeros(stage.models.control)
    batch = tiny.first_batch(samples, TASK, 3)
    with kernels_of(config):
        loss, _ = stage(batch, 0)
        loss.backward()
    wanted, gradients = plain(stage, batch)
    control = stage.models.control
    found = {name: weight.grad for name, weight in (*control.base_state().items(), *control.bank.state(TASK).items())}
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    assert found.keys() == gradients.keys() and all(gradient.any() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
