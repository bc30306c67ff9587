"""The motion module in the AnimateDiff v3 layout, through diffusers; the motion UNet shares the image UNet's storage."""

from collections.abc import Mapping

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

from meta_animator.errors import UserError


class FrameGroupNorm(nn.GroupNorm):
    """Normalises each frame of (b c f h w) by itself, as AnimateDiff's own temporal transformer does. diffusers takes
    means over all frames together, with which published weights give other outputs."""

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).view_as(frames).transpose(1, 2)


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


def join_motion(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """One network of `unet` and `adapter` that holds the very same parameters: no copy, and training one trains both."""
    with torch.device("meta"):
        joined = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    state: Mapping[str, Tensor] = {**unet.state_dict(keep_vars=True), **adapter.state_dict(keep_vars=True)}
    joined.load_state_dict(state, strict=True, assign=True)
    return with_frame_norms(joined)


def with_frame_norms(unet: UNetMotionModel) -> UNetMotionModel:
    """The same network, its temporal transformers normalising each frame by itself."""
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D) and not isinstance(module.norm, FrameGroupNorm):
            norm = module.norm
            with torch.device("meta"):
                module.norm = FrameGroupNorm(norm.num_groups, norm.num_channels, norm.eps)
            module.norm.weight, module.norm.bias = norm.weight, norm.bias
    return unet
