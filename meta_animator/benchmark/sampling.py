"""A step of stage 3, guided as its config says, and the decoding of what it makes; on inputs that say nothing."""

import torch
from torch import Tensor

from meta_animator.data.samples import to_images
from meta_animator.diffusion.samplers import sampler_for
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.sampling.animate import latent_window
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import RunConfig
from meta_animator.stages.check_settings import check_sampling, check_size, check_steps
from meta_animator.stages.memory import give_weights, sampling_without_weights
from meta_animator.stages.sample import load_animator


class OwnSampling:
    """`step()` takes a clip one step of the sampler further, in windows where it is longer than one; `decode()` makes uint8
    frames of its latents, `sample.frame_batch_size` at a time.

    frames   of the clip: `sample.max_frames`, or a window
    shape    of its latents, 1 f' c h w
    """

    def __init__(self, config: RunConfig, models: Assembly):
        sample, backbone = config.sample, models.backbone
        self.config, self.models, self.frames = config, models, backbone.next_clip(sample.max_frames or sample.window)
        device = next(models.parameters()).device
        count = backbone.latent_frames(self.frames)
        sides = (config.data.height // backbone.vae_scale_factor, config.data.width // backbone.vae_scale_factor)
        self.shape = (1, count, backbone.latent_channels, *sides)
        window, overlap = latent_window(sample.window, sample.overlap, backbone) if backbone.has_time else (0, 0)
        context, null_context = torch.randn(2, 1, *backbone.text_shape, device=device)
        shown = torch.randn(self.shape, device=device)
        photos = torch.randn(1, sample.references, *self.shape[2:], device=device) if sample.references else None
        self.denoiser = Denoiser(
            backbone=backbone, control=models.control, tasks=dict(sample.tasks),
            control_latents=dict.fromkeys(sample.tasks, backbone.control_input(shown, photos)),
            context=context, null_context=null_context, references=sample.references,
            controlnet_conditioning_scale=sample.controlnet_conditioning_scale, guidance_scale=sample.guidance_scale,
            window=window or sample.frame_batch_size, overlap=overlap,
        )  # fmt: skip
        self.x_t = torch.randn(1, sample.references + count, *self.shape[2:], device=device)
        self.timesteps = backbone.process.sampling_timesteps(sample.num_inference_steps, sample.timestep_spacing)[:1]

    def step(self) -> Tensor:
        sampler, process = sampler_for(self.config.sample.sampler, self.config.sample.eta), self.models.backbone.process
        generator = torch.Generator().manual_seed(0)
        return sampler(self.denoiser, self.x_t, process, self.timesteps, eta=self.config.sample.eta, generator=generator)

    def decode(self) -> int:
        """How many frames it made."""
        latents = self.x_t[:, self.config.sample.references :]
        parts = self.models.backbone.show_in_turn(latents, self.config.sample.frame_batch_size)
        return sum(len(to_images(part[0])) for part in parts)


def load(config: RunConfig) -> Assembly:
    """The networks of stage 3 with what its checkpoints hold. Raises UserError for what the user can mend."""
    check_sampling(config.sample, config.model)
    check_steps(config.model, config.sample)
    return load_animator(config).models


def load_synthetic(config: RunConfig, device: torch.device) -> Assembly:
    """The networks of stage 3 with random weights; needs the base's config files only."""
    check_steps(config.model, config.sample)
    if config.sample.loras:
        raise UserError("--synthetic: sample.loras are files with weights; leave it empty")
    models = sampling_without_weights(config)
    check_size(config.data, models.backbone.size_multiple)
    give_weights(list(models.modules()), device)
    models.backbone.release(text=True, encoder=True)
    return models.to(device).eval().requires_grad_(False)
