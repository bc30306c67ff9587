"""Who is seen, and in which pose: similarity of faces, and the error of poses, by networks that see people."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from meta_animator.data.keypoints import BODY, VISIBLE, five_points
from meta_animator.data.samples import to_pixels

MIN_POINTS = 3  # that a pose is compared by


class Annotators(Protocol):
    """What `annotators.sets.AnnotatorSet` is."""

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Any]]: ...

    def annotate(self, frames: Sequence[np.ndarray], people: Sequence[Any], **options: Any) -> list[dict[str, np.ndarray]]: ...


def find_poses(annotators: Annotators, frames: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Keypoints (133, 3) of the most certain person in each frame uint8 (h, w, 3) of a clip; None for nobody."""
    people = [found[0] if found else None for found in annotators.detect(frames)]
    return [layers.get("keypoints") for layers in annotators.annotate(frames, people, only={"keypoints"})]


def pose_error(ours: np.ndarray | None, theirs: np.ndarray | None) -> tuple[float | None, float | None]:
    """(error, missing) of keypoints (133, 3), ours against the true ones, by their 17 body points.

    error     mean distance of the points that both show, in percent of the true person: the diagonal around its seen points;
              None where fewer than 3 are shared
    missing   share of the true person's points that ours does not show, in [0, 1]; None where it has fewer than 3
    """
    if theirs is None:
        return None, None
    wanted = theirs[BODY, 2] >= VISIBLE
    if wanted.sum() < MIN_POINTS:
        return None, None
    seen = np.zeros_like(wanted) if ours is None else ours[BODY, 2] >= VISIBLE
    shared = wanted & seen
    missing = 1 - float(shared.sum() / wanted.sum())
    extent = float(np.hypot(*np.ptp(theirs[BODY][wanted, :2], axis=0)))
    if shared.sum() < MIN_POINTS or extent == 0:
        return None, missing
    distances = np.hypot(*(ours[BODY][shared, :2] - theirs[BODY][shared, :2]).T)
    return float(100 * distances.mean() / extent), missing


@torch.no_grad()
def embed_faces(embedder: Any, frames: Sequence[np.ndarray], poses: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Unit vector (d,) of the face in each frame uint8 (h, w, 3), at the landmarks of its keypoints (133, 3); None where it is
    not seen or too small."""
    vectors: list[np.ndarray | None] = []
    for frame, pose in zip(frames, poses, strict=True):
        points = None if pose is None else five_points(pose)
        landmarks = None if points is None else torch.from_numpy(points)[None]
        if landmarks is None or not bool(embedder.large_enough(landmarks)):
            vectors.append(None)
        else:
            vectors.append(embedder.embed_face(to_pixels(frame)[None], landmarks)[0].numpy())
    return vectors


def similarities(ours: Sequence[np.ndarray | None], theirs: Sequence[np.ndarray | None]) -> list[float | None]:
    """Cosine of unit vectors, one by one; None where either is."""
    return [None if a is None or b is None else float(a @ b) for a, b in zip(ours, theirs, strict=True)]
