"""The light detector: people in a picture, and, where they are small, in parts of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Detection, Detector
from meta_animator.annotators.blaze.boxes import BoxNetwork, Found
from meta_animator.annotators.blaze.mask import PERSON, person_pieces
from meta_animator.annotators.blaze.networks import Network, load_network
from meta_animator.annotators.blaze.pose import MARGIN, Pose, axis_of, holds, look_for
from meta_animator.annotators.blaze.regions import Region, upright, whole_picture

SIZE, STRIDES, POINTS = 224, (8, 16, 32, 32, 32), 4
LEAST, SURE = 0.3, 0.75  # of the detector's score; a pose must confirm it, and hold where the score is not sure
SMALL = 0.3  # of the picture's longer side: the detector misses half of those who are smaller
TILES = (2, 4)  # by how much smaller than the picture's longer side
LEAST_IN_TILE, LARGEST_IN_TILE = 0.5, 1.2  # score, and share of the tile's side: parts of large things look like people
NEAR = 0.3  # of the radius: so far from the points the mask counts for the box
SAME = 0.2  # of the radius: two poses whose points are on average this near are one person's


class BlazePeople(Detector):
    """BlazePose's detector, each of whose answers its pose network confirms, and tells the box of."""

    name = "blaze-people"

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files of pose_detection and pose_landmark_full; `device` is not used: the networks are made for a CPU."""
        self.network = BoxNetwork(load_network(files["pose_detection"]), SIZE, -1.0, STRIDES, POINTS)
        self.pose: Network = load_network(files["pose_landmark_full"])

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> list[Detection]:
        """In the whole picture; where only small people are found, or none, in parts of it too, ever smaller until one is."""
        longer = max(frame.shape[:2])
        people = self._find(frame, [whole_picture(frame)], [])
        for smaller in TILES:
            if people and (smaller > TILES[0] or max(2 * pose.radius for _, pose in people) >= SMALL * longer):
                break
            people = self._find(frame, tiles(frame.shape[:2], longer / smaller), people)
        people.sort(key=lambda found: -found[0])
        found = [(score, box_of(pose, frame.shape[:2]), axis_of(pose.region)) for score, pose in people]
        return [Detection(box=box, score=score, axis=axis) for score, box, axis in found if (box[2:] > box[:2]).all()]

    def _find(self, frame: np.ndarray, regions: Sequence[Region], people: list[tuple[float, Pose]]) -> list[tuple[float, Pose]]:
        """`people`, and those who are found in the regions (the whole picture, or tiles) and are not among them."""
        tiled = len(regions) > 1
        found = [answer for region in regions for answer in self.network.find(frame, region, LEAST_IN_TILE if tiled else LEAST)]
        people = list(people)
        for answer in sorted(found, key=lambda answer: -answer.score):
            if any(_among(answer, pose) for _, pose in people):
                continue
            pose = look_for(self.pose, frame, upright(answer.points[0], answer.points[1], MARGIN))
            if pose is None or any(_same(pose, other) for _, other in people):
                continue
            if tiled and 2 * pose.radius > LARGEST_IN_TILE * regions[0].width:
                continue
            if (answer.score >= SURE and not tiled) or holds(self.pose, frame, pose):
                people.append((answer.score, pose))
        return people


def tiles(size: tuple[int, int], side: float) -> list[Region]:
    """Squares that cover a picture of `size` (h, w) and overlap by about half."""
    rows, columns = (_middles(length, side) for length in size)
    return [Region(x, y, side, side) for y in rows for x in columns]


def _middles(length: int, side: float) -> list[float]:
    if length <= side:
        return [length / 2]
    count = 1 + round(np.ceil((length - side) / (side / 2)))
    return list(np.linspace(side / 2, length - side / 2, count))


def _among(answer: Found, pose: Pose) -> bool:
    """Whether the detector means somebody whose pose is known: the same circle."""
    hips, above = answer.points[:2]
    radius = float(np.hypot(*(above - hips)))
    near = float(np.hypot(*(hips - pose.axis[0]))) <= SAME * pose.radius
    return near and 0.75 <= radius / pose.radius <= 1.33


def _same(a: Pose, b: Pose) -> bool:
    apart = float(np.hypot(*(a.points - b.points)[:, :2].T).mean())
    return apart <= SAME * max(a.radius, b.radius)


def box_of(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """float (4,): the box in a picture of `size` (h, w) around the seen points and the mask (hair, shoes) near them."""
    points = pose.seen
    low, high = points.min(0), points.max(0)
    margin = NEAR * pose.radius
    rows, columns = np.nonzero(person_pieces(pose) > PERSON)
    if len(rows):
        cells = pose.region.place((np.stack([columns, rows], 1) + 0.5) / len(pose.mask))
        low = np.minimum(low, np.maximum(cells.min(0), low - margin))
        high = np.maximum(high, np.minimum(cells.max(0), high + margin))
    height, width = size
    return np.clip(np.concatenate([low, high + 1]), 0, [width, height, width, height])
