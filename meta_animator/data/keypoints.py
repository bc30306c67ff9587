"""The 133 COCO-WholeBody points: their indices, and boxes and face points read off them.

"left" and "right" in names are the person's own sides; "image-left" is the side of the picture.
"""

import numpy as np

NUM_KEYPOINTS = 133
VISIBLE = 0.3  # scores below this count as not seen; the threshold of published DWPose drawings

NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR = range(5)
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST, RIGHT_WRIST = range(5, 11)
LEFT_HIP, RIGHT_HIP, LEFT_KNEE, RIGHT_KNEE, LEFT_ANKLE, RIGHT_ANKLE = range(11, 17)
LEFT_BIG_TOE, LEFT_SMALL_TOE, LEFT_HEEL, RIGHT_BIG_TOE, RIGHT_SMALL_TOE, RIGHT_HEEL = range(17, 23)
BODY, FEET, FACE = slice(0, 17), slice(17, 23), slice(23, 91)
LEFT_HAND, RIGHT_HAND = slice(91, 112), slice(112, 133)

# Within the 68 face points: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67; counted from image-left.
FACE_EYE_IMAGE_LEFT, FACE_EYE_IMAGE_RIGHT = slice(36, 42), slice(42, 48)
FACE_NOSE_TIP, FACE_MOUTH_IMAGE_LEFT, FACE_MOUTH_IMAGE_RIGHT = 30, 48, 54

# The 21 points of a hand: the wrist, then four points for each finger from the palm outwards, thumb first.
HAND_FINGERS = tuple(tuple(range(1 + 4 * finger, 5 + 4 * finger)) for finger in range(5))
HAND_BONES = tuple(bone for finger in HAND_FINGERS for bone in zip((0, *finger[:-1]), finger, strict=True))


def _flip_order() -> tuple[int, ...]:
    """For each point, the one that takes its place in a mirrored picture."""
    order = list(range(NUM_KEYPOINTS))
    for left in (*range(1, 17, 2),):
        order[left], order[left + 1] = left + 1, left
    for toe in range(17, 20):
        order[toe], order[toe + 3] = toe + 3, toe
    mirrored = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    mirrored += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    mirrored += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
    order[FACE] = [FACE.start + point for point in mirrored]
    order[LEFT_HAND], order[RIGHT_HAND] = order[RIGHT_HAND], order[LEFT_HAND]
    return tuple(order)


FLIP_ORDER = _flip_order()


def five_points(keypoints: np.ndarray, threshold: float = VISIBLE) -> np.ndarray | None:
    """Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner (ArcFace order).

    keypoints (133, 3): x, y, score. Returns float32 (5, 2) in pixels, or None where one of them is not seen or the
    points cannot be a face seen from the front (mirrored: estimates on the back of a head).
    """
    face = keypoints[FACE]
    eyes = [_mean_of_seen(face[eye], threshold, least=3) for eye in (FACE_EYE_IMAGE_LEFT, FACE_EYE_IMAGE_RIGHT)]
    rest = face[[FACE_NOSE_TIP, FACE_MOUTH_IMAGE_LEFT, FACE_MOUTH_IMAGE_RIGHT]]
    if any(eye is None for eye in eyes) or (rest[:, 2] < threshold).any():
        return None
    points = np.concatenate([np.stack(eyes), rest[:, :2]]).astype(np.float32)
    across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
    if across[0] * down[1] - across[1] * down[0] <= 0:
        return None
    return points


def face_box(
    keypoints: np.ndarray, threshold: float = VISIBLE, *, margin: float = 0.15
) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) around the seen face points with a share of `margin` on each side; None without a face.

    The 68 points end at the brows: above, the box is higher by 0.35 of its height to take in the forehead.
    """
    face = keypoints[FACE]
    seen = face[face[:, 2] >= threshold, :2]
    if len(seen) < 10:
        return None
    (x0, y0), (x1, y1) = seen.min(0), seen.max(0)
    width, height = x1 - x0, y1 - y0
    box = (x0 - margin * width, y0 - (0.35 + margin) * height, x1 + margin * width, y1 + margin * height)
    return tuple(float(value) for value in box)


def person_box(
    keypoints: np.ndarray, threshold: float = VISIBLE, *, margin: float = 0.05
) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) around all seen points with a share of `margin` on each side; None with fewer than 3 points."""
    seen = keypoints[keypoints[:, 2] >= threshold, :2]
    if len(seen) < 3:
        return None
    (x0, y0), (x1, y1) = seen.min(0), seen.max(0)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return float(x0 - dx), float(y0 - dy), float(x1 + dx), float(y1 + dy)


def sees_person(keypoints: np.ndarray, threshold: float = VISIBLE) -> np.ndarray:
    """Whether points (..., 133, 3) show a person, at least three of them: bool (...)."""
    return (keypoints[..., 2] >= threshold).sum(-1) >= 3


def flip_keypoints(keypoints: np.ndarray, width: int) -> np.ndarray:
    """The points (..., 133, 3) of the picture mirrored left to right, `width` pixels wide."""
    flipped = keypoints[..., list(FLIP_ORDER), :].copy()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


def _mean_of_seen(points: np.ndarray, threshold: float, least: int) -> np.ndarray | None:
    seen = points[points[:, 2] >= threshold, :2]
    return seen.mean(0) if len(seen) >= least else None
