"""Hands: 21 points each, found from the wrist and fingers of a pose."""

import dataclasses
import math

import numpy as np

from meta_animator.annotators.blaze.networks import Network
from meta_animator.annotators.blaze.pose import Pose
from meta_animator.annotators.blaze.regions import Region, turn, upright

LEFT, RIGHT = (15, 17, 19), (16, 18, 20)  # of a pose's points: wrist, little finger, index finger
RECROP_SIZE, SIZE, POINTS = 256, 224, 21
REGION_SCALE, REGION_SHIFT = 2.7, -0.1
WRIST_SEEN = 0.1
LEAST = 0.5  # of the presence


@dataclasses.dataclass(frozen=True)
class HandNetworks:
    recrop: Network
    landmarks: Network


@dataclasses.dataclass(frozen=True)
class Hand:
    """points float (21, 3): x, y in pixels, depth; presence in [0, 1]."""

    points: np.ndarray
    presence: float


def find_hand(networks: HandNetworks, image: np.ndarray, pose: Pose, side: tuple[int, int, int]) -> Hand | None:
    """One hand; None where its wrist is hidden or no hand is seen."""
    wrist, little, index = (pose.points[k, :2] for k in side)
    if pose.points[side[0], 3] < WRIST_SEEN:
        return None
    middle = (2 * index + little) / 3
    length = 2 * float(np.hypot(*(middle - wrist)))
    region = Region(middle[0], middle[1], length, length, turn(wrist, middle, -math.pi / 2)).square(REGION_SCALE, REGION_SHIFT)
    output = networks.recrop(region.crop(image, RECROP_SIZE))[0]
    centre, end = region.place(output.reshape(-1)[:4].reshape(2, 2) / RECROP_SIZE)
    region = upright(centre, end, 1.0)
    region = Region(region.x, region.y, region.width, region.height, turn(centre, end, math.pi / 2)).square(1.0, REGION_SHIFT)
    raw, presence = networks.landmarks(region.crop(image, SIZE))[:2]
    presence = float(presence.reshape(-1)[0])
    if presence < LEAST:
        return None
    return Hand(region.place(raw.reshape(POINTS, 3).astype(np.float64) / SIZE), presence)
