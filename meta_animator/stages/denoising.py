"""The training step of everything that learns to denoise: stages 0 to 2, and the embedded base's UNet.

Shapes: pixels `b f 3 H W`, latents `b f' c h w`; an image is a clip of one frame.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from meta_animator.data.batch import Batch
from meta_animator.devices import send
from meta_animator.diffusion.process import Noised
from meta_animator.diffusion.randomness import noise_for, rng
from meta_animator.losses.hybrid import WEIGHTS, HybridLoss, Truth
from meta_animator.models.assembly import Assembly
from meta_animator.models.precision import HALF, PRECISIONS
from meta_animator.settings import RunConfig
from meta_animator.stages.draws import timesteps_of
from meta_animator.stages.regions import region_weights
from meta_animator.training.stage import Mean, ParamGroup


class Parts(Protocol):
    """What one stage does in its own way: ControlParts (stages 0 and 2), MotionParts (stage 1), and the base's UNet."""

    def param_groups(self) -> list[ParamGroup]:
        """What learns."""

    def stored(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name; what learns is in it."""

    def load(self, state: Mapping[str, Tensor], what: str) -> None:
        """Take back what was stored. Raises UserError for weights that do not fit."""

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""

    def noise(self, draws: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Unit normal noise (b, *shape) of these draws, `shape` (f' c h w): a function of (seed, draw) alone, from
        diffusion/randomness.py."""

    def context(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Text embeddings (b n d)."""

    def residuals(self, task: str, draws: Tensor, control_latents: Tensor, t: Tensor, context: Tensor) -> Any:
        """What the control network adds to the base."""

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures or short videos of the present state."""


class DenoisingStage(nn.Module):
    """(prediction of the base under control) against the Dual Space Hybrid Loss; a `training.stage.Stage`.

    models   the frozen base with the trained networks
    parts    what learns, from what noise, and what is shown of it
    """

    def __init__(self, config: RunConfig, models: Assembly, loss: HybridLoss, parts: Parts):
        super().__init__()
        self.config, self.models, self.loss, self.parts = config, models, loss, parts
        self.gradients_alike = not config.data.task_per_rank  # the LoRAs of one task
        self.measures = hasattr(parts, "meters")
        if config.stage == "reference":
            self.early_stop, self.best_step = config.train.early_stop, config.train.best_step
        self.counts: Tensor | None = None  # of this optimizer step's gated images and faces
        models.requires_grad_(False)
        for group in self.param_groups():
            for parameter in group.parameters.values():
                parameter.requires_grad_(True)
        precision = PRECISIONS[config.train.mixed_precision]
        if precision in HALF:
            models.hold_frozen_in(precision)
        if config.train.gradient_checkpointing:
            models.enable_gradient_checkpointing()

    # one training step

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Any]]:
        latents, control_latents = self._latents(batch)
        noise = self.parts.noise(batch.draws, tuple(latents.shape[1:]))
        noise, t = send(noise.to(latents.dtype), latents.device), self.timesteps(batch.draws)
        noised = Noised.of(self.loss.process, latents, noise, t.to(latents.device, non_blocking=True))
        context = self.parts.context(batch.prompts, latents.device)
        residuals = self.parts.residuals(batch.task, batch.draws, control_latents, noised.t, context)
        prediction = self.models.backbone.predict(noised.x_t, noised.t, context, residuals)
        weights, part = self._place_weights(batch, latents), self._part(latents.shape[1], step)
        truth = self._truth(batch, part)
        loss, logs = self.loss(
            prediction, noised, truth, step, place_weights=weights, counts=self.counts, part=part, gated=self.loss.gated(t)
        )  # fmt: skip
        means = {name: Mean(logs[name], logs[of]) for name, of in WEIGHTS.items() if name in logs}
        return loss, {"task": batch.task, **logs, **means}

    @contextlib.contextmanager
    def rounding_once(self) -> Iterator[None]:
        """For forward and backward under autocast: trained weights are rounded by a few calls (see `RoundedCopies`)."""
        layers = getattr(getattr(self.models.backbone, "unet", None), "temporal_layers", None)
        with contextlib.ExitStack() as stack:
            for part in (self.models.control, layers):
                if hasattr(part, "rounded"):
                    stack.enter_context(part.rounded)
            yield

    def begin_step(self, batches: Sequence[Batch], step: int, mean: Callable[[Tensor], Tensor]) -> None:
        """Count what the image terms are means over: gated images and visible faces, of all micro-batches and processes."""
        self.counts = None
        if self.loss.image_active(step):
            counts = []
            for batch in batches:
                frames = self.models.backbone.latent_frames(batch.pixels.shape[1])
                truth = self._truth(batch, self._part(frames, step))
                counts.append(self.loss.counts(self.timesteps(batch.draws), truth.face_visible, truth.pixels.shape[1]))
            self.counts = mean(torch.stack(counts).mean(0))

    def _part(self, latent_frames: int, step: int) -> slice | None:
        """The latent frames that the image terms see in this step where they do not see all of a clip: other ones each time."""
        count = self.config.loss.image_latent_frames
        if self.models.backbone.frames_apart or not count or count >= latent_frames:
            return None
        start = int(rng(self.config.seed, "image frames", step).integers(latent_frames - count + 1))  # the same for all ranks
        return slice(start, start + count)

    def _truth(self, batch: Batch, part: slice | None) -> Truth:
        frames = slice(None) if part is None else self.models.backbone.pixel_frames(part)
        pixels, landmarks, visible = (
            None if values is None else values[:, frames] for values in (batch.pixels, batch.landmarks, batch.face_visible)
        )
        visible = self.models.usable_faces(landmarks, visible)
        return Truth(pixels=pixels, pixel_rows=batch.pixel_rows, landmarks=landmarks, face_visible=visible)

    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the frames, and what the control network reads of their condition images: cached, or encoded now."""
        backbone = self.models.backbone
        latents = batch.latents if batch.latents is not None else backbone.encode(batch.pixels)
        if batch.control_latents is not None:
            return latents, backbone.control_input(batch.control_latents)
        posterior_noise = None
        if self.config.model.condition_posterior == "sample":
            posterior_noise = noise_for(self.config.seed, batch.draws, tuple(latents.shape[1:]), stream="condition posterior")
        return latents, backbone.control_input(backbone.encode_condition(batch.control_pixels, posterior_noise))

    def timesteps(self, draws: Tensor) -> Tensor:
        """(b,), on the CPU; functions of (seed, draw) alone."""
        return timesteps_of(draws, self.config.seed, self.loss.process, self.config.train)

    def _place_weights(self, batch: Batch, latents: Tensor) -> Tensor | None:
        """Where the latent error counts more than elsewhere; None: nowhere."""
        backbone = self.models.backbone
        shown = [backbone.pixel_frames(slice(k, k + 1)) for k in range(latents.shape[1])]
        return region_weights(batch, latents, backbone.vae_scale_factor, shown, self.config.loss)

    # what is trained and stored, and what is shown

    def param_groups(self) -> list[ParamGroup]:
        return self.parts.param_groups()

    def trainable_state(self) -> dict[str, Tensor]:
        return self.parts.stored()

    def load_trainable_state(self, state: Mapping[str, Tensor], what: str) -> None:
        self.parts.load(state, what)

    def metadata(self) -> dict[str, Any]:
        return self.parts.metadata()

    def preview(self, folder: Path, step: int) -> None:
        self.parts.preview(folder, step)

    def measure(self) -> dict[str, float]:
        """{meter: value} of the present state, see meters.py; empty where nothing is measured."""
        return self.parts.meters.measure() if self.measures else {}
