"""What is measured of a frame, for deciding whether it is kept."""

from collections.abc import Mapping

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.keypoints import FACE, VISIBLE, person_box


def measure(frame: np.ndarray, layers: Mapping[str, np.ndarray], person: Detection | None) -> dict[str, float]:
    """Facts of a frame uint8 (h, w, 3) and its layers. height: of the person in pixels; face: points of it that are seen."""
    points = layers.get("keypoints")
    box = None if points is None else person_box(points, margin=0.0)
    if box is None:
        return {}
    return {"height": box[3] - box[1], "face": float((points[FACE][:, 2] >= VISIBLE).sum())}
