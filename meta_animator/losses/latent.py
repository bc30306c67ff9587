"""The latent half of the Dual Space Hybrid Loss."""

import torch
from torch import Tensor

FACE_MARGIN = 1.3  # side of the square that counts as the face, in sides of an aligned crop: with brows, chin and ears


def latent_loss(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error per sample, float32 (b,), of tensors `b c h w` or `b f c h w` (Ho et al. 2020, eq. 14).

    weights  >= 0, broadcast over the errors before their mean is taken; None: 1 everywhere
    """
    error = (prediction.float() - target.float()).square()
    return (error if weights is None else error * weights).flatten(1).mean(1)


def face_region_weights(
    centres: Tensor, sides: Tensor, visible: Tensor, latent_size: tuple[int, int], image_size: tuple[int, int], weight: float
) -> Tensor:
    """`weight` on the latent places that show a face, 1 on the others: float32 (..., 1, h, w).

    centres, sides  (..., 2) x, y and (...): the faces' squares in pixels, see `FACE_MARGIN`
    visible         bool (...); a sample without a face has 1 everywhere
    latent_size, image_size   (h, w) in latent places, (H, W) in pixels
    """
    (h, w), (height, width) = latent_size, image_size
    y = ((torch.arange(h, device=centres.device) + 0.5) * height / h - 0.5)[:, None]
    x = ((torch.arange(w, device=centres.device) + 0.5) * width / w - 0.5)[None, :]
    half = FACE_MARGIN * sides[..., None, None] / 2
    inside = ((x - centres[..., 0, None, None]).abs() <= half) & ((y - centres[..., 1, None, None]).abs() <= half)
    inside &= visible[..., None, None]
    return (1 + (weight - 1) * inside.float()).unsqueeze(-3)
