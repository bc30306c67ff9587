"""Meta-Animator as a diffusers pipeline."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from einops import rearrange
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from meta_animator.checkpoints.card_facts import base_of
from meta_animator.diffusion.clip_noise import clip_noise
from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones.sd import SCHEDULER, make_process, predict_clip
from meta_animator.models.control import ControlOutput, MetaControlNet
from meta_animator.models.motion import join_motion, split_motion_unet
from meta_animator.sampling.animate import Animator
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.finite import require_finite
from meta_animator.sampling.inputs import (
    OUTPUT_TYPES,
    check_callback_inputs,
    check_latents,
    condition_images,
    control_scales,
    one_generator,
    one_text,
)
from meta_animator.sampling.pipeline_card import leave_off_places, write_pipeline_card


class MetaAnimatorPipeline(DiffusionPipeline):
    """Video of a person from a sequence of condition images, by a Meta ControlNet.

    `from_pretrained`, `save_pretrained` (with `push_to_hub=True` too), `to`, `enable_model_cpu_offload` and
    `set_progress_bar_config` are diffusers'; `from_animator` takes what stage 3 loads, `from_assembly` bare networks.

    unet             UNet2DConditionModel, or UNetMotionModel with the motion module inside, which is taken apart
    motion_adapter   the motion module; without one, every frame is made by itself
    condition_range  range of condition images for the VAE: "signed", [-1, 1], or "unit", [0, 1] (CtrLoRA)
    loras, prompt    what a call without them uses; saved with the pipeline
    shared_noise     share of the first noise's variance that all frames have in common, see `clip_noise`

    Raises ValueError for parts that do not fit each other or lack weights.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"  # control, which is called in every step, stays beside the UNet
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["motion_adapter"]  # it is never called by itself; the UNet calls its layers
    _optional_components: ClassVar[list[str]] = ["motion_adapter"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prompt_embeds", "negative_prompt_embeds"]

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
        loras: Mapping[str, float] | None = None,
        prompt: str = "",
        shared_noise: float = 1.0,
    ):
        super().__init__()
        if condition_range not in ("signed", "unit"):
            raise ValueError(f"condition_range: expected signed or unit, got {condition_range!r}")
        _check_loras(loras, control)
        if isinstance(unet, UNetMotionModel):
            if motion_adapter is not None:
                raise ValueError("motion_adapter: the unet holds a motion module already; expected none, or an image unet")
            unet, motion_adapter = split_motion_unet(unet)
        parts = {"vae": vae, "text_encoder": text_encoder, "unet": unet, "control": control, "motion_adapter": motion_adapter}
        for name, part in parts.items():
            if part is not None:
                _check_whole(part, name)
        self._temporal = None if motion_adapter is None else join_motion(unet, motion_adapter)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, control=control, scheduler=scheduler,
            motion_adapter=motion_adapter,
        )  # fmt: skip
        self.register_to_config(
            condition_range=condition_range, loras=dict(loras or {}), prompt=prompt, shared_noise=shared_noise
        )  # fmt: skip
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)
        self._guidance_scale, self._num_timesteps, self._interrupt = 1.0, 0, False
        self._base, self._base_loras = base_of(""), {}

    @classmethod
    def from_animator(cls, animator: Animator, **options: Any) -> "MetaAnimatorPipeline":
        """What `load_animator` loads for stage 3: its networks, which are shared, `sample.loras`, its prompt and its share of
        common noise."""
        own = {"loras": animator.sample.loras, "prompt": animator.prompt, "shared_noise": animator.shared_noise}
        return cls.from_assembly(animator.models, **own | options)

    @classmethod
    def from_assembly(cls, models: Assembly, scheduler: SchedulerMixin | None = None, **options: Any) -> "MetaAnimatorPipeline":
        """The networks of a run (`stages.sample.load_animator` has the run's checkpoints loaded), which it shares.

        scheduler   instead of DDIM as in stage 3. Raises ValueError where it has to be named: diffusers' DDIMScheduler takes
                    every step to be T // n long, which no "linspace" step is ("trailing" ones are where n divides T); and for
                    a Wan, which diffusers' own WanVACEPipeline runs
        """
        base = models.backbone
        if models.config.backbone == "wan":
            raise ValueError("model.backbone=wan: expected a Stable Diffusion; of a Wan, extract.merge writes a WanVACEPipeline")
        if scheduler is None and base.scheduler.get("timestep_spacing") == "linspace":
            raise ValueError(
                f"scheduler: {models.config.base} has timestep_spacing 'linspace', with which diffusers' DDIMScheduler answers "
                "otherwise than stage 3; expected a scheduler to be passed"
            )
        if scheduler is None:
            scheduler = DDIMScheduler(clip_sample=False, **base.scheduler)
        pipe = cls(
            vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer,
            unet=base.unet, motion_adapter=models.motion, control=models.control, scheduler=scheduler,
            condition_range=models.config.condition_range, **options,
        )  # fmt: skip
        pipe._base, pipe._base_loras = base_of(models.config.base), dict(getattr(base, "base_loras", {}))
        return pipe

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As diffusers does it with its options, and a model card beside it; with `push_to_hub` the card is diffusers'."""
        leave_off_places([self, *self.components.values()])
        super().save_pretrained(save_directory, *arguments, **options)
        if not options.get("push_to_hub"):
            write_pipeline_card(Path(save_directory), self, self._base, self._base_loras)

    @classmethod
    def download(cls, pretrained_model_name: str, **options: Any) -> str:
        """The folder of a pipeline on the hub, as `from_pretrained` asks for it with its options; diffusers' own refuses
        a component of a package it does not know, which MetaControlNet is."""
        known = ("revision", "cache_dir", "token", "force_download", "local_files_only")
        given = {name: options[name] for name in known if options.get(name) is not None}
        return snapshot_download(pretrained_model_name, allow_patterns=["*.json", "*.txt", "*.safetensors"], **given)

    # what callbacks read, as on diffusers' own pipelines

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the remaining steps are skipped; a callback sets `_interrupt`."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        conditions: Mapping[str, Sequence[Any] | Tensor] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        controlnet_conditioning_scale: float | Mapping[str, float] = 1.0,
        loras: Mapping[str, float] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        shared_latents: Tensor | None = None,
        window: int = 16,
        overlap: int = 4,
        decode_chunk_size: int = 8,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["MetaAnimatorPipeline", int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AnimateDiffPipelineOutput | tuple:
        """One video. Texts and generators may come as lists of one.

        prompt          the pipeline's own (`config.prompt`) where there is none
        conditions      {task: the f condition images}: PIL images, a tensor (f 3 h w) or an array (f h w 3), in uint8 or in
                        [0, 1]; all of one size, divisible by the VAE's factor
        guidance_scale  takes effect above 1, as in all of diffusers
        controlnet_conditioning_scale   for all tasks, or {task: scale}
        loras           {LoRA: weight} active for every task instead of the task's own; the pipeline's own (`config.loras`)
                        where it is None, and {} for the tasks' own
        latents         the first noise, (1 f c h w) or (1 1 c h w) for the same in every frame; drawn with the pipeline's
                        `config.shared_noise` by default
        shared_latents  (1 1 c h w): what all frames share of the first noise instead of a draw, such as what `invert` makes of a
                        photo, which stage 3 starts from; each frame's own noise is drawn, as much as `config.shared_noise` leaves
        window, overlap frames that the motion module sees at once, and how many neighbours share; without one, frames that are
                        made at once
        output_type     "pil", "np" (1 f h w 3) in [0, 1], "pt" (1 f 3 h w) in [0, 1], or "latent" (1 f c h w)
        callback_on_step_end   called with (pipeline, step, timestep, {"latents": ...}); what it returns replaces them. It may
                        ask for prompt_embeds and negative_prompt_embeds (1 n d) too; diffusers' callbacks say so themselves

        Raises ValueError for what does not fit the network or each other, and where the latents are not finite after a step.
        """
        images = condition_images(conditions, self.control.bank.tasks, self.vae_scale_factor)
        scales = control_scales(controlnet_conditioning_scale, list(images))
        loras = self.config.loras if loras is None else loras
        _check_loras(loras, self.control)
        prompt = (self.config.prompt or None) if prompt is None else prompt
        negative_prompt = "" if negative_prompt is None else negative_prompt
        texts = one_text(prompt, "prompt"), one_text(negative_prompt, "negative_prompt")
        generator, shape = one_generator(generator), self._latent_shape(images)
        check_latents(latents, shape)
        if shared_latents is not None and (latents is not None or shared_latents.shape != (1, 1, *shape[2:])):
            given = f"{tuple(shared_latents.shape)}{'' if latents is None else ' and latents'}"
            raise ValueError(f"shared_latents: expected {(1, 1, *shape[2:])} and no latents, got {given}")
        window, overlap = self._windows(shape[1], window, overlap)
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type: expected one of {', '.join(OUTPUT_TYPES)}; got {output_type!r}")

        device = self._execution_device
        self._guidance_scale, self._interrupt = guidance_scale, False
        control_latents = {task: self._encode(shown, device) for task, shown in images.items()}
        context, null = (self._embed(text, device) for text in texts)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        if latents is None:
            latents = self._first_noise(shape, generator, device, context.dtype, shared_latents)
        latents = latents.to(device, context.dtype).expand(shape) * self.scheduler.init_noise_sigma
        state = {"latents": latents, "prompt_embeds": context, "negative_prompt_embeds": null}

        def step_end(step: int, t: Tensor) -> None:
            if callback_on_step_end is not None:
                shown = {name: state[name] for name in callback_on_step_end_tensor_inputs}
                state.update(callback_on_step_end(self, step, t, shown) or {})

        denoiser = Denoiser(
            backbone=self, control=self.control, tasks=scales, loras=loras, control_latents=control_latents, context=context,
            null_context=null, window=window, overlap=overlap,
        )  # fmt: skip
        self._denoise(state, denoiser, generator, step_end)
        latents = state["latents"]
        frames = latents if output_type == "latent" else self._decode(latents, decode_chunk_size, output_type)
        self.maybe_free_model_hooks()
        return AnimateDiffPipelineOutput(frames=frames) if return_dict else (frames,)

    @torch.no_grad()
    def invert(
        self,
        image: Any,
        conditions: Mapping[str, Sequence[Any] | Tensor] | None = None,
        prompt: str | Sequence[str] | None = None,
        num_inference_steps: int = 50,
        controlnet_conditioning_scale: float | Mapping[str, float] = 1.0,
        loras: Mapping[str, float] | None = None,
    ) -> Tensor:
        """The noise (1 1 c h w) from which DDIM makes a photo (DDIM inversion, guidance 1), for `shared_latents`.

        image       one picture: PIL, a tensor (3 h w) or an array (h w 3)
        conditions  {task: [its condition image]}: the photo's own pose; without any, there is no control
        Others are as in a call, and should be the same. Raises ValueError for what does not fit.
        """
        picture = condition_images({"image": [image]}, ["image"], self.vae_scale_factor)["image"]
        shown = condition_images(conditions, self.control.bank.tasks, self.vae_scale_factor) if conditions else {}
        if any(one.shape != picture.shape for one in shown.values()):
            raise ValueError(f"conditions: expected one image of the photo's size, {picture.shape[-1]} x {picture.shape[-2]}")
        loras = self.config.loras if loras is None else loras
        _check_loras(loras, self.control)
        device = self._execution_device
        context = self._embed(one_text((self.config.prompt or None) if prompt is None else prompt, "prompt"), device)
        scales = control_scales(controlnet_conditioning_scale, list(shown)) if shown else {}
        denoiser = Denoiser(
            backbone=self, control=self.control, tasks=scales, loras=loras,
            control_latents={task: self._encode(one, device) for task, one in shown.items()}, context=context,
        )  # fmt: skip
        process = make_process({name: self.scheduler.config.get(name, value) for name, value in SCHEDULER.items()})
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        x_0 = self._encode(picture, device).to(context.dtype)
        timesteps = self.scheduler.timesteps.round().long()  # some schedulers have them between whole ones
        x_T = ddim_inversion(denoiser, x_0, process, timesteps)
        self.maybe_free_model_hooks()
        return x_T

    def _denoise(
        self, state: dict[str, Tensor], denoiser: Denoiser, generator: torch.Generator | None,
        step_end: Callable[[int, Tensor], None],
    ) -> None:  # fmt: skip
        """Take `state` ("latents", "prompt_embeds", "negative_prompt_embeds") through the scheduler's steps."""
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        self._num_timesteps = len(self.scheduler.timesteps)
        with self.progress_bar(total=self._num_timesteps) as bar:
            for step, t in enumerate(self.scheduler.timesteps):
                if self.interrupt:
                    continue
                denoiser = dataclasses.replace(
                    denoiser, context=state["prompt_embeds"], null_context=state["negative_prompt_embeds"],
                    guidance_scale=max(1.0, self.guidance_scale),
                )  # fmt: skip
                prediction = denoiser(self.scheduler.scale_model_input(state["latents"], t), t[None])
                state["latents"] = self.scheduler.step(prediction, t, state["latents"], **extra).prev_sample
                step_end(step, t)
                networks = {"UNet": self.unet, "Meta ControlNet": self.control}
                require_finite(state["latents"], f"step {step + 1} of {self._num_timesteps}", networks)
                bar.update()

    @property
    def has_time(self) -> bool:
        """Whether `predict` sees a clip's frames together: with a motion module."""
        return self._temporal is not None

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: ControlOutput | None = None) -> Tensor:
        """The UNet's prediction for clips (b f c h w)."""
        return predict_clip(self.unet, self._temporal, x_t, t, context, control_output)

    def _latent_shape(self, images: Mapping[str, Tensor]) -> tuple[int, ...]:
        """1 f c h w"""
        frames, _, height, width = next(iter(images.values())).shape
        factor = self.vae_scale_factor
        return (1, frames, self.vae.config.latent_channels, height // factor, width // factor)

    def _first_noise(
        self, shape: tuple[int, ...], generator: torch.Generator | None, device: Any, dtype: torch.dtype,
        shared: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """1 f c h w, or 1 1 c h w where all frames share all of it"""
        if shared is None:
            shared = randn_tensor((1, 1, *shape[2:]), generator=generator, device=device, dtype=dtype)
        shared = shared.to(device, dtype)
        if self.config.shared_noise == 1:
            return shared
        own = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return clip_noise(shared[:, 0], own, self.config.shared_noise)

    def _windows(self, frames: int, window: int, overlap: int) -> tuple[int, int]:
        """Window and overlap; without a motion module `window` frames at once."""
        if self._temporal is None:
            return max(1, min(frames, window)), 0
        if not 0 <= overlap < window:
            raise ValueError(f"overlap: expected at least 0 and less than window, {window}; got {overlap}")
        places = self.motion_adapter.config.motion_max_seq_length
        if min(window, frames) > places:
            raise ValueError(f"window: expected at most {places} frames, what the motion module sees at once; got {window}")
        return window, overlap

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
        parts = latents[0].to(self.vae.decoder.conv_in.weight.dtype).split(chunk)  # the encoder may be kept more exact
        pixels = torch.cat([self.vae.decode(p / self.vae.config.scaling_factor).sample for p in parts])
        return self.video_processor.postprocess_video(rearrange(pixels, "f c h w -> 1 c f h w").float(), output_type=output_type)


def _check_loras(loras: Any, control: MetaControlNet) -> None:
    if not isinstance(loras, Mapping | None):
        raise ValueError(f"loras: expected {{LoRA: weight}}, got {loras!r}")
    if unknown := [name for name in loras or {} if name not in control.bank.tasks]:
        raise ValueError(f"loras: expected some of {', '.join(control.bank.tasks)}; got {', '.join(map(str, unknown))}")


def _check_whole(network: nn.Module, name: str) -> None:
    """diffusers leaves weights that a file lacks on the meta device, without values."""
    missing = [n for n, w in itertools.chain(network.named_parameters(), network.named_buffers()) if w.is_meta]
    if missing:
        raise ValueError(f"{name}: {len(missing)} weights are missing, the first is {missing[0]}")
