"""Detections of a single-shot network: its anchors, its answers decoded, overlapping ones merged."""

import dataclasses

import cv2
import numpy as np

from meta_animator.annotators.blaze.networks import Network, sigmoid
from meta_animator.annotators.blaze.regions import Region
from meta_animator.annotators.overlap import overlaps

OVERLAP = 0.3  # IoU from which on two answers are of one thing


@dataclasses.dataclass(frozen=True)
class Found:
    """score in [0, 1]; box float (4,) = x0, y0, x1, y1; points float (n, 2). In a region's shares, or in pixels."""

    score: float
    box: np.ndarray
    points: np.ndarray


@dataclasses.dataclass(frozen=True)
class BoxNetwork:
    """A network with its crop's size, the lower end of its pixel values, its strides and how many points it gives."""

    network: Network
    size: int
    low: float
    strides: tuple[int, ...]
    num_points: int

    def find(self, image: np.ndarray, region: Region, threshold: float) -> list[Found]:
        """What is seen in a region of the picture, the most certain first, in pixels of the picture."""
        raw, logits = self.network(region.crop(image, self.size, low=self.low, border=cv2.BORDER_CONSTANT))
        scores = sigmoid(logits.reshape(-1))
        keep = scores >= threshold
        if not keep.any():
            return []
        values = raw.reshape(len(scores), -1)[keep] / self.size
        boxes, points = decode(values, make_anchors(self.size, self.strides)[keep], self.num_points)
        return [_place(found, region) for found in merge(scores[keep], boxes, points)]


def make_anchors(size: int, strides: tuple[int, ...]) -> np.ndarray:
    """Centres (n, 2) in [0, 1]: for each stride a grid of cells, two anchors a cell for each time it occurs in a row."""
    grids = []
    for stride in dict.fromkeys(strides):
        count = -(-size // stride)
        y, x = np.mgrid[:count, :count]
        centres = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / count
        grids.append(np.repeat(centres, 2 * strides.count(stride), 0))
    return np.concatenate(grids).astype(np.float32)


def decode(values: np.ndarray, anchors: np.ndarray, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and points (n, p, 2) from centre, size and points relative to the anchors, all shares of the crop."""
    centres, sizes = values[:, :2] + anchors, values[:, 2:4]
    points = values[:, 4 : 4 + 2 * num_points].reshape(len(values), num_points, 2) + anchors[:, None]
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1), points


def merge(scores: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> list[Found]:
    """Answers that overlap the best one become their mean, weighted by score, with its score; then those that are left."""
    found, rest = [], np.argsort(-scores, kind="stable")
    while len(rest):
        best = rest[0]
        same = overlaps(boxes[best], boxes[rest]) > OVERLAP
        same[0] = True
        group = rest[same]
        weights = scores[group] / scores[group].sum()
        box, mean = np.tensordot(weights, boxes[group], 1), np.tensordot(weights, points[group], 1)
        found.append(Found(float(scores[best]), box, mean))
        rest = rest[~same]
    return found


def _place(found: Found, region: Region) -> Found:
    corners = region.place(found.box.reshape(2, 2))
    return Found(found.score, corners.reshape(4), region.place(found.points))
