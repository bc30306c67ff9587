"""From the points of pose, face mesh and hands to the 133 of COCO-WholeBody."""

import numpy as np

from meta_animator.annotators.blaze.face import NOSE, hidden_of_head
from meta_animator.annotators.blaze.hands import Hand
from meta_animator.annotators.blaze.pose import Pose
from meta_animator.data import keypoints as kp

BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FEET = {kp.LEFT_BIG_TOE: 31, kp.LEFT_HEEL: 29, kp.RIGHT_BIG_TOE: 32, kp.RIGHT_HEEL: 30}  # small toes have no counterpart
# The points of the mesh nearest to the 68: jaw, brows, nose, eyes, mouth, counted from image-left.
FACE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105, 66, 107, 336, 296, 334, 293,
    301, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269,
    291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
MESH_EYES = {kp.LEFT_EYE: (362, 263), kp.RIGHT_EYE: (33, 133)}  # their corners


def whole_body(pose: Pose, face: np.ndarray | None, hands: tuple[Hand | None, Hand | None], size: tuple[int, int]) -> np.ndarray:
    """float32 (133, 3) of a picture of `size` (h, w): x, y in pixels, score; 0 where hidden, unknown or outside.

    face    (468, 3), a mesh
    hands   the person's left and right
    """
    keypoints = np.zeros((kp.NUM_KEYPOINTS, 3))
    keypoints[kp.BODY] = pose.points[list(BODY)][:, [0, 1, 3]]
    for point, source in FEET.items():
        keypoints[point] = pose.points[source, [0, 1, 3]]
    keypoints[[BODY.index(point) for point in hidden_of_head(pose, face)], 2] = 0
    if face is not None:
        _add_face(keypoints, face)
    for place, hand in zip((kp.LEFT_HAND, kp.RIGHT_HAND), hands, strict=True):
        if hand is not None:
            keypoints[place, :2], keypoints[place, 2] = hand.points[:, :2], min(hand.presence, 1.0)
    height, width = size
    x, y = keypoints[:, 0], keypoints[:, 1]
    keypoints[(x < -0.5) | (y < -0.5) | (x >= width - 0.5) | (y >= height - 0.5), 2] = 0
    return keypoints.astype(np.float32)


def _add_face(keypoints: np.ndarray, face: np.ndarray) -> None:
    """The 68 points; nose and eyes too, which a mesh knows better than a pose."""
    keypoints[kp.FACE, :2], keypoints[kp.FACE, 2] = face[list(FACE), :2], 1.0
    keypoints[kp.NOSE, :2] = face[NOSE, :2]
    for eye, corners in MESH_EYES.items():
        keypoints[eye, :2] = face[list(corners), :2].mean(0)
