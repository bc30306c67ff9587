"""Where in a picture the latent error counts more, or less, than elsewhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from meta_animator.data.batch import Batch
from meta_animator.losses.latent import box_weights, face_region_weights
from meta_animator.models.face import face_sizes
from meta_animator.settings import LossConfig


def region_weights(batch: Batch, latents: Tensor, factor: int, shown: Sequence[slice], loss: LossConfig) -> Tensor | None:
    """Weights (b f' 1 h w) for errors of `latents` (b f' c h w), by `loss.face_region_weight` and `loss.person_region_weight`;
    None where all count alike.

    factor   pixels of a latent place's side
    shown    the frames of the batch that each latent frame shows; what one of them shows holds for the latent
    """
    places, pixels = latents.shape[-2:], tuple(factor * side for side in latents.shape[-2:])
    product = None
    if loss.face_region_weight != 1 and batch.landmarks is not None:
        points = batch.landmarks.to(latents.device, non_blocking=True)
        visible = batch.face_visible.to(latents.device, non_blocking=True)
        sides = face_sizes(points.flatten(0, -3)).view(points.shape[:-2])
        weights = face_region_weights(points.mean(-2), sides, visible, places, pixels, loss.face_region_weight)
        product = _of_latents(weights, shown, loss.face_region_weight)
    if loss.person_region_weight != 1 and batch.person_boxes is not None:
        boxes = batch.person_boxes.to(latents.device, non_blocking=True)
        weights = box_weights(boxes, places, pixels, loss.person_region_weight)
        weights = _of_latents(weights, shown, loss.person_region_weight)
        product = weights if product is None else product * weights
    return product


def _of_latents(weights: Tensor, shown: Sequence[slice], weight: float) -> Tensor:
    of_frames = torch.amax if weight > 1 else torch.amin
    return torch.stack([of_frames(weights[:, frames], 1) for frames in shown], 1)
