"""BlazePose: 33 points of a body and the person's mask, from a square around the person."""

import dataclasses
import math

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.annotators.blaze.networks import Network, sigmoid
from meta_animator.annotators.blaze.regions import Region, turn, upright

SIZE, POINTS, ALL_POINTS = 256, 33, 39  # the first two after the body's points are its axis
MARGIN = 1.25  # of the region around the circle that holds the person
PRESENT, SEEN = 0.5, 0.3
SAME_SHIFT, SAME_SCALE, SAME_TURN = 0.1, 1.25, math.radians(15)  # of regions between which the answers hardly differ
HEATMAP_KERNEL, HEATMAP_LEAST = 7, 0.5
# A pose holds with this presence, by medians of the points' distances as shares of the radius, and this far from upright.
CERTAIN, AGAIN, IN_MIRROR, LEAN = 0.9, 0.05, 0.08, math.radians(60)

NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR = 0, 2, 5, 7, 8
HEAD = slice(0, 11)
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(k + 1 if k % 2 else k - 1 for k in range(11, POINTS)))  # left is right


@dataclasses.dataclass(frozen=True)
class Pose:
    """points    float (33, 4): x, y in pixels, depth in the same unit (from the hips, less is nearer), visibility in [0, 1]
    presence  how certainly somebody is there, in [0, 1]
    mask      float32 (256, 256) in [0, 1], of the region
    region    where it was looked for
    axis      float (2, 2), as in `Detection`: where the answer says that the person is
    """

    points: np.ndarray
    presence: float
    mask: np.ndarray
    region: Region
    axis: np.ndarray

    @property
    def radius(self) -> float:
        """Of the circle about the hips that holds the whole person, in pixels: about half the height of somebody who stands."""
        return float(np.hypot(*(self.axis[1] - self.axis[0])))

    @property
    def shows_person(self) -> bool:
        return self.presence >= PRESENT and len(self.seen) >= 3

    @property
    def seen(self) -> np.ndarray:
        """The points (n, 2) that are not hidden; those outside of the picture may be among them."""
        return self.points[self.points[:, 3] >= SEEN, :2]


def look_for(network: Network, image: np.ndarray, region: Region) -> Pose | None:
    """The pose of the person in a region of uint8 (h, w, 3); None where nobody is there.

    It is looked at again where the answer says that the person is elsewhere, or of another size; the more certain answer is
    taken.
    """
    first = find_pose(network, image, region)
    better = upright(first.axis[0], first.axis[1], MARGIN)
    if not first.shows_person or _alike(region, better):
        return first if first.shows_person else None
    second = find_pose(network, image, better)
    if not second.shows_person:
        return None
    return first if first.presence > second.presence else second


def holds(network: Network, image: np.ndarray, pose: Pose) -> bool:
    """Whether it is somebody upright whose pose looks the same from a region that fits better, and in a mirror.

    Hands, cups and animals are taken for people too, but for another one with each look.
    """
    up = pose.axis[1] - pose.axis[0]
    if abs(turn(np.zeros(2), up, -math.pi / 2)) > LEAN:
        return False
    again = find_pose(network, image, upright(pose.axis[0], pose.axis[1], MARGIN))
    last = image.shape[1] - 1
    region = dataclasses.replace(pose.region, x=last - pose.region.x, angle=-pose.region.angle)
    mirrored = find_pose(network, np.ascontiguousarray(image[:, ::-1]), region)
    points = mirrored.points[list(MIRRORED)]
    points[:, 0] = last - points[:, 0]
    certain = min(pose.presence, again.presence, mirrored.presence) >= CERTAIN
    return certain and _apart(again.points, pose) <= AGAIN and _apart(points, pose) <= IN_MIRROR


def _apart(points: np.ndarray, pose: Pose) -> float:
    return float(np.median(np.hypot(*(points - pose.points)[:, :2].T))) / pose.radius


def _alike(a: Region, b: Region) -> bool:
    shift = math.hypot(a.x - b.x, a.y - b.y) / a.width
    turned = abs((a.angle - b.angle + math.pi) % (2 * math.pi) - math.pi)
    return shift <= SAME_SHIFT and 1 / SAME_SCALE <= a.width / b.width <= SAME_SCALE and turned <= SAME_TURN


def region_of(person: Detection) -> Region:
    """Where to look for the pose of a detected person."""
    if person.axis is not None:
        return upright(person.axis[0], person.axis[1], MARGIN)
    x0, y0, x1, y1 = (float(value) for value in person.box)
    side = MARGIN * max(x1 - x0, y1 - y0)
    return Region((x0 + x1) / 2, (y0 + y1) / 2, side, side)


def axis_of(region: Region) -> np.ndarray:
    """The axis of a detection whose pose is looked for in this region."""
    radius = region.width / (2 * MARGIN)
    up = radius * np.array([math.sin(region.angle), -math.cos(region.angle)])
    return np.array([[region.x, region.y], [region.x + up[0], region.y + up[1]]])


def find_pose(network: Network, image: np.ndarray, region: Region) -> Pose:
    """The pose of the person in a region of uint8 (h, w, 3)."""
    outputs = network(region.crop(image, SIZE))
    raw, presence, mask, heatmaps = outputs[:4]
    points = raw.reshape(ALL_POINTS, 5)[:, :4].astype(np.float64)
    points[:, :3] /= SIZE
    points[:, 3] = sigmoid(points[:, 3])
    points[:, :2] = refine(points[:, :2], sigmoid(heatmaps[0]))
    placed = region.place(points)
    axis = placed[POINTS : POINTS + 2, :2]
    return Pose(placed[:POINTS], float(presence.reshape(-1)[0]), sigmoid(mask[0, ..., 0]), region, axis)


def refine(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Points (n, 2) as shares, moved to the mean of their heatmap (h, w, n) in [0, 1] around them, where that is sure."""
    height, width, count = heatmaps.shape
    reach = (HEATMAP_KERNEL - 1) // 2
    refined = points.copy()
    columns, rows = (points * [width, height]).astype(int).T
    for k in range(count):
        column, row = columns[k], rows[k]
        if not (0 <= column < width and 0 <= row < height):
            continue
        top, left = max(0, row - reach), max(0, column - reach)
        patch = heatmaps[top : row + reach + 1, left : column + reach + 1, k]
        if patch.max() >= HEATMAP_LEAST:
            y, x = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]]
            refined[k] = (patch * x).sum() / patch.sum() / width, (patch * y).sum() / patch.sum() / height
    return refined
