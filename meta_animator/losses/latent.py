"""The latent half of the Dual Space Hybrid Loss."""

from torch import Tensor


def latent_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per sample, float32 (b,), of tensors `b c h w` or `b f c h w` (Ho et al. 2020, eq. 14)."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
