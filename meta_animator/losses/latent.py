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
    half = FACE_MARGIN * sides[..., None] / 2
    weights = box_weights(torch.cat([centres - half, centres + half], dim=-1), latent_size, image_size, weight)
    return torch.where(visible[..., None, None, None], weights, 1.0)


def box_weights(boxes: Tensor, latent_size: tuple[int, int], image_size: tuple[int, int], weight: float) -> Tensor:
    """`weight` on the latent places whose middles lie in boxes (..., 4) x0, y0, x1, y1 in pixels, borders included, 1 on the
    others: float32 (..., 1, h, w). A box with x1 < x0 has none."""
    (h, w), (height, width) = latent_size, image_size
    y = ((torch.arange(h, device=boxes.device) + 0.5) * height / h - 0.5)[:, None]
    x = ((torch.arange(w, device=boxes.device) + 0.5) * width / w - 0.5)[None, :]
    x0, y0, x1, y1 = boxes[..., None, None].unbind(-3)
    inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return (1 + (weight - 1) * inside.float()).unsqueeze(-3)
