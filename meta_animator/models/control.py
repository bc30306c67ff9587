"""Meta ControlNet: a ControlNet without hint block that reads the VAE latent of a condition image, with a LoRA bank.

Shapes: control_latents (b c h w) or (b f c h w); t (b,); context (b n d).
"""

from typing import Any, NamedTuple

import torch
from diffusers import ConfigMixin, ControlNetModel, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.models.lora import LoRABank, shared_state
from meta_animator.models.precision import HALF, RoundedCopies, autocast, autocast_dtype, own_precision, rounded, trained_weights


class ControlOutput(NamedTuple):
    """Residuals for a UNet's skip connections and mid block, frames folded into the batch: (b f) c h w."""

    down: tuple[Tensor, ...]
    mid: Tensor

    def __mul__(self, scale: float) -> "ControlOutput":
        return ControlOutput(tuple(d * scale for d in self.down), self.mid * scale)

    def to(self, dtype: torch.dtype) -> "ControlOutput":
        return ControlOutput(tuple(d.to(dtype) for d in self.down), self.mid.to(dtype))

    def __add__(self, other: "ControlOutput") -> "ControlOutput":
        return ControlOutput(tuple(a + b for a, b in zip(self.down, other.down, strict=True)), self.mid + other.mid)

    def behind(self, batch: int, frames: int, other: "ControlOutput") -> "ControlOutput":
        """Of clips that begin with the last `frames` of `batch` clips in this one and go on with `other`."""

        def joined(own: Tensor, more: Tensor) -> Tensor:
            own, more = (x.unflatten(0, (batch, -1)) for x in (own, more))
            return torch.cat([own[:, -frames:], more], 1).flatten(0, 1)

        return ControlOutput(tuple(map(joined, self.down, other.down)), joined(self.mid, other.mid))


class NoHint(nn.Module):
    """Takes the place of the ControlNet's hint block: adds nothing, since the condition enters through conv_in."""

    def forward(self, condition: Tensor) -> float:
        return 0.0


class MetaControlNet(ModelMixin, ConfigMixin):
    """One shared ControlNet and one LoRA per task; zero convolutions, norms and convolutions are shared.

    `save_pretrained` and `push_to_hub` are diffusers'; LoRAs that were added to the bank are saved too.

    controlnet   config of diffusers' ControlNetModel
    net          such a model to take over instead of a fresh one
    """

    ignore_for_config = ("net",)
    sees_noise = False  # its residuals of a frame are the same whatever is beside it, and however noisy it is
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, controlnet: dict[str, Any], tasks: list[str], rank: int, net: ControlNetModel | None = None):
        super().__init__()
        self.net = ControlNetModel.from_config(controlnet) if net is None else net
        self.net.controlnet_cond_embedding = NoHint()
        self.net.requires_grad_(True)
        self.bank = LoRABank(self.net, rank, tasks)
        self.rounded = RoundedCopies()  # what it computes in where this is entered, under autocast, as a frozen half does

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, tasks: list[str], rank: int) -> "MetaControlNet":
        """A fresh one, on the UNet's device, that starts from its weights and leaves its output unchanged."""
        with torch.device(unet.device):
            net = ControlNetModel.from_unet(unet)
        shape = {name: value for name, value in net.config.items() if not name.startswith("_")}
        return cls(shape, list(tasks), rank, net=net)

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Any:
        """As diffusers does it with its options. Raises UserError unless the file has every weight and no other."""
        asked = options.pop("output_loading_info", False)
        network, info = super().from_pretrained(source, output_loading_info=True, **options)
        for kind, found in (("missing", info["missing_keys"]), ("unknown to the model", info["unexpected_keys"])):
            if found:
                raise UserError(f"Meta ControlNet {source}: {len(found)} weights are {kind}, the first is {min(found)}")
        return (network, info) if asked else network

    def save_config(self, *arguments: Any, **options: Any) -> None:
        self.register_to_config(tasks=list(self.bank.tasks))
        super().save_config(*arguments, **options)

    def forward(self, control_latents: Tensor, t: Tensor, context: Tensor) -> ControlOutput:
        """Residuals of the active LoRA's task. The noisy latent is not an input."""
        if control_latents.ndim == 5:
            frames = control_latents.shape[1]
            control_latents = rearrange(control_latents, "b f c h w -> (b f) c h w")
            if frames > 1:
                t, context = t.repeat_interleave(frames, 0), context.repeat_interleave(frames, 0)
        if self.rounded.wanted and (half := autocast_dtype(control_latents.device)) is not None:
            self._round(half)
        dtype = self.net.conv_in.weight.dtype
        if dtype in HALF:
            control_latents, context = control_latents.to(dtype), context.to(dtype)
        with own_precision(dtype, control_latents.device):
            down, mid = self.net(control_latents, t, context, controlnet_cond=control_latents, return_dict=False)
        return ControlOutput(tuple(down), mid)

    def _round(self, dtype: torch.dtype) -> None:
        """With the active LoRAs in those weights that are trained too; LoRAs that are trained alone by themselves."""
        assert not self.rounded.made, "one forward pass at a time: the backward pass wants its copies"
        trained, layers = list(trained_weights(self.net)), {layer.base: layer for layer in self.bank.layers.values()}
        own = {module for module, name, _ in trained if name == "weight"}  # modules whose weight is trained
        learns = [layer for layer in layers.values() if any(down.requires_grad for down, *_ in layer.active)]
        alone = [layer for layer in learns if layer.base not in own]
        with autocast(self.net.device, enabled=False):
            sources = [
                layers[module].merged() if name == "weight" and module in layers else weight for module, name, weight in trained
            ]
            sources += [half for layer in alone for down, up, _ in layer.active for half in (down, up)]
            copies = iter(rounded(sources, dtype))
        for module, name, _ in trained:
            self.rounded.put(module._parameters, name, next(copies))
        for layer in alone:
            active = tuple((next(copies), next(copies), weight) for *_, weight in layer.active)
            self.rounded.put(vars(layer), "active", active)
        for module in own & layers.keys():
            self.rounded.put(vars(layers[module]), "active", ())

    def base_state(self) -> dict[str, Tensor]:
        """The shared weights under the names of diffusers' ControlNetModel."""
        return shared_state(self.net)
