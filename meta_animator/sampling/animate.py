"""Stage 3: reference photo + driving motion -> frames of that person in that motion.

Shapes: clips `1 f c h w` with all f frames of the output; a window sees a few of them.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from meta_animator.data.conditions import draw_condition
from meta_animator.data.layers import Layers
from meta_animator.data.prompts import Fits, cut_note, fill_prompt, fit_description, loses_identifier
from meta_animator.data.samples import to_images, to_pixels
from meta_animator.diffusion.clip_noise import clip_noise
from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.diffusion.randomness import noise_for
from meta_animator.diffusion.samplers import Callback, ddim, dpm_solver_2m
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.sampling.driving import Driving
from meta_animator.sampling.finite import require_finite
from meta_animator.sampling.guidance import Guide
from meta_animator.sampling.windows import predict_in_windows, temporal_windows, window_weights
from meta_animator.settings import RunConfig, SampleConfig


@dataclasses.dataclass(kw_only=True)
class Animation:
    """frames: an iterator of uint8 (h, w, 3); conditions: what drove them; fps: of the driving video unless set."""

    frames: Iterator[np.ndarray]
    driving: Driving
    reference: Layers
    prompt: str
    fps: float


class Animator:
    """Sampling with one set of networks."""

    def __init__(self, config: RunConfig, models: Assembly, template: str, person: str, description: str = ""):
        """template: the prompt of the fine-tuned checkpoint; person: whom it was tuned on; description: in what words."""
        self.config, self.sample, self.models = config, config.sample, models
        self.template, self.person, self.description = template, person, description
        self.prompt = prompt_for(config.sample, models.identifiers, template, person, description, models.backbone.fits)
        self.shared_noise = shared_noise_of(config.sample, models.shared_noise)
        self.device = next(models.parameters()).device
        loras = dict(self.sample.loras) or None
        self.guide = Guide(
            backbone=models.backbone, control=models.control, tasks=dict(self.sample.tasks), loras=loras,
            controlnet_conditioning_scale=self.sample.controlnet_conditioning_scale,
            guidance_scale=self.sample.guidance_scale,
        )  # fmt: skip

    @torch.no_grad()
    def animate(self, driving: Driving, reference: Layers | None, progress=None, last: bool = False) -> Animation:
        """Sample all frames; `open_inputs` gives both. `progress(step, x_t)` is called after each denoising step.

        last   nothing is sampled after it: what only encodes is freed before the first step
        """
        latents = self._sample(driving, reference, progress=progress, last=last)
        return Animation(
            frames=self.decode(latents), driving=driving, reference=reference, prompt=self.prompt,
            fps=driving.fps,
        )  # fmt: skip

    @torch.no_grad()
    def denoise_from(self, latents: Tensor, share: float, driving: Driving, reference: Layers | None) -> Tensor:
        """Given latents (1 f c h w) with the animation's first noise on them, up to the share `share` in (0, 1] of the
        noise process, denoised as `animate` does it."""
        return self._sample(driving, reference, latents=latents, share=share)

    def _sample(
        self, driving: Driving, reference: Layers | None, progress=None, latents: Tensor | None = None, share: float = 1.0,
        last: bool = False,
    ) -> Tensor:  # fmt: skip
        """Latents (1 f c h w); from `latents` with noise where they are given."""
        sample, backbone = self.sample, self.models.backbone
        context, null = (backbone.embed_text([text]) for text in (self.prompt, sample.negative_prompt))
        control_latents = {task: self._encode_conditions(driving, task) for task in sample.tasks}
        x_T, timesteps = self._first_latents(reference, context, len(driving), control_latents), self._timesteps()
        if latents is not None:
            timesteps = timesteps[len(timesteps) - max(1, round(share * len(timesteps))) :]
            x_T = backbone.process.add_noise(latents, x_T, timesteps[:1])
        if last:
            backbone.release(text=True, encoder=True)
        return self._denoise(x_T, timesteps, context, null, control_latents, progress)

    # parts

    def _encode_conditions(self, driving: Driving, task: str) -> Tensor:
        """Latents (1 f c h w) of every frame's condition, each encoded once, `frame_batch_size` at a time."""
        chunks = []
        for start in range(0, len(driving), self.sample.frame_batch_size):
            places = range(start, min(start + self.sample.frame_batch_size, len(driving)))
            pixels = torch.stack([to_pixels(driving.condition(task, k)) for k in places]).to(self.device)
            chunks.append(self.models.backbone.encode_condition(pixels))
        return torch.cat(chunks)[None]

    def _first_latents(
        self, reference: Layers | None, context: Tensor, frames: int, control_latents: dict[str, Tensor]
    ) -> Tensor:
        """x_T (1 f c h w): `clip_noise` of what all frames share, the inverted photo or noise, and of each frame's own noise,
        all of it times `init_noise_scale`."""
        shape = tuple(next(iter(control_latents.values())).shape[2:])
        if self.sample.init_noise == "inversion" and self.shared_noise > 0:
            shared = self._invert(reference, context)
        else:
            zero = torch.zeros(1, dtype=torch.int64)
            shared = noise_for(self.config.seed, zero, shape, stream="first noise").to(context)
        own = noise_for(self.config.seed, torch.arange(frames), shape, stream="frame noise").to(context)
        return self.sample.init_noise_scale * clip_noise(shared, own[None], self.shared_noise)

    def _invert(self, reference: Layers, context: Tensor) -> Tensor:
        """DDIM inversion (1 c h w) of the reference photo under its own pose, where its keypoints are known, and without
        control otherwise; guidance 1."""
        backbone, sample = self.models.backbone, self.sample
        latents = backbone.encode(to_pixels(reference.frame)[None].to(self.device))
        posed = {task: draw_condition(task, reference) for task in sample.tasks if _can_draw(task, reference)}
        if len(posed) == len(sample.tasks):
            guide = dataclasses.replace(self.guide, guidance_scale=1.0)
            control = {t: backbone.encode_condition(to_pixels(i)[None].to(self.device)) for t, i in posed.items()}

            def denoise(x_t: Tensor, t: Tensor) -> Tensor:
                return guide.predict(x_t, t, context, context, control)
        else:

            def denoise(x_t: Tensor, t: Tensor) -> Tensor:
                return backbone.predict(x_t, t, context)

        return ddim_inversion(
            denoise, latents, backbone.process, self._timesteps(),
            callback=self._watch("inverting the reference photo", sample.num_inference_steps),
        )  # fmt: skip

    def _denoise(
        self, x_T: Tensor, timesteps: Tensor, context: Tensor, null: Tensor, control_latents: dict[str, Tensor], progress
    ) -> Tensor:
        """Latents (1 f c h w). With a motion module in overlapping windows; without one, frames in batches."""
        sample, moving = self.sample, self.models.motion is not None
        overlap = sample.overlap if moving else 0
        windows = temporal_windows(x_T.shape[1], sample.window if moving else sample.frame_batch_size, overlap)
        weights = window_weights(x_T.shape[1], windows, overlap)

        def predict(x_t: Tensor, t: Tensor, frames: slice) -> Tensor:
            part = {task: latents[:, frames] for task, latents in control_latents.items()}
            if moving:
                return self.guide.predict(x_t, t, context, null, part)
            count = x_t.shape[1]
            flat = {task: latents[0] for task, latents in part.items()}
            t, texts = t.expand(count), (context.expand(count, -1, -1), null.expand(count, -1, -1))
            return self.guide.predict(x_t[0], t, *texts, flat)[None]

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return predict_in_windows(lambda x, frames: predict(x, t, frames), x_t, windows, weights)

        process, watch = self.models.backbone.process, self._watch("sampling", len(timesteps), progress)
        if sample.sampler == "dpm_solver_2m":
            return dpm_solver_2m(denoise, x_T, process, timesteps, callback=watch)
        generator = torch.Generator().manual_seed(self.config.seed)
        return ddim(denoise, x_T, process, timesteps, eta=sample.eta, generator=generator, callback=watch)

    def _watch(self, what: str, count: int, then: Callback | None = None) -> Callback:
        """A callback that raises UserError where the latents are not finite after one of `count` steps, else calls `then`."""
        models = self.models
        networks = {"motion module": models.motion, "Meta ControlNet": models.control, "base": models.backbone}

        def watch(step: int, x_t: Tensor) -> None:
            require_finite(x_t, f"{what}, step {step + 1} of {count}", networks)
            if then is not None:
                then(step, x_t)

        return watch

    def decode(self, latents: Tensor) -> Iterator[np.ndarray]:
        """Latents (1 f c h w) to uint8 frames (h w 3), `frame_batch_size` at a time."""
        for chunk in latents[0].split(self.sample.frame_batch_size):
            with torch.no_grad():
                yield from to_images(self.models.backbone.decode(chunk))

    def _timesteps(self) -> Tensor:
        try:
            return self.models.backbone.process.sampling_timesteps(self.sample.num_inference_steps)
        except ValueError as error:
            raise UserError(f"sample.num_inference_steps: {error}") from error


