"""The pixel term of the image half of the Dual Space Hybrid Loss."""

from torch import Tensor


def pixel_loss(x: Tensor, decoded: Tensor) -> Tensor:
    """Mean squared error per image, float32 (n,), between images `n 3 h w` in [-1, 1]."""
    return (decoded.float() - x.float()).square().flatten(1).mean(1)
