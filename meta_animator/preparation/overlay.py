"""A frame with what is known of it drawn over: the person as it is, all else darkened, the skeleton on top."""

import cv2
import numpy as np

from meta_animator.data.conditions.pose import draw_dwpose
from meta_animator.data.keypoints import FACE, LEFT_HAND, RIGHT_HAND, VISIBLE
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import Box, crop_and_resize

DARKER = 0.4  # brightness of what the mask leaves out
OUTLINE = (255, 255, 255)
CUT = (255, 200, 40)  # the box that frames are cut to
LEAST_FACE, LEAST_HAND = 40, 16  # pixels of a face and a hand whose points are drawn
POSE = 0.85  # how much of the skeleton's colour covers the picture


def overlay(
    frame: np.ndarray, keypoints: np.ndarray | None = None, mask: np.ndarray | None = None, *, side: int = 0,
    box: Box | None = None,
) -> np.ndarray:  # fmt: skip
    """uint8 (h, w, 3) RGB with keypoints (133, 3) and mask bool (h, w) over it, where they are known.

    side  pixels of the longer side that it is scaled down to; 0: as it is
    box   what frames are cut to, drawn as a frame
    """
    layers = Layers(frame=frame, keypoints=keypoints, mask=mask)
    height, width = layers.size
    scale = min(1.0, side / max(height, width)) if side else 1.0
    small = crop_and_resize(layers, (0, 0, width, height), (max(1, round(height * scale)), max(1, round(width * scale))))
    picture = small.frame.copy()
    if small.mask is not None:
        picture[~small.mask] = (DARKER * picture[~small.mask]).astype(np.uint8)
        contours, _ = cv2.findContours(small.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, OUTLINE, 1)
    if small.keypoints is not None:
        drawn = draw_dwpose(Layers(frame=small.frame, keypoints=_legible(small.keypoints)))
        there = drawn.max(-1) > 0
        picture[there] = (POSE * drawn[there] + (1 - POSE) * picture[there]).astype(np.uint8)
    if box is not None:
        x0, y0, x1, y1 = (round(value * scale) for value in box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), CUT, 1)
    return picture


def _legible(keypoints: np.ndarray) -> np.ndarray:
    """Without faces and hands whose points would cover them."""
    points = keypoints.copy()
    for part, least in ((FACE, LEAST_FACE), (LEFT_HAND, LEAST_HAND), (RIGHT_HAND, LEAST_HAND)):
        seen = points[part][points[part][:, 2] >= VISIBLE, :2]
        if len(seen) and np.ptp(seen, axis=0).max() < least:
            points[part, 2] = 0
    return points
