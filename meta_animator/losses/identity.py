"""The face term of the image half of the Dual Space Hybrid Loss."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

EmbedFace: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def identity_loss(
    embed_face: EmbedFace, x: Tensor, decoded: Tensor, landmarks: Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    """(sum of 1 - cos over the visible faces, their number), both float32 scalars.

    Both images are embedded at the landmarks of the true one; only `decoded` receives a gradient. Images without a
    visible face take no part, and with none at all `embed_face` is not called (Deng et al. 2019 for the embedding).

    embed_face  (images `n 3 h w` in [-1, 1], landmarks (n, 5, 2) in pixels) -> (n, d)
    x, decoded  `n 3 h w` in [-1, 1]: the true and the generated images
    landmarks   (n, 5, 2) of x, in pixels with centres at integers: eyes, nose tip, mouth corners, image left first
    visible     bool (n,); in main memory, as the landmarks, nothing waits for the device that the images are on
    """
    count = visible.sum().float()
    chosen = visible.nonzero().squeeze(1)
    if len(chosen) == 0:
        return decoded.new_zeros((), dtype=torch.float32), count
    landmarks, chosen = landmarks[chosen], chosen.to(x.device, non_blocking=True)
    with torch.no_grad():
        wanted = embed_face(x[chosen], landmarks)
    found = embed_face(decoded[chosen], landmarks)
    return (1 - F.cosine_similarity(found.float(), wanted.float(), dim=1)).sum(), count
