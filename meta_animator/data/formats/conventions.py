"""Orders of keypoints that others use, as our 133 of COCO-WholeBody.

OpenPose counts from the nose over the neck and the person's right arm; its faces end with the two pupils.
"""

import numpy as np

from meta_animator.data.keypoints import BODY, FACE, FEET, LEFT_HAND, NUM_KEYPOINTS, RIGHT_HAND
from meta_animator.errors import UserError

# For each of the 17 points of the body (and 6 of the feet), where it stands in another order.
OPENPOSE_18 = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
BODY_25 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11, 19, 20, 21, 22, 23, 24)
HALPE_26 = (*range(17), 20, 22, 24, 21, 23, 25)
WHOLEBODY_134 = (*OPENPOSE_18, *range(18, 134))  # MMPose and rtmlib in OpenPose's style: a neck, the feet and all else after it
HALPE_136 = (*HALPE_26, *range(26, 136))
ORDERS = {
    17: tuple(range(17)), 26: HALPE_26, NUM_KEYPOINTS: tuple(range(NUM_KEYPOINTS)), 134: WHOLEBODY_134, 136: HALPE_136,
}  # fmt: skip
OPENPOSE_BODIES = {18: OPENPOSE_18, 25: BODY_25}
FACE_POINTS, HAND_POINTS = 68, 21


def wholebody(points: np.ndarray) -> np.ndarray:
    """float32 (133, 3) of a person's (n, 3) x, y, score in COCO's order (n = 17, 133), Halpe's (26, 136) or MMPose's in the style
    of OpenPose (134). Raises UserError for another number."""
    if len(points) not in ORDERS:
        raise UserError(f"{len(points)} keypoints of a person; expected {', '.join(map(str, ORDERS))}")
    order = ORDERS[len(points)]
    return _cleaned([(slice(0, len(order)), points[list(order)])])


def from_openpose(
    body: np.ndarray, face: np.ndarray | None = None, left_hand: np.ndarray | None = None, right_hand: np.ndarray | None = None
) -> np.ndarray:
    """float32 (133, 3) of OpenPose's points (n, 3): body 18 (COCO) or 25 (BODY_25), face 70 or 68, hands 21. Raises UserError
    for other numbers."""
    if len(body) not in OPENPOSE_BODIES:
        raise UserError(f"{len(body)} points of a body; expected OpenPose's 18 or 25")
    order = OPENPOSE_BODIES[len(body)]
    parts = [(slice(0, len(order)), body[list(order)])]
    if face is not None:
        if len(face) not in (FACE_POINTS, FACE_POINTS + 2):
            raise UserError(f"{len(face)} points of a face; expected 70 or 68")
        parts.append((FACE, face[:FACE_POINTS]))
    for place, hand in ((LEFT_HAND, left_hand), (RIGHT_HAND, right_hand)):
        if hand is not None:
            parts.append((place, _of_length(hand, HAND_POINTS, "a hand")))
    return _cleaned(parts)


def from_coco(
    body: np.ndarray, feet: np.ndarray | None = None, face: np.ndarray | None = None, left_hand: np.ndarray | None = None,
    right_hand: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """float32 (133, 3) of a COCO-WholeBody annotation's points (n, 3); labelled points, whether seen (2) or hidden (1), get the
    score 1. Raises UserError for other numbers of points."""
    if len(body) == NUM_KEYPOINTS:
        return wholebody(body)
    given = ((BODY, body, "a body"), (FEET, feet, "the feet"), (FACE, face, "a face"))
    given += ((LEFT_HAND, left_hand, "a hand"), (RIGHT_HAND, right_hand, "a hand"))
    known = [(place, part, name) for place, part, name in given if part is not None]
    return _cleaned([(place, _of_length(part, place.stop - place.start, name)) for place, part, name in known])


def _of_length(points: np.ndarray, length: int, name: str) -> np.ndarray:
    if len(points) != length:
        raise UserError(f"{len(points)} points of {name}; expected {length}")
    return points


def _cleaned(parts: list[tuple[slice, np.ndarray]]) -> np.ndarray:
    """All points put in their places; what is no number, or has no score above 0, is unknown: zeros."""
    points = np.zeros((NUM_KEYPOINTS, 3))
    for place, part in parts:
        points[place] = part
    points[~np.isfinite(points).all(1) | (points[:, 2] <= 0)] = 0
    points[:, 2] = points[:, 2].clip(0, 1)
    with np.errstate(over="ignore"):
        return np.nan_to_num(points.astype(np.float32), posinf=0, neginf=0)
