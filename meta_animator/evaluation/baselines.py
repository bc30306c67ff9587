"""What an animation must beat: videos made of the reference photos alone."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

Baseline: TypeAlias = Literal["first_photo", "nearest_photo"]

BODY_POINTS = 17
MIN_SCORE = 0.3
MIN_SHARED_POINTS = 3


def first_photo(photos: np.ndarray, num_frames: int) -> np.ndarray:
    """The first of the photos uint8 (k, h, w, 3), repeated: uint8 (num_frames, h, w, 3)."""
    return np.repeat(photos[:1], num_frames, axis=0)


def nearest_photo(
    photos: np.ndarray, photo_keypoints: Sequence[np.ndarray | None], keypoints: Sequence[np.ndarray | None]
) -> np.ndarray:
    """For each frame the photo in the most similar pose: uint8 (n, h, w, 3).

    photos           uint8 (k, h, w, 3)
    photo_keypoints  k arrays float (133, 3), COCO-WholeBody: x, y in pixels and a score; None where unknown
    keypoints        the same for the n frames

    A frame that shares too few visible body points with every photo gets the first one.
    """
    if len(photos) != len(photo_keypoints):
        raise ValueError(f"photo_keypoints: expected {len(photos)}, got {len(photo_keypoints)}")
    distances = [[pose_distance(pose, known) for known in photo_keypoints] for pose in keypoints]
    return photos[[int(np.argmin(row)) for row in distances]]


def pose_distance(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Root mean square distance of the body points visible in both, after taking out place and size.

    Each pose is centred on those points and divided by its root mean square spread, so that 0 is equal and 2 opposite.
    Infinite where fewer than 3 points are visible in both.
    """
    if a is None or b is None:
        return float("inf")
    shared = (a[:BODY_POINTS, 2] > MIN_SCORE) & (b[:BODY_POINTS, 2] > MIN_SCORE)
    if shared.sum() < MIN_SHARED_POINTS:
        return float("inf")
    gap = _normalised(a[:BODY_POINTS][shared, :2]) - _normalised(b[:BODY_POINTS][shared, :2])
    return float(np.sqrt((gap**2).sum(1).mean()))


def _normalised(points: np.ndarray) -> np.ndarray:
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    return centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)
