"""The mask that comes with a pose, at its place in the picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from meta_animator.annotators.blaze.hands import Hand
from meta_animator.annotators.blaze.pose import Pose
from meta_animator.data.keypoints import HAND_BONES

PERSON = 0.5
FINGER_WIDTH = 0.18  # of the palm's length
FRACTION_BITS = 4  # OpenCV's fixed-point coordinates


def find_mask(pose: Pose, size: tuple[int, int], hands: Sequence[Hand | None] = ()) -> np.ndarray:
    """bool (h, w), True on the person: the pieces of the network's answer on which points of the person lie, and the fingers
    of the hands, whose tips it leaves out."""
    mask = (pose.region.paste(person_pieces(pose), size) > PERSON).astype(np.uint8)
    for hand in hands:
        if hand is not None:
            _add_fingers(mask, hand.points[:, :2])
    return mask.astype(bool)


def _add_fingers(mask: np.ndarray, points: np.ndarray) -> None:
    palm = float(np.hypot(*(points[[5, 9, 13, 17]] - points[0]).T).max())
    width = max(1, round(FINGER_WIDTH * palm))
    for start, end in HAND_BONES:
        ends = np.rint(points[[start, end]] * 2**FRACTION_BITS).astype(int).tolist()
        cv2.line(mask, ends[0], ends[1], 1, width, cv2.LINE_8, FRACTION_BITS)


def person_pieces(pose: Pose) -> np.ndarray:
    """The pose's mask (n, n) without the pieces that no seen point lies on: balls, furniture, somebody else's legs."""
    mask = pose.mask
    _, pieces = cv2.connectedComponents((mask > PERSON).astype(np.uint8))
    cells = (pose.region.shares(pose.seen) * len(mask)).astype(int)
    cells = cells[((cells >= 0) & (cells < len(mask))).all(1)]
    touched = np.zeros(pieces.max() + 1, bool)
    touched[pieces[cells[:, 1], cells[:, 0]]] = True
    touched[0] = True  # the border of each piece, from which pasting interpolates
    return mask * touched[pieces]
