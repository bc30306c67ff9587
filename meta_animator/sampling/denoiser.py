"""The denoiser of everything that samples: base, Meta ControlNet with its conditions, guidance, temporal windows.

Shapes: x_t (b f c h w) with f latent frames, an image being a clip of one; t (b,); text embeddings (b n d).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from meta_animator.sampling.sharing import Shares
from meta_animator.sampling.windows import predict_in_windows, temporal_windows, window_weights

Shared = dict[str, tuple[int, Any]]  # of a step, by the text: where the last window ends, and its residuals


class Base(Protocol):
    """What a denoiser asks of a base model: a `Backbone`, or a diffusers pipeline's networks."""

    @property
    def has_time(self) -> bool:
        """Whether `predict` sees a clip's frames together; otherwise each is an image by itself."""

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: Any | None = None) -> Tensor: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoiser:
    """`denoiser(x_t, t)` -> the prediction (b f c h w), for any sampler.

    control         the Meta ControlNet
    tasks           {task: strength}: each task's condition goes through the control network under its LoRA, and the residuals
                    are added up
    control_latents {task: (b f ...)}: what `Backbone.control_input` makes of the condition images' latents; empty: no control
    context, null_context   embeddings of the prompt and of the unguided branch's text
    loras           {LoRA: weight} to be active for every task instead of the task's own
    guidance_scale  w in e_uncond + w (e_cond - e_uncond) (Ho & Salimans 2022, eq. 6, w = their w + 1); the
                    unconditional branch keeps the pose and drops the text
    references      so many latent frames at the front of x_t are photos beside the clip: every window sees them
    window, overlap latent frames of the clip that are denoised together, and how many neighbouring windows share; 0: all of it
    shares          of several processes, which call in step with each other, each for some of the windows
    """

    backbone: Base
    control: Any
    tasks: Mapping[str, float]
    control_latents: Mapping[str, Tensor]
    context: Tensor
    null_context: Tensor | None = None
    loras: Mapping[str, float] | None = None
    controlnet_conditioning_scale: float = 1.0
    guidance_scale: float = 1.0
    references: int = 0
    window: int = 0
    overlap: int = 0
    shares: Shares | None = None

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        frames = x_t.shape[1] - self.references
        windows = self.windows(frames)
        weights = window_weights(frames, windows, self.overlap)
        shared: Shared = {}
        return predict_in_windows(
            lambda part, places: self._guided(part, t, places, shared), x_t, windows, weights, self.references,
            self.shares,
        )  # fmt: skip

    def windows(self, frames: int) -> list[tuple[int, int]]:
        """The windows of a clip of so many latent frames."""
        return temporal_windows(frames, self.window or frames, self.overlap)

    def _guided(self, x_t: Tensor, t: Tensor, window: slice | Tensor, shared: Shared) -> Tensor:
        """Both branches of single frames go through the networks as one batch, those of clips in turn: a clip is a batch
        already, and two would take twice the memory."""
        if self.guidance_scale == 1.0:
            return self._branch("text", x_t, t, self.context, window, shared)
        if self.backbone.has_time and x_t.shape[1] > 1:
            unconditional = self._branch("no text", x_t, t, self.null_context, window, shared)
            conditional = self._branch("text", x_t, t, self.context, window, shared)
        else:
            twice, contexts = torch.cat([t, t]), torch.cat([self.context, self.null_context])
            shown = {task: torch.cat([latents, latents]) for task, latents in self._shown(window).items()}
            residuals = self._control(twice, contexts, shown)
            conditional, unconditional = self.backbone.predict(torch.cat([x_t, x_t]), twice, contexts, residuals).chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _branch(
        self, name: str, x_t: Tensor, t: Tensor, context: Tensor, window: slice | Tensor, shared: Shared
    ) -> Tensor:  # fmt: skip
        """Residuals of frames that the window before has too are not computed again, unless the control network sees the noisy
        latents."""
        if not (self.overlap and self.control_latents) or self.control.sees_noise:
            return self.backbone.predict(x_t, t, context, self._control(t, context, self._shown(window)))
        stop, before = shared.get(name, (window.start, None))
        residuals = self._control(t, context, self._shown(slice(stop, window.stop)))
        if before is not None:
            residuals = before.behind(len(context), stop - window.start, residuals)
        shared[name] = window.stop, residuals
        return self.backbone.predict(x_t, t, context, residuals)

    def _shown(self, places: slice | Tensor) -> dict[str, Tensor]:
        return {task: latents[:, places] for task, latents in self.control_latents.items()}

    def _control(self, t: Tensor, context: Tensor, shown: Mapping[str, Tensor]) -> Any | None:
        """The sum over conditions; None where there are none."""
        residuals = None
        for task, latents in shown.items():
            self.control.bank.use(self.loras or task)
            scaled = self.control(latents, t, context) * (self.tasks[task] * self.controlnet_conditioning_scale)
            residuals = scaled if residuals is None else residuals + scaled
        return residuals
