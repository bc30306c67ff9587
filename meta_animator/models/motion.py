"""The motion module in the AnimateDiff v3 layout: diffusers' MotionAdapter holds it, hooks put it into the image UNet.

Letters in shapes: b clips, f frames of a clip, c h w.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meta_animator.errors import UserError
from meta_animator.models.precision import HALF, RoundedCopies, autocast, rounded, trained_weights

SEQUENCES_AT_ONCE = 2**15  # attention kernels on GPUs take at most 65,535 sequences in a batch; each place in a picture is one


def new_motion_adapter(unet: UNet2DConditionModel, max_seq_length: int, mid_block: bool = False) -> MotionAdapter:
    """A motion module for `unet`: two temporal self-attentions per layer, in the mid block too (AnimateDiff v2) or not
    (v3), on its device.

    Its output projections start at zero, so that a fresh module leaves every frame unchanged.
    """
    config = unet.config
    with torch.device(unet.device):
        adapter = MotionAdapter(
            block_out_channels=tuple(config.block_out_channels),
            motion_layers_per_block=config.layers_per_block,
            motion_norm_num_groups=config.norm_num_groups,
            motion_num_attention_heads=8,
            motion_max_seq_length=max_seq_length,
            use_motion_mid_block=mid_block,
        )
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return adapter


def check_length(known: int | None, wanted: int, what: str) -> None:
    """Raises UserError where a motion module was trained with fewer positions than `model.motion_max_seq_length` asks for;
    None: it does not say."""
    if known is not None and known < wanted:
        raise UserError(
            f"{what}: knows {known} positions, this run has model.motion_max_seq_length={wanted}; set it to {known} or less"
        )


class TemporalLayers:
    """The layers of `adapter` behind those layers of `unet` that they belong to, as hooks: the image UNet sees a clip as a batch
    of images, and what lies between its frames is added where a motion UNet has it.

    `run(f, ...)` calls the UNet on clips of f frames; called directly it sees images, and the layers are silent. Trained or
    not, the UNet and the motion module keep their own weights and precision: nothing is copied.
    """

    def __init__(self, unet: UNet2DConditionModel, adapter: MotionAdapter):
        self.unet, self.adapter = unet, adapter
        self.num_frames: int | None = None
        self.rounded = RoundedCopies()  # what the layers compute in where this is entered, beside a UNet in half precision
        self.gradient_checkpointing = False
        hooks = ((place, functools.partial(self._behind, layer)) for place, layer in places(unet, adapter))
        self._handles = [place.register_forward_hook(hook) for place, hook in hooks]

    def run(self, num_frames: int, *arguments: Any, **options: Any) -> Any:
        """The UNet's answer for clips of `num_frames`, whose images are folded into its batch: (b f) c h w."""
        if self.rounded.wanted and not self.rounded.made and self.unet.dtype in HALF:
            self._round(self.unet.dtype)
        return self._with_frames(num_frames, self.unet, *arguments, **options)

    def _round(self, dtype: torch.dtype) -> None:
        """What is trained, with its tables of positions."""
        places = [(module._parameters, name, weight) for module, name, weight in trained_weights(self.adapter)]
        if places:
            buffers = ((m._buffers, n, b) for m in self.adapter.modules() for n, b in m._buffers.items())
            places += [place for place in buffers if place[-1].is_floating_point()]
        for (place, name, _), copy in zip(places, rounded([source for *_, source in places], dtype), strict=True):
            self.rounded.put(place, name, copy)

    def remove(self) -> None:
        """Take the layers out of the UNet again."""
        for handle in self._handles:
            handle.remove()

    def enable_gradient_checkpointing(self) -> None:
        """Of the temporal layers and of the UNet, whose layers have to know the number of frames once more when they are
        computed again."""
        self.gradient_checkpointing = True
        self.unet.enable_gradient_checkpointing(
            lambda module, *arguments: _checkpoint(self._with_frames, self.num_frames, module, *arguments)
        )

    def _with_frames(self, num_frames: int | None, call: Callable, *arguments: Any, **options: Any) -> Any:
        before, self.num_frames = self.num_frames, num_frames
        try:
            return call(*arguments, **options)
        finally:
            self.num_frames = before

    def _behind(self, layer: nn.Module, place: nn.Module, arguments: Any, output: Any) -> Any:
        """The hook behind one layer of the UNet, which gives a tensor, or a tuple that begins with one."""
        if self.num_frames is None:
            return output
        x, *rest = output if isinstance(output, tuple) else (output,)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            x = _checkpoint(temporal_layer, layer, x, self.num_frames)
        else:
            x = temporal_layer(layer, x, self.num_frames)
        return (x, *rest) if isinstance(output, tuple) else x


