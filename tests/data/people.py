"""A made-up person for tests: standing, facing the camera, all 133 points seen."""

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.conditions import CONDITIONS
from meta_animator.data.layers import PARTS, Layers

# x, y of the body as shares of the picture's height, x from the middle, for 17 body and 6 foot points.
BODY = (
    (0, 0.15), (0.02, 0.135), (-0.02, 0.135), (0.04, 0.14), (-0.04, 0.14), (0.09, 0.25), (-0.09, 0.25),
    (0.14, 0.38), (-0.14, 0.38), (0.16, 0.50), (-0.16, 0.50), (0.06, 0.52), (-0.06, 0.52), (0.07, 0.70),
    (-0.07, 0.70), (0.07, 0.90), (-0.07, 0.90), (0.08, 0.94), (0.10, 0.93), (0.06, 0.92), (-0.08, 0.94),
    (-0.10, 0.93), (-0.06, 0.92),
)  # fmt: skip


def tasks_shown_by(*layers: str) -> list[str]:
    """The tasks that can be shown where these layers are, in their order."""
    return [task for task, condition in CONDITIONS.items() if {*layers}.issuperset(condition.needs)]


def standing_person(height: int, width: int) -> np.ndarray:
    """float32 (133, 3) keypoints, all with score 0.9."""
    points = np.zeros((kp.NUM_KEYPOINTS, 2))
    points[:23] = BODY
    points[kp.FACE] = _face()
    points[kp.LEFT_HAND] = points[kp.LEFT_WRIST] + _hand() * [1, 1]
    points[kp.RIGHT_HAND] = points[kp.RIGHT_WRIST] + _hand() * [-1, 1]
    pixels = points * height + [width / 2, 0]
    return np.concatenate([pixels, np.full((kp.NUM_KEYPOINTS, 1), 0.9)], axis=1).astype(np.float32)


def layers_of_person(height: int, width: int, seed: int = 0) -> Layers:
    """All six layers: a noisy scene, the person a box of slanted surface between head and feet."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(40, 200, (height, width, 3), dtype=np.uint8)
    points = standing_person(height, width)
    x0, y0, x1, y1 = (round(value) for value in kp.person_box(points))
    mask = np.zeros((height, width), bool)
    mask[max(0, y0) : y1, max(0, x0) : x1] = True
    frame[mask] = (200, 60, 40)
    rows = np.linspace(0.2, 0.9, height, dtype=np.float32)[:, None]
    normal = np.zeros((height, width, 3), np.float32)
    normal[mask] = np.array([0.6, 0, 0.8], np.float32)
    parts = np.zeros((height, width), np.uint8)
    parts[mask] = PARTS.index("torso")
    parts[mask & (np.arange(width) < width // 2)] = PARTS.index("right_upper_arm")
    return Layers(frame=frame, mask=mask, keypoints=points, depth=rows * mask, normal=normal, parts=parts)


def _face() -> np.ndarray:
    """68 points, mirror-symmetric about x = 0 under the usual mirrored order."""
    jaw = [(-0.04 * np.cos(a), 0.14 + 0.06 * np.sin(a)) for a in np.linspace(0, np.pi, 17)]
    brow = [(-0.03 + 0.006 * i, 0.12) for i in range(5)]
    brows = brow + [(-x, y) for x, y in brow[::-1]]
    nose = [(0, 0.13 + 0.007 * i) for i in range(4)] + [(0.005 * i, 0.16) for i in range(-2, 3)]
    eye = [(-0.026, 0.135), (-0.022, 0.131), (-0.018, 0.131), (-0.014, 0.135), (-0.018, 0.139), (-0.022, 0.139)]
    other = [(-x, y) for x, y in (eye[3], eye[2], eye[1], eye[0], eye[5], eye[4])]
    outer = [(0.006 * i, 0.175) for i in range(-3, 4)] + [(0.005 * i, 0.182) for i in (2, 1, 0, -1, -2)]
    inner = [(0.004 * i, 0.177) for i in range(-2, 3)] + [(0.004 * i, 0.179) for i in (1, 0, -1)]
    return np.array(jaw + brows + nose + eye + other + outer + inner)


def _hand() -> np.ndarray:
    """21 points of an open hand that hangs down, thumb towards +x."""
    points = np.zeros((21, 2))
    for finger, spread in enumerate((0.030, 0.015, 0.005, -0.005, -0.015)):
        for joint in range(4):
            reach = (0.012 + 0.010 * joint) if finger == 0 else (0.030 + 0.011 * joint)
            points[1 + 4 * finger + joint] = (spread * (0.6 + 0.2 * joint), reach)
    return points
