"""The mask that comes with a pose, at its place in the picture."""

import cv2
import numpy as np

from meta_animator.annotators.blaze.pose import Pose

PERSON = 0.5


def find_mask(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """bool (h, w), True on the person: the pieces of the network's answer on which points of the person lie."""
    return pose.region.paste(person_pieces(pose), size) > PERSON


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
