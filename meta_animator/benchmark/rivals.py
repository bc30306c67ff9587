"""The same work by others: a step of diffusers' ControlNet training script, of a bare loop over its modules, or of the method's
published code; and a step of diffusers' AnimateDiffControlNetPipeline.

The networks have the weights of ours: frozen ones share them, trained ones copy them. What diffusers' ControlNet has and ours has
not, the hint block that reads condition images as pixels, is random.
Shapes: pixels b 3 H W, latents b c h w, texts b n d; the pipeline's latents 1 c f h w.
"""

import copy
import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import (
    AnimateDiffControlNetPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.optimization import get_scheduler
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.control import NoHint
from meta_animator.models.person import without_person
from meta_animator.models.precision import HALF, PRECISIONS, halve
from meta_animator.settings import RunConfig

HINT_CHANNELS = (16, 32, 96, 256)  # of a hint block that makes pictures 8 times smaller; fewer for fewer


class DiffusersTraining:
    """`step()` does what a step of diffusers' examples/controlnet/train_controlnet.py does, on batches of the config's size:
    pictures and texts are embedded in every step, every weight of a ControlNet is trained, AdamW included.

    shape    of a micro-batch's latents, b f c h w
    losses   of the micro-batches so far

    Raises UserError for a base or stage that diffusers has no such script for.
    """

    embeds = True  # pictures and texts in every step

    def __init__(self, config: RunConfig, models: Assembly, accelerator: Accelerator):
        if config.model.backbone != "sd" or config.stage == "motion":
            raise UserError("--against: the others train a ControlNet of Stable Diffusion on images; take a stage 0 or 2 on it")
        base, train, device = models.backbone, config.train, accelerator.device
        dtype = self.dtype = PRECISIONS[train.mixed_precision]
        self.count, self.max_grad_norm = train.gradient_accumulation_steps, train.max_grad_norm or math.inf
        self.accelerator = Accelerator(mixed_precision=train.mixed_precision, gradient_accumulation_steps=self.count)
        self.vae = in_precision(same_weights(base.vae), dtype).to(device) if self.embeds else None
        self.text_encoder = in_precision(copy.deepcopy(base.text_encoder), dtype).to(device) if self.embeds else None
        self.unet = in_precision(same_weights(base.unet), dtype).to(device)
        control = self._control(config, models)
        optimizer = torch.optim.AdamW(
            control.parameters(), lr=train.learning_rate, betas=(train.adam_beta1, train.adam_beta2), eps=train.adam_epsilon,
            weight_decay=train.weight_decay,
        )  # fmt: skip
        schedule = get_scheduler(
            train.lr_scheduler, optimizer, num_warmup_steps=train.lr_warmup_steps, num_training_steps=train.max_steps
        )
        control = control.to(device).requires_grad_(True).train()
        self.control, self.optimizer, self.schedule = self.accelerator.prepare(control, optimizer, schedule)
        self.process = _scheduler(DDPMScheduler, base.scheduler)
        self.losses: list[Tensor] = []
        self._make_batch(config, models, device)

    def _control(self, config: RunConfig, models: Assembly) -> nn.Module:
        control = control_with_hint(models)
        if config.train.gradient_checkpointing:
            control.enable_gradient_checkpointing()
        return control

    def _make_batch(self, config: RunConfig, models: Assembly, device: torch.device) -> None:
        base, count = models.backbone, config.train.batch_size
        sides = (config.data.height // base.vae_scale_factor, config.data.width // base.vae_scale_factor)
        length, width = base.text_shape
        self.latents = torch.randn(count, base.latent_channels, *sides, device=device)
        self.shape = (count, 1, *self.latents.shape[1:])
        self.pixels = torch.rand(count, 3, config.data.height, config.data.width, device=device) * 2 - 1
        self.texts = torch.randn(count, length, width, device=device)
        if self.embeds:
            words = self.text_encoder.config.vocab_size
            self.tokens = torch.randint(words, (count, length), device=device)

    def step(self) -> None:
        for _ in range(self.count):
            with self.accelerator.accumulate(self.control):
                loss = self._loss()
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.control.parameters(), self.max_grad_norm)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad(set_to_none=False)
            self.losses.append(loss.detach())
            loss.item()  # the script shows it at every step

    def _loss(self) -> Tensor:
        latents, texts = self._inputs()
        noise = torch.randn_like(latents)
        t = torch.randint(self.process.config.num_train_timesteps, (len(latents),), device=latents.device)
        x_t = self.process.add_noise(latents.float(), noise.float(), t).to(self.dtype)
        down, mid = self._residuals(x_t, t, texts)
        prediction = self.unet(
            x_t, t, texts, down_block_additional_residuals=[one.to(self.dtype) for one in down],
            mid_block_additional_residual=mid.to(self.dtype), return_dict=False,
        )[0]  # fmt: skip
        self._look(x_t, t, prediction)
        epsilon = self.process.config.prediction_type == "epsilon"
        target = noise if epsilon else self.process.get_velocity(latents, noise, t)
        return F.mse_loss(prediction.float(), target.float())

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """Latents and texts of the batch."""
        with torch.no_grad():
            return self._encode(self.pixels), self.text_encoder(self.tokens, return_dict=False)[0]

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels.to(self.dtype)).latent_dist.sample() * self.vae.config.scaling_factor

    def _residuals(self, x_t: Tensor, t: Tensor, texts: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.control(x_t, t, texts, controlnet_cond=self.pixels.to(self.dtype), return_dict=False)

    def _look(self, x_t: Tensor, t: Tensor, prediction: Tensor) -> None:
        """Nothing is made of a prediction but the loss."""


class BareTraining(DiffusersTraining):
    """A bare loop over diffusers' modules: of cached latents and embedded texts, with the ControlNet that reads latents, as ours
    does, without LoRA."""

    embeds = False

    def _control(self, config: RunConfig, models: Assembly) -> nn.Module:
        control = control_of_latents(models)
        if config.train.gradient_checkpointing:
            control.enable_gradient_checkpointing()
        return control

    def _inputs(self) -> tuple[Tensor, Tensor]:
        return self.latents.to(self.dtype), self.texts.to(self.dtype)

    def _residuals(self, x_t: Tensor, t: Tensor, texts: Tensor) -> tuple[list[Tensor], Tensor]:
        latents = self.latents.to(self.dtype)
        return self.control(self.latents, t, texts, controlnet_cond=latents, return_dict=False)


class PublishedTraining(DiffusersTraining):
    """What a step of stage 0 of the method's published code (github.com/MetaAnimator/MetaAnimator) computes, written from facts
    with diffusers' modules, whatever the config says of checkpointing:

    - pictures, condition images and texts are embedded in every step;
    - each linear layer of the control network adds its LoRA's output to its own;
    - blocks are computed again on the way back, in the control network and in the UNet's second half;
    - gradients go to the weights of that half too, which nobody steps;
    - every prediction is decoded, without a gradient, whether its step has image terms or not;
    - attention is fused on a GPU alone (xformers).

    Left out: its face networks, and AdamW's steps for LoRAs of tasks that were not drawn. Raises UserError for another stage.
    """

    def __init__(self, config: RunConfig, models: Assembly, accelerator: Accelerator):
        if config.stage != "control":
            raise UserError("--against published: is a step of its stage 0; take a config of that")
        super().__init__(config, models, accelerator)
        self.unet.enable_gradient_checkpointing()
        if accelerator.device.type == "cpu":
            for network in (self.unet, self.accelerator.unwrap_model(self.control)):
                network.set_attn_processor(AttnProcessor())
        for part in (self.unet.up_blocks, self.unet.conv_norm_out, self.unet.conv_out):
            part.requires_grad_(True)

    def _control(self, config: RunConfig, models: Assembly) -> nn.Module:
        control = control_of_latents(models)
        linear = [name for name, part in control.named_modules() if isinstance(part, nn.Linear)]
        inject_adapter_in_model(LoraConfig(r=config.model.lora_rank, target_modules=linear), control)
        control.enable_gradient_checkpointing()
        return control

    def _residuals(self, x_t: Tensor, t: Tensor, texts: Tensor) -> tuple[list[Tensor], Tensor]:
        latents = self._encode(self.pixels)
        return self.control(latents, t, texts, controlnet_cond=latents, return_dict=False)

    @torch.no_grad()
    def _look(self, x_t: Tensor, t: Tensor, prediction: Tensor) -> None:
        alpha = self.process.alphas_cumprod.to(x_t)[t].view(-1, 1, 1, 1)
        x_0 = (x_t - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
        self.vae.decode(x_0.to(self.dtype) / self.vae.config.scaling_factor)


RIVALS = {"diffusers": DiffusersTraining, "bare": BareTraining, "published": PublishedTraining}  # in training


class DiffusersSampling:
    """A clip of `frames` frames by diffusers' AnimateDiffControlNetPipeline.

    shape   of its latents, 1 f c h w
    Raises UserError for a base, or a config without a motion module, that it does not take.
    """

    def __init__(self, config: RunConfig, models: Assembly, frames: int):
        if config.model.backbone != "sd" or models.motion is None:
            raise UserError("--against: the pipeline is Stable Diffusion with a motion module; name model.motion_from")
        if len(config.sample.tasks) > 1:
            raise UserError("--against: the pipeline is measured with one condition; name one in sample.tasks")
        base, dtype = models.backbone, PRECISIONS[config.train.mixed_precision]
        device = next(models.parameters()).device
        self.sample, self.frames = config.sample, frames
        self.pipe = AnimateDiffControlNetPipeline(
            vae=same_weights(base.vae, encoder=False), text_encoder=None, tokenizer=None, unet=same_weights(base.unet),
            motion_adapter=models.motion, controlnet=control_with_hint(models).requires_grad_(False),
            scheduler=_scheduler(DDIMScheduler, base.scheduler, clip_sample=False),
        )  # fmt: skip
        for part in (self.pipe.vae, self.pipe.unet.requires_grad_(False), self.pipe.controlnet):
            in_precision(part, dtype)
        self.pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.size = {"height": config.data.height, "width": config.data.width}
        sides = (side // base.vae_scale_factor for side in self.size.values())
        self.latents = torch.randn(1, base.latent_channels, frames, *sides, device=device, dtype=dtype)
        self.shape = (1, frames, base.latent_channels, *self.latents.shape[3:])
        self.texts = torch.randn(1, *base.text_shape, device=device, dtype=dtype)
        self.pictures = list(torch.rand(frames, 3, config.data.height, config.data.width))

    def run(self, steps: int, step_end: Any) -> None:
        """Denoise in so many steps; step_end(number of the step) is called after each."""

        def watch(pipe: Any, number: int, t: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            step_end(number)
            return {}

        self.pipe(
            num_frames=self.frames, **self.size, num_inference_steps=steps, guidance_scale=self.sample.guidance_scale,
            latents=self.latents, prompt_embeds=self.texts, negative_prompt_embeds=self.texts,
            conditioning_frames=self.pictures, output_type="latent", callback_on_step_end=watch,
            controlnet_conditioning_scale=float(self.sample.controlnet_conditioning_scale),
        )  # fmt: skip

    @torch.no_grad()
    def decode(self) -> None:
        pixels = self.pipe.decode_latents(self.latents, self.sample.frame_batch_size)
        self.pipe.video_processor.postprocess_video(video=pixels, output_type="np")


def in_precision(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The frozen network, in a half precision where `dtype` is one."""
    if dtype in HALF:
        halve(network, dtype)
    return network


def same_weights(network: UNet2DConditionModel | AutoencoderKL, encoder: bool = True) -> Any:
    """A network of diffusers' own class around the same tensors: it shares no module, hook or flag with ours.
    encoder: False where a VAE's has been freed."""
    with torch.device("meta"):
        twin = type(network).from_config(network.config)
    if not encoder:
        twin.encoder = twin.quant_conv = None
    state = {name: weight for name, weight in without_person(network.state_dict()).items() if encoder or not _encodes(name)}
    twin.load_state_dict(state, strict=True, assign=True)
    return twin.eval().requires_grad_(False)


def _encodes(name: str) -> bool:
    return name.startswith(("encoder.", "quant_conv."))


def control_with_hint(models: Assembly) -> ControlNetModel:
    """Diffusers' ControlNet for this base, with the shared weights of ours."""
    base = models.backbone
    channels = HINT_CHANNELS[: base.vae_scale_factor.bit_length()]  # one more than there are halvings
    control = ControlNetModel.from_unet(same_weights(base.unet), conditioning_embedding_out_channels=channels)
    found = control.load_state_dict(models.control.base_state(), strict=False)
    lacking = [name for name in found.missing_keys if not name.startswith("controlnet_cond_embedding.")]
    if lacking or found.unexpected_keys:
        raise AssertionError(f"weights that do not fit: {lacking[:1] + found.unexpected_keys[:1]}")
    return control


def control_of_latents(models: Assembly) -> nn.Module:
    """The network of our Meta ControlNet without LoRAs, with weights of its own."""
    with torch.device("meta"):
        control = ControlNetModel.from_config(models.control.net.config)
    control.controlnet_cond_embedding = NoHint()
    state = {name: weight.detach().float().clone() for name, weight in models.control.base_state().items()}
    control.load_state_dict(state, strict=True, assign=True)
    return control


def _scheduler(kind: Any, settings: dict[str, Any], **options: Any) -> Any:
    known = inspect.signature(kind.__init__).parameters
    return kind(**{name: value for name, value in settings.items() if name in known}, **options)
