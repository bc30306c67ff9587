"""One guided prediction: the base model, the Meta ControlNet with its conditions, and classifier-free guidance.

Shapes: x_t and control latents (b c h w) or (b f c h w); t (b,); context (b n d).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from meta_animator.models.backbones import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide:
    """What steers a sample.

    tasks           {task: strength}: each task's condition goes through the control network under its LoRA,
                    and the residuals are added up
    loras           {LoRA: weight} to be active for every task instead of the task's own
    guidance_scale  w in e_uncond + w (e_cond - e_uncond) (Ho & Salimans 2022, eq. 6, w = their w + 1); the
                    unconditional branch keeps the pose and drops the text
    """

    backbone: Backbone
    control: Any
    tasks: Mapping[str, float]
    loras: Mapping[str, float] | None = None
    controlnet_conditioning_scale: float = 1.0
    guidance_scale: float = 1.0

    def predict(
        self, x_t: Tensor, t: Tensor, context: Tensor, null_context: Tensor, control_latents: Mapping[str, Tensor]
    ) -> Tensor:
        """The prediction at x_t; both branches of images go through the networks as one batch, those of clips in turn: a clip
        is a batch already, and two would take twice the memory."""
        if self.guidance_scale == 1.0:
            return self._branch(x_t, t, context, control_latents)
        if x_t.ndim == 5:
            unconditional = self._branch(x_t, t, null_context, control_latents)
            return unconditional + self.guidance_scale * (self._branch(x_t, t, context, control_latents) - unconditional)
        both = {task: torch.cat([c, c]) for task, c in control_latents.items()}
        pair = self._branch(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([context, null_context]), both)
        conditional, unconditional = pair.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _branch(self, x_t: Tensor, t: Tensor, context: Tensor, control_latents: Mapping[str, Tensor]) -> Tensor:
        output = None
        for task, strength in self.tasks.items():
            self.control.bank.use(self.loras or task)
            scaled = self.control(control_latents[task], t, context) * (strength * self.controlnet_conditioning_scale)
            output = scaled if output is None else output + scaled
        return self.backbone.predict(x_t, t, context, output)
