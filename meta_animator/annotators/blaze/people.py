"""The light detector: people in a picture, and, where they are small, in parts of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Detection, Detector
from meta_animator.annotators.blaze.boxes import BoxNetwork, Found
from meta_animator.annotators.blaze.networks import load_network
from meta_animator.annotators.blaze.regions import whole_picture

SIZE, STRIDES, POINTS = 224, (8, 16, 32, 32, 32), 4
LEAST = 0.5
HALF_WIDTH = 0.45  # of a person, as a share of the circle's radius


class BlazePeople(Detector):
    """BlazePose's detector. It sees heads, and tells the circle around the whole person."""

    name = "blaze-people"

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files of pose_detection; `device` is not used: the network is made for a CPU."""
        self.network = BoxNetwork(load_network(files["pose_detection"]), SIZE, -1.0, STRIDES, POINTS)

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> list[Detection]:
        found = self.network.find(frame, whole_picture(frame), LEAST)
        return [detection_of_circle(person, frame.shape[:2]) for person in found]


def detection_of_circle(found: Found, size: tuple[int, int]) -> Detection:
    """A person of whom the middle of the hips and a point of the circle above are known, in a picture of `size` (h, w)."""
    hips, above = found.points[0], found.points[1]
    up = above - hips
    aside = HALF_WIDTH * np.array([-up[1], up[0]])
    corners = np.stack([hips + way * up + side * aside for way in (-1, 1) for side in (-1, 1)])
    box = np.concatenate([corners.min(0), corners.max(0)])
    height, width = size
    return Detection(box=np.clip(box, 0, [width, height, width, height]), score=found.score, axis=np.stack([hips, above]))
