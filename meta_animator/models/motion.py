"""The motion module in the AnimateDiff v3 layout, through diffusers; the motion UNet shares the image UNet's storage."""

from collections.abc import Mapping

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn


def new_motion_adapter(unet: UNet2DConditionModel, max_seq_length: int) -> MotionAdapter:
    """A motion module for `unet`: two temporal self-attentions per layer, no mid block (AnimateDiff v3), on its device.

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
            use_motion_mid_block=False,
        )
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return adapter


def join_motion(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """One network of `unet` and `adapter` that holds the very same parameters: no copy, and training one trains both."""
    with torch.device("meta"):
        joined = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    state: Mapping[str, Tensor] = {**unet.state_dict(keep_vars=True), **adapter.state_dict(keep_vars=True)}
    joined.load_state_dict(state, strict=True, assign=True)
    return joined