def shared_noise_of(sample: SampleConfig, trained: float | None) -> float:
    """What all frames share of the first latent: as the config says, or as the motion module was `trained`, or all of it."""
    if sample.shared_noise >= 0:
        return sample.shared_noise
    return 1.0 if trained is None else trained


def prompt_for(
    sample: SampleConfig, identifiers: dict[str, str], template: str, person: str, description: str = "",
    fits: Fits = lambda prompt: True,
) -> str:  # fmt: skip
    """The prompt with the person's identifier and, for the person tuned on, the description, which is cut where the text
    encoder would not read all; what is not read is said. Raises UserError for an unknown identity, naming the known ones."""
    name = sample.identity or person
    prompt = sample.prompt or template
    if "{identifier}" in prompt and name not in identifiers:
        names = sorted(identifiers, key=lambda one: one != person)  # the person that it was tuned on first
        known = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
        raise UserError(f"sample.identity: '{name}' is not in the checkpoint; it knows: {known or 'nobody'}")
    identifier, described = identifiers.get(name, ""), description if name == person else ""
    cut = fit_description(prompt, identifier, described, fits)
    if cut != described:
        print(f"note: {cut_note(name, described, cut)}")
    prompt = fill_prompt(prompt, identifier, cut)
    if not fits(prompt):
        lost = f", and '{identifier}', which calls {name}, with it" if loses_identifier(prompt, identifier, fits) else ""
        print(f"note: sample.prompt: is longer than the text encoder reads; its end is cut off{lost}")
    return prompt


def _can_draw(task: str, layers: Layers) -> bool:
    from meta_animator.data.conditions import find_condition

    return all(getattr(layers, need) is not None for need in find_condition(task).needs)
