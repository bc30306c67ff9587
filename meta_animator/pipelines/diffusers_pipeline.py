"""Meta-Animator as a diffusers pipeline."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from huggingface_hub import snapshot_download
from torch import Tensor

from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones.sd import predict_image, predict_video
from meta_animator.models.control import ControlOutput, MetaControlNet
from meta_animator.models.motion import join_motion, with_frame_norms
from meta_animator.pipelines.guidance import Guide
from meta_animator.pipelines.windows import predict_in_windows, temporal_windows, window_weights


class MetaAnimatorPipeline(DiffusionPipeline):
    """Video of a person from a sequence of condition images, by a Meta ControlNet.

    `from_pretrained`, `save_pretrained` (with `push_to_hub=True` too), `to`, `enable_model_cpu_offload` and
    `set_progress_bar_config` are diffusers'; `from_assembly` takes the networks of a run.

    unet             UNet2DConditionModel, or UNetMotionModel with the motion module inside
    motion_adapter   joined into a UNet2DConditionModel; without one, every frame is made by itself
    condition_range  range of condition images for the VAE: "signed", [-1, 1], or "unit", [0, 1] (CtrLoRA)
    """

    model_cpu_offload_seq = "text_encoder->control->unet->vae"
    _optional_components: ClassVar[list[str]] = ["motion_adapter"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: Any,
        tokenizer: Any,
        unet: UNet2DConditionModel | UNetMotionModel,
        control: MetaControlNet,
        scheduler: SchedulerMixin,
        motion_adapter: MotionAdapter | None = None,
        condition_range: str = "signed",
    ):
        super().__init__()
        if motion_adapter is not None and isinstance(unet, UNet2DConditionModel):
            unet = join_motion(unet, motion_adapter)
        elif isinstance(unet, UNetMotionModel):
            unet = with_frame_norms(unet)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, control=control, scheduler=scheduler,
            motion_adapter=None,
        )  # fmt: skip
        self.register_to_config(condition_range=condition_range)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_assembly(cls, models: Assembly, **options: Any) -> "MetaAnimatorPipeline":
        """The networks of a run (`build_assembly` with the run's checkpoints loaded), which it shares."""
        base = models.backbone
        scheduler = DDIMScheduler(clip_sample=False, **base.scheduler)
        return cls(
            vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer,
            unet=base.unet if models.motion is None else base.motion_unet, control=models.control, scheduler=scheduler,
            condition_range=models.config.condition_range, **options,
        )  # fmt: skip

    @classmethod
    def download(cls, pretrained_model_name: str, **options: Any) -> str:
        """The folder of a pipeline on the hub, as `from_pretrained` asks for it with its options; diffusers' own refuses
        a component of a package it does not know, which MetaControlNet is."""
        known = ("revision", "cache_dir", "token", "force_download", "local_files_only")
        given = {name: options[name] for name in known if options.get(name) is not None}
        return snapshot_download(pretrained_model_name, allow_patterns=["*.json", "*.txt", "*.safetensors"], **given)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        conditions: Mapping[str, Sequence[Any] | Tensor],
        negative_prompt: str = "",
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        controlnet_conditioning_scale: float | Mapping[str, float] = 1.0,
        loras: Mapping[str, float] | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        window: int = 16,
        overlap: int = 4,
        decode_chunk_size: int = 8,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["MetaAnimatorPipeline", int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AnimateDiffPipelineOutput | tuple:
        """One video.

        conditions      {task: the f condition images}: PIL images, or a tensor (f 3 h w) in [0, 1]; all of one size,
                        divisible by the VAE's factor
        controlnet_conditioning_scale   for all tasks, or {task: scale}
        loras           {LoRA: weight} active for every task instead of the task's own
        latents         the first noise, (1 f c h w) or (1 1 c h w) for the same in every frame; the latter is drawn by default
        window, overlap frames that the motion module sees at once, and how many neighbours share
        output_type     "pil", "np" (1 f h w 3) in [0, 1], "pt" (1 f 3 h w) in [0, 1], or "latent" (1 f c h w)
        callback_on_step_end   called with (pipeline, step, timestep, {"latents": ...}); what it returns replaces them

        Raises ValueError for conditions that do not fit each other or the network's tasks.
        """
        device = self._execution_device
        control_latents = {task: self._encode(images, device) for task, images in self._checked(conditions).items()}
        shape = tuple(next(iter(control_latents.values())).shape)
        context, null = self._embed(prompt, device), self._embed(negative_prompt, device)
        scales = controlnet_conditioning_scale
        guide = Guide(
            backbone=self, control=self.control, loras=loras, guidance_scale=guidance_scale,
            tasks={t: float(scales[t] if isinstance(scales, Mapping) else scales) for t in control_latents},
        )  # fmt: skip
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        if latents is None:
            latents = randn_tensor((1, 1, *shape[2:]), generator=generator, device=device, dtype=context.dtype)
        latents = latents.to(device, context.dtype).expand(shape) * self.scheduler.init_noise_sigma
        moving = isinstance(self.unet, UNetMotionModel)
        windows = temporal_windows(shape[1], window, overlap) if moving else [(0, shape[1])]
        weights = window_weights(shape[1], windows, overlap if moving else 0)
        extra = {"generator": generator} if isinstance(self.scheduler, DDIMScheduler) else {}

        def predict(x: Tensor, frames: slice, t: Tensor) -> Tensor:
            part = {task: encoded[:, frames] for task, encoded in control_latents.items()}
            if moving:
                return guide.predict(x, t[None], context, null, part)
            count = x.shape[1]
            texts = (text.expand(count, -1, -1) for text in (context, null))
            return guide.predict(x[0], t.expand(count), *texts, {task: encoded[0] for task, encoded in part.items()})[None]

        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for step, t in enumerate(self.scheduler.timesteps):
                x = self.scheduler.scale_model_input(latents, t)
                prediction = predict_in_windows(lambda part, frames, t=t: predict(part, frames, t), x, windows, weights)
                latents = self.scheduler.step(prediction, t, latents, **extra).prev_sample
                if callback_on_step_end is not None:
                    shown = {name: {"latents": latents}[name] for name in callback_on_step_end_tensor_inputs}
                    latents = callback_on_step_end(self, step, t, shown).pop("latents", latents)
                bar.update()
        frames = latents if output_type == "latent" else self._decode(latents, decode_chunk_size, output_type)
        self.maybe_free_model_hooks()
        return AnimateDiffPipelineOutput(frames=frames) if return_dict else (frames,)

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None = None) -> Tensor:
        """The UNet's prediction for images (b c h w) or videos (b f c h w)."""
        return (predict_image if x_t.ndim == 4 else predict_video)(self.unet, x_t, t, context, control_output)

    def _checked(self, conditions: Mapping[str, Any]) -> dict[str, Tensor]:
        """{task: (f 3 h w) in [-1, 1]}"""
        known = self.control.bank.tasks
        if not conditions or (unknown := [task for task in conditions if task not in known]):
            names = ", ".join(known)
            given = ", ".join(unknown) if conditions else "none"
            raise ValueError(f"conditions: expected images for one or more of {names}; got {given}")
        images = {task: self.video_processor.preprocess(_images(shown)) for task, shown in conditions.items()}
        if len({tuple(one.shape) for one in images.values()}) > 1:
            sizes = ", ".join(f"{task} {tuple(one.shape)}" for task, one in images.items())
            raise ValueError(f"conditions: expected as many images, of one size, for every task; got {sizes}")
        return images

    def _encode(self, images: Tensor, device: torch.device) -> Tensor:
        """Scaled latents (1 f c h w), the posterior's mode."""
        if self.config.condition_range == "unit":
            images = images / 2 + 0.5
        parts = [self.vae.encode(part.to(device, self.vae.dtype)).latent_dist.mode() for part in images.split(8)]
        return torch.cat(parts)[None] * self.vae.config.scaling_factor

    def _embed(self, prompt: str, device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            [prompt], padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(device)).last_hidden_state

    def _decode(self, latents: Tensor, chunk: int, output_type: str) -> Any:
        parts = latents[0].split(chunk)
        pixels = torch.cat([self.vae.decode(p.to(self.vae.dtype) / self.vae.config.scaling_factor).sample for p in parts])
        return self.video_processor.postprocess_video(pixels.transpose(0, 1)[None].float(), output_type=output_type)


def _images(shown: Sequence[Any] | Tensor) -> Any:
    return shown if isinstance(shown, Tensor) else list(shown)
