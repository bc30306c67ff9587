"""DWPose and the RTMPose family's other whole-body networks with SimCC answers: 133 points of a person.

Conventions: the person's box, a quarter larger, at the network's aspect, RGB normalised as ImageNet; for each point one row of
answers along x and one along y, two bins a pixel; a point's score is the mean of both maxima
(github.com/IDEA-Research/DWPose, github.com/open-mmlab/mmpose, Apache-2.0). Without a box such a network invents a person.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.onnx_network import OnnxNetwork
from meta_animator.data.keypoints import NUM_KEYPOINTS

SIZE = (384, 288)  # height, width
MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
MARGIN, BINS = 1.25, 2
AT_ONCE = 8


class DWPose(Annotator):
    """133 points, frame by frame."""

    name = "dwpose"
    gives = ("keypoints",)

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files of one network. Raises UserError where it is another network."""
        self.network = OnnxNetwork(next(iter(files.values())), device)
        self.size = self.network.picture_size(SIZE)
        if len(self.network.shapes) != 1 or len(self.network.outputs) != 2:
            raise self.network.fail("a whole-body pose network with SimCC answers, one picture in, x and y out")

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        answers: list[dict[str, np.ndarray]] = [{} for _ in frames]
        there = [k for k, person in enumerate(people) if person is not None]
        step = self.network.batch or AT_ONCE
        for start in range(0, len(there), step):
            group = there[start : start + step]
            regions = [region(people[k].box, self.size) for k in group]
            crops = [crop(frames[k], at, self.size) for k, at in zip(group, regions, strict=True)]
            for k, at, points in zip(group, regions, self._run(crops), strict=True):
                answers[k]["keypoints"] = place(points, at, self.size, frames[k].shape[:2])
        return answers

    def _run(self, crops: list[np.ndarray]) -> np.ndarray:
        """(n, 133, 3): x, y in pixels of the crop, score."""
        lacking = (self.network.batch or len(crops)) - len(crops)
        answers = self.network(np.stack(crops + crops[-1:] * lacking))
        x, y = (answers[name][: len(crops)] for name in self.network.outputs)
        if x.ndim != 3 or x.shape[1] != NUM_KEYPOINTS or y.shape[:2] != x.shape[:2]:
            raise self.network.fail(f"{NUM_KEYPOINTS} points (COCO-WholeBody)")
        return read_simcc(x, y)


def region(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(4,): centre x, y, width, height in pixels of the part of a picture that a network of `size` (h, w) is shown."""
    width, height = (MARGIN * side for side in box[2:] - box[:2])
    width, height = max(width, height * size[1] / size[0]), max(height, width * size[0] / size[1])
    return np.array([*(box[:2] + box[2:]) / 2, width, height], np.float64)


def crop(frame: np.ndarray, region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (3, h, w), as the network takes it; black outside the picture."""
    scale = region[2:] / size[::-1]
    back = np.array([[scale[0], 0, region[0] - region[2] / 2], [0, scale[1], region[1] - region[3] / 2]])
    pixels = cv2.warpAffine(frame, back, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return ((pixels.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)


def read_simcc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, points, 3): x, y in pixels of the crop and score, of answers (n, points, bins) along each axis."""
    places = np.stack([x.argmax(-1), y.argmax(-1)], -1).astype(np.float32) / BINS
    return np.concatenate([places, (x.max(-1) + y.max(-1))[..., None] / 2], -1)


def place(points: np.ndarray, region: np.ndarray, size: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
    """The layer `keypoints` (points, 3) of points in a crop; those outside the picture (h, w) are not seen."""
    placed = points.astype(np.float64)
    placed[:, :2] = points[:, :2] * (region[2:] / size[::-1]) + region[:2] - region[2:] / 2
    inside = ((placed[:, :2] >= -0.5) & (placed[:, :2] <= np.array(picture[::-1]) - 0.5)).all(1)
    placed[:, 2] = np.where(inside, np.clip(placed[:, 2], 0, 1), 0)
    return placed.astype(np.float32)