def _checkpoint(call: Callable, *arguments: Any) -> Any:
    return checkpoint(call, *arguments, use_reentrant=False, preserve_rng_state=False)


def temporal_layer(layer: nn.Module, x: Tensor, num_frames: int) -> Tensor:
    """x (b f) c h w with what `layer`, a transformer over the frames of each place, adds to it.

    Each frame is normalised by itself, as in AnimateDiff's own code (diffusers takes means over all frames together, with which
    published weights give other outputs). Float32 weights behind a half-precision UNet compute as autocast does.
    """
    h, w = x.shape[-2:]
    mixed = x.dtype != layer.norm.weight.dtype
    with autocast(x.device, x.dtype) if mixed else contextlib.nullcontext():
        y = rearrange(layer.norm(x), "(b f) c h w -> (b h w) f c", f=num_frames)
        y = torch.cat([_transform(layer, part) for part in y.split(SEQUENCES_AT_ONCE)])
    return x + rearrange(y, "(b h w) f c -> (b f) c h w", h=h, w=w).to(x.dtype)


def _transform(layer: nn.Module, y: Tensor) -> Tensor:
    """Sequences (n f c) through the transformer's blocks."""
    y = layer.proj_in(y)
    for block in layer.transformer_blocks:
        y = block(y)
    return layer.proj_out(y)


def places(unet: UNet2DConditionModel, adapter: MotionAdapter) -> Iterator[tuple[nn.Module, nn.Module]]:
    """(layer of the UNet, temporal layer behind it): behind each attention, or in blocks without one each ResNet layer.

    Raises UserError where the two have not as many layers.
    """
    blocks = [*zip(unet.down_blocks, adapter.down_blocks, strict=True), *zip(unet.up_blocks, adapter.up_blocks, strict=True)]
    if adapter.mid_block is not None:
        blocks.append((unet.mid_block, adapter.mid_block))
    for block, motion in blocks:
        ours = getattr(block, "attentions", None) or block.resnets
        if len(ours) != len(motion.motion_modules):
            raise UserError(f"motion module: has {len(motion.motion_modules)} layers in a block where the UNet has {len(ours)}")
        yield from zip(ours, motion.motion_modules, strict=True)


def join_motion(unet: UNet2DConditionModel, adapter: MotionAdapter) -> TemporalLayers:
    """The layers of `adapter` in `unet`, instead of those of another that were there before."""
    joined = getattr(unet, "temporal_layers", None)
    if joined is None or joined.adapter is not adapter:
        if joined is not None:
            joined.remove()
        joined = TemporalLayers(unet, adapter)
        unet.temporal_layers = joined
    return joined


def split_motion_unet(joined: UNetMotionModel) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """The image UNet and the motion module that a UNetMotionModel of diffusers was made of; they take its parameters over."""
    config = {name: value for name, value in joined.config.items() if not name.startswith("_")}
    for side in ("down", "up"):
        config[f"{side}_block_types"] = [kind.replace("Motion", "2D") for kind in config[f"{side}_block_types"]]
    config["attention_head_dim"] = config.pop("num_attention_heads")  # which is what Stable Diffusion's configs mean by it
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{name: value for name, value in config.items() if name in known})
        adapter = new_motion_adapter(unet, joined.config.motion_max_seq_length, bool(joined.config.use_motion_mid_block))
    state = joined.state_dict(keep_vars=True)
    motion = {name: weight for name, weight in state.items() if ".motion_modules." in name}
    unet.load_state_dict({name: weight for name, weight in state.items() if name not in motion}, strict=True, assign=True)
    adapter.load_state_dict(motion, strict=True, assign=True)
    return unet, adapter
