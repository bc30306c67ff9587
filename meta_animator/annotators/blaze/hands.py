"""Hands: 21 points each, found from the wrist and fingers of a pose."""

import dataclasses
import math

import numpy as np

from meta_animator.annotators.blaze.networks import Network
from meta_animator.annotators.blaze.pose import Pose
from meta_animator.annotators.blaze.regions import Region, turn

LEFT, RIGHT = (15, 17, 19), (16, 18, 20)  # of a pose's points: wrist, little finger, index finger
RECROP_SIZE, SIZE, POINTS = 256, 224, 21
REGION_SCALE, REGION_SHIFT = 2.7, -0.1
WRIST_SEEN = 0.1
LEAST = 0.5  # of the presence
# Shares of the pose's radius: how far a hand's wrist may be from the pose's, and how long a hand at least is.
WRIST_GAP, SHORTEST = 0.12, 0.04
SAME = 0.15  # of a hand's length: both hands' points on average this near are one hand, found twice


@dataclasses.dataclass(frozen=True)
class HandNetworks:
    recrop: Network
    landmarks: Network


@dataclasses.dataclass(frozen=True)
class Hand:
    """points float (21, 3): x, y in pixels, depth; presence in [0, 1]."""

    points: np.ndarray
    presence: float

    @property
    def length(self) -> float:
        """The diagonal of the box around it, in pixels."""
        return float(np.hypot(*np.ptp(self.points[:, :2], axis=0)))


def find_hands(networks: HandNetworks, image: np.ndarray, pose: Pose) -> tuple[Hand | None, Hand | None]:
    """The person's left and right hand; None for one that is hidden, or of which nothing can be told."""
    left, right = (find_hand(networks, image, pose, side) for side in (LEFT, RIGHT))
    if left is None or right is None:
        return left, right
    apart = float(np.hypot(*(left.points - right.points)[:, :2].T).mean())
    if apart > SAME * max(left.length, right.length):
        return left, right
    return (left, None) if _gap(left, pose, LEFT) < _gap(right, pose, RIGHT) else (None, right)


def find_hand(networks: HandNetworks, image: np.ndarray, pose: Pose, side: tuple[int, int, int]) -> Hand | None:
    """One hand; None where its wrist is hidden, no hand is seen, or what is seen cannot be this one."""
    wrist, little, index = (pose.points[k, :2] for k in side)
    if pose.points[side[0], 3] < WRIST_SEEN:
        return None
    middle = (2 * index + little) / 3
    length = 2 * float(np.hypot(*(middle - wrist)))
    angle = turn(wrist, middle, -math.pi / 2)
    region = Region(middle[0], middle[1], length, length, angle).square(REGION_SCALE, REGION_SHIFT)
    output = networks.recrop(region.crop(image, RECROP_SIZE))[0]
    centre, end = region.place(output.reshape(-1)[:4].reshape(2, 2) / RECROP_SIZE)
    side_length, angle = 2 * float(np.hypot(*(end - centre))), turn(centre, end, math.pi / 2)
    region = Region(centre[0], centre[1], side_length, side_length, angle).square(1.0, REGION_SHIFT)
    raw, presence = networks.landmarks(region.crop(image, SIZE))[:2]
    hand = Hand(region.place(raw.reshape(POINTS, 3).astype(np.float64) / SIZE), float(presence.reshape(-1)[0]))
    likely = hand.length >= SHORTEST * pose.radius and _gap(hand, pose, side) <= WRIST_GAP * pose.radius
    return hand if hand.presence >= LEAST and likely else None


def _gap(hand: Hand, pose: Pose, side: tuple[int, int, int]) -> float:
    return float(np.hypot(*(hand.points[0] - pose.points[side[0], :3])[:2]))
