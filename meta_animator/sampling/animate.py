"""Stage 3: reference photo + driving motion -> frames of that person in that motion.

Shapes: latents `1 f' c h w` of all frames of the output, behind r latents of photos where there are any; a window sees a few.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

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
from meta_animator.diffusion.samplers import Callback, sampler_for
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import Backbone
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.driving import Driving
from meta_animator.sampling.finite import require_finite
from meta_animator.sampling.sharing import Shares
from meta_animator.sampling.windows import temporal_windows
from meta_animator.settings import SampleConfig


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

    def __init__(
        self, sample: SampleConfig, seed: int, models: Assembly, template: str, person: str, description: str = ""
    ):  # fmt: skip
        """template: the prompt of the fine-tuned checkpoint; person: whom it was tuned on; description: in what words."""
        self.sample, self.seed, self.models = sample, seed, models
        self.template, self.person, self.description = template, person, description
        self.prompt = prompt_for(sample, models.identifiers, template, person, description, models.backbone.fits)
        self.shared_noise = shared_noise_of(sample, models.shared_noise)
        self.device = next(models.parameters()).device

    @torch.no_grad()
    def animate(
        self, driving: Driving, reference: Layers | None, references: Sequence[Layers] = (), progress=None, last: bool = False
    ) -> Animation:  # fmt: skip
        """Sample all frames; `open_inputs` gives the first two, `open_references` the third. `progress(step, x_t)` is called
        after each denoising step.

        last   nothing is sampled after it: what only encodes is freed before the first step
        """
        latents = self._sample(driving, reference, references, progress=progress, last=last)
        return Animation(
            frames=itertools.islice(self.decode(latents), len(driving)), driving=driving, reference=reference, prompt=self.prompt,
            fps=driving.fps,
        )  # fmt: skip

    @torch.no_grad()
    def denoise_from(
        self, latents: Tensor, share: float, driving: Driving, reference: Layers | None, references: Sequence[Layers] = ()
    ) -> Tensor:  # fmt: skip
        """Given latents (1 f c h w) with the animation's first noise on them, up to the share `share` in (0, 1] of the
        noise process, denoised as `animate` does it."""
        return self._sample(driving, reference, references, latents=latents, share=share)

    def _sample(
        self, driving: Driving, reference: Layers | None, references: Sequence[Layers] = (), progress=None,
        latents: Tensor | None = None, share: float = 1.0, last: bool = False,
    ) -> Tensor:  # fmt: skip
        """Latents (1 f' c h w): conditions -> denoiser -> first latents -> sampler; from `latents` with noise where given."""
        sample, backbone = self.sample, self.models.backbone
        shown = {task: self._encode_conditions(driving, task) for task in sample.tasks}
        shape = tuple(next(iter(shown.values())).shape[1:])
        photos = self._encode_photos(references)
        denoiser = self._denoiser(shown, photos)
        x_T = self._first_latents(reference, denoiser, (shape[0] + len(references), *shape[1:]))
        timesteps = self._timesteps()
        if latents is not None:
            timesteps = timesteps[len(timesteps) - max(1, round(share * len(timesteps))) :]
            known = latents if photos is None else torch.cat([photos.flip(1), latents], dim=1)  # as `control_input` has them
            x_T = backbone.process.add_noise(known, x_T, timesteps[:1])
        if denoiser.shares is not None:
            print(f"note: {denoiser.shares.ranks} processes share {len(denoiser.windows(shape[0]))} windows")
            x_T = denoiser.shares.of_first(x_T)
        if last:
            backbone.release(text=True, encoder=True)
        watch = self._watch("sampling", len(timesteps), progress)
        generator = torch.Generator().manual_seed(self.seed)
        sampler = sampler_for(sample.sampler, sample.eta)
        sampled = sampler(denoiser, x_T, backbone.process, timesteps, eta=sample.eta, generator=generator, callback=watch)
        return sampled[:, len(references) :]

    def embed_texts(self) -> tuple[Tensor, Tensor]:
        """Of the prompt and the negative prompt, (1 n d)."""
        context, null_context = (self.models.backbone.embed_text([text]) for text in (self.prompt, self.sample.negative_prompt))
        return context, null_context

    # parts

    def _denoiser(self, shown: dict[str, Tensor], photos: Tensor | None) -> Denoiser:
        """Where the base sees frames together, in overlapping windows; where not, frames in batches."""
        sample, backbone = self.sample, self.models.backbone
        window, overlap = latent_window(sample.window, sample.overlap, backbone) if backbone.has_time else (0, 0)
        context, null_context = self.embed_texts()
        return Denoiser(
            backbone=backbone, control=self.models.control, tasks=dict(sample.tasks), loras=dict(sample.loras) or None,
            control_latents={task: backbone.control_input(latents, photos) for task, latents in shown.items()},
            context=context, null_context=null_context, references=0 if photos is None else photos.shape[1],
            controlnet_conditioning_scale=sample.controlnet_conditioning_scale, guidance_scale=sample.guidance_scale,
            window=window or sample.frame_batch_size, overlap=overlap, shares=Shares.of_this_run(),
        )  # fmt: skip

    def _encode_conditions(self, driving: Driving, task: str) -> Tensor:
        """Latents (1 f' c h w) of every frame's condition, each encoded once, `frame_batch_size` at a time or, where the base
        wants it so, all of the clip's together, the last one held until there are as many as it takes."""
        backbone, count = self.models.backbone, len(driving)
        at_once = self.sample.frame_batch_size if backbone.frames_apart else backbone.next_clip(count)
        chunks = []
        for start in range(0, count, at_once):
            places = range(start, min(start + at_once, count) if backbone.frames_apart else start + at_once)
            pixels = torch.empty(len(places), 3, *driving.size)  # a long film is not held twice
            for place, k in enumerate(places):
                pixels[place] = to_pixels(driving.condition(task, min(k, count - 1)))
            chunks.append(backbone.encode_condition(pixels[None]).to(self.device))
        return torch.cat(chunks, dim=1)

    def _encode_photos(self, references: Sequence[Layers]) -> Tensor | None:
        """Latents (1 r c h w) of photos that the base is shown, each an image by itself."""
        photos = [self.models.backbone.encode(to_pixels(one.frame)[None, None].to(self.device)) for one in references]
        return torch.cat(photos, dim=1) if photos else None

    def _first_latents(self, reference: Layers | None, denoiser: Denoiser, shape: tuple[int, ...]) -> Tensor:
        """x_T (1 f c h w), of `shape` (f c h w): `clip_noise` of what all frames share, the inverted photo or noise, and of each
        frame's own noise, all of it times `init_noise_scale`."""
        frames, *one = shape
        if self.sample.init_noise == "inversion" and self.shared_noise > 0:
            shared = self._invert(reference, denoiser)
        else:
            zero = torch.zeros(1, dtype=torch.int64)
            shared = noise_for(self.seed, zero, tuple(one), stream="first noise").to(denoiser.context)
        own = noise_for(self.seed, torch.arange(frames), tuple(one), stream="frame noise").to(denoiser.context)
        return self.sample.init_noise_scale * clip_noise(shared, own[None], self.shared_noise)

    def _invert(self, reference: Layers, denoiser: Denoiser) -> Tensor:
        """DDIM inversion (1 c h w) of the reference photo under its own pose, where its keypoints are known, and without
        control otherwise; guidance 1."""
        backbone, tasks = self.models.backbone, self.sample.tasks
        latents = backbone.encode(to_pixels(reference.frame)[None, None].to(self.device))
        posed = {task: draw_condition(task, reference) for task in tasks if _can_draw(task, reference)}
        control = {t: backbone.encode_condition(to_pixels(i)[None, None].to(self.device)) for t, i in posed.items()}
        control = {t: backbone.control_input(latents) for t, latents in control.items()} if len(control) == len(tasks) else {}
        return ddim_inversion(
            dataclasses.replace(denoiser, control_latents=control, guidance_scale=1.0, overlap=0), latents, backbone.process,
            self._timesteps(), callback=self._watch("inverting the reference photo", self.sample.num_inference_steps),
        )[:, 0]  # fmt: skip

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
        for part in self.models.backbone.show_in_turn(latents, self.sample.frame_batch_size):
            yield from to_images(part[0])

    def _timesteps(self) -> Tensor:
        try:
            sample = self.sample
            return self.models.backbone.process.sampling_timesteps(sample.num_inference_steps, sample.timestep_spacing)
        except ValueError as error:
            raise UserError(f"sample.num_inference_steps: {error}") from error


def latent_window(window: int, overlap: int, backbone: Backbone) -> tuple[int, int]:
    """`sample.window` and `sample.overlap`, which count frames, in latent frames. Raises UserError where they are not whole."""
    temporal_windows(window, window, overlap)  # refuses an overlap that is none
    names = {"sample.window": window, "sample.window - sample.overlap": window - overlap}
    latents = []
    for name, frames in names.items():
        try:
            latents.append(backbone.latent_frames(max(1, frames)))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    return latents[0], latents[0] - latents[1] if overlap else 0


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
