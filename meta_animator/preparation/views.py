"""What a picture shows of a person, read off the keypoints: from which side, and whether the head is in it."""

from typing import Literal

import numpy as np

from meta_animator.data import keypoints as kp

View = Literal["front", "side", "back", ""]

TURNED = 0.3  # shoulders' width by the torso's length, below which somebody is seen from the side; 0.7 from the front
TORSO_BY_FACE = 2.3  # the torso's length, in heights of the face from brows to chin
PROFILE = 0.55  # how far the nose lies from the middle of the eyes, in distances between them, in a half profile
HEAD_BY_TORSO = 0.5  # how high a head reaches above the shoulders, in lengths of the torso
HEAD_BY_SHOULDERS = 0.7  # the same in widths of the shoulders, seen from the front or back
HEAD = slice(kp.BODY.start, kp.BODY.start + 5)
SIDES = ((kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER), (kp.LEFT_HIP, kp.RIGHT_HIP))


def view_of(keypoints: np.ndarray) -> View:
    """From which side the person of keypoints (133, 3) is seen; "" where too little is seen to tell."""
    widths = [width for pair in SIDES if (width := _across(keypoints, pair)) is not None]
    length = torso_length(keypoints)
    if not widths or length is None:
        halves = any((keypoints[pair, 2] >= kp.VISIBLE).sum() == 1 for pair in map(list, SIDES))
        return _view_of_face(keypoints) or ("side" if halves else "")
    turned = max(widths, key=abs) / length
    if abs(turned) >= TURNED:
        return "front" if turned > 0 else "back"
    return "side"


def torso_length(keypoints: np.ndarray) -> float | None:
    """Pixels from the shoulders to the hips, of half bodies estimated by the face; None where neither is seen."""
    shoulders, hips = (_middle(keypoints, pair) for pair in SIDES)
    if shoulders is not None and hips is not None:
        return max(float(np.hypot(*(shoulders - hips))), 1e-3)
    face = keypoints[kp.FACE]
    seen = face[face[:, 2] >= kp.VISIBLE, 1]
    return max(TORSO_BY_FACE * float(np.ptp(seen)), 1e-3) if len(seen) >= 10 else None


def shows_head(keypoints: np.ndarray, mask: np.ndarray | None, size: tuple[int, int]) -> bool:
    """Whether the head is in a picture of `size` (height, width): seen, or, from behind, where there is person or room above
    the shoulders."""
    seen = inside(keypoints, size)
    eyes = keypoints[[kp.LEFT_EYE, kp.RIGHT_EYE], :2]
    if ((eyes < -0.5) | (eyes >= [size[1] - 0.5, size[0] - 0.5])).any(1).all():
        return False
    if seen[HEAD].any():
        return True
    shoulders = _middle(keypoints, SIDES[0])
    if shoulders is None:
        return False
    reach = _head_reach(keypoints)
    if mask is not None and mask.any():
        above = mask[: max(0, round(shoulders[1]))]
        return bool(above.any()) and shoulders[1] - int(np.argmax(above.any(1))) >= 0.5 * reach
    return bool(shoulders[1] >= reach)


def inside(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (133,): which points are seen, and lie in the picture."""
    x, y, score = keypoints.T
    return (score >= kp.VISIBLE) & (x >= -0.5) & (y >= -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)


def _head_reach(keypoints: np.ndarray) -> float:
    length, across = torso_length(keypoints), _across(keypoints, SIDES[0])
    by_torso = 0.0 if length is None else HEAD_BY_TORSO * length
    return max(by_torso, 0.0 if across is None else HEAD_BY_SHOULDERS * abs(across), 1.0)


def _across(keypoints: np.ndarray, pair: tuple[int, int]) -> float | None:
    """How far the left one lies to the right of the right one, seen with the torso upright: positive from the front."""
    left, right = keypoints[pair[0]], keypoints[pair[1]]
    if min(left[2], right[2]) < kp.VISIBLE:
        return None
    shoulders, hips = (_middle(keypoints, both) for both in SIDES)
    up = np.array([0.0, -1.0]) if shoulders is None or hips is None else shoulders - hips
    up = up / max(float(np.hypot(*up)), 1e-6)
    return float((left - right)[:2] @ [-up[1], up[0]])


def _middle(keypoints: np.ndarray, pair: tuple[int, int]) -> np.ndarray | None:
    """The mean (2,) of those of two points that are seen."""
    seen = [keypoints[k, :2] for k in pair if keypoints[k, 2] >= kp.VISIBLE]
    return np.mean(seen, 0) if seen else None


def _view_of_face(keypoints: np.ndarray) -> View:
    five = kp.five_points(keypoints)
    if five is None:
        return ""
    eyes = five[1] - five[0]
    off = (five[2] - five[:2].mean(0)) @ eyes / max(float(eyes @ eyes), 1e-6)
    return "side" if abs(off) > PROFILE else "front"
