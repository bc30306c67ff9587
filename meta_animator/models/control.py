"""Meta ControlNet: a ControlNet without hint block that reads the VAE latent of a condition image, with a LoRA bank.

Shapes: control_latents (b c h w) or (b f c h w); t (b,); context (b n d).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from einops import rearrange
from torch import Tensor, nn

from meta_animator.models.lora import LoRABank
from meta_animator.weights import copy_strict


class ControlOutput(NamedTuple):
    """Residuals for a UNet's skip connections and mid block, frames folded into the batch: (b f) c h w."""

    down: tuple[Tensor, ...]
    mid: Tensor

    def __mul__(self, scale: float) -> "ControlOutput":
        return ControlOutput(tuple(d * scale for d in self.down), self.mid * scale)

    def __add__(self, other: "ControlOutput") -> "ControlOutput":
        return ControlOutput(tuple(a + b for a, b in zip(self.down, other.down, strict=True)), self.mid + other.mid)


class NoHint(nn.Module):
    """Takes the place of the ControlNet's hint block: adds nothing, since the condition enters through conv_in."""

    def forward(self, condition: Tensor) -> float:
        return 0.0


class MetaControlNet(nn.Module):
    """One shared ControlNet and one LoRA per task; zero convolutions, norms and convolutions are shared."""

    def __init__(self, unet: UNet2DConditionModel, tasks: list[str], rank: int):
        super().__init__()
        with torch.device(unet.device):
            self.net = ControlNetModel.from_unet(unet)
        self.net.controlnet_cond_embedding = NoHint()
        self.net.requires_grad_(True)
        self.bank = LoRABank(self.net, rank, tasks)

    def forward(self, control_latents: Tensor, t: Tensor, context: Tensor) -> ControlOutput:
        """Residuals of the active LoRA's task. The noisy latent is not an input."""
        if control_latents.ndim == 5:
            frames = control_latents.shape[1]
            control_latents = rearrange(control_latents, "b f c h w -> (b f) c h w")
            t, context = t.repeat_interleave(frames, 0), context.repeat_interleave(frames, 0)
        down, mid = self.net(control_latents, t, context, controlnet_cond=control_latents, return_dict=False)
        return ControlOutput(tuple(down), mid)

    def base_state(self) -> dict[str, Tensor]:
        """The shared weights under the names of diffusers' ControlNetModel."""
        return {n.replace(".base.", "."): p for n, p in self.net.named_parameters() if not _is_lora(n)}

    def load_base(self, state: Mapping[str, Tensor], what: str) -> None:
        """Raises UserError unless every name and shape matches."""
        copy_strict(self.base_state(), state, what)

    def config(self) -> dict[str, Any]:
        return dict(self.net.config)


def _is_lora(parameter_name: str) -> bool:
    return parameter_name.split(".")[-2] in ("down", "up")
