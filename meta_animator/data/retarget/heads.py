"""A face in three dimensions from its 68 drawn points, so that a face seen half from the side tells its shape, too.

Cameras are taken for far away (scaled orthography). Axes: x to the picture's right, y down, z towards the camera; the tip of the
nose lies at zero.
"""

import dataclasses

import numpy as np

from meta_animator.data import keypoints as kp

NOSE_TIP = kp.FACE_NOSE_TIP
# What neither expressions nor the mouth move much: the upper jaw line, the nose, the corners of the eyes.
RIGID = np.array([*range(0, 4), *range(13, 17), *range(27, 36), 36, 39, 42, 45])
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
LIPS = ((61, 67), (62, 66), (63, 65))
LOWER_LIP = [*range(55, 60), 65, 66, 67]
MIRRORED = np.array(kp.FLIP_ORDER[kp.FACE]) - kp.FACE.start

# About where the points lie on a grown-up's face, in millimetres from between the eyes; the image-left half and the middle.
_HALF = {
    0: (-70, 5, -95), 1: (-69, 24, -90), 2: (-67, 42, -84), 3: (-63, 58, -75), 4: (-56, 72, -62), 5: (-45, 83, -48),
    6: (-31, 91, -36), 7: (-16, 97, -28), 8: (0, 99, -25), 17: (-58, -14, -48), 18: (-50, -22, -38), 19: (-39, -25, -31),
    20: (-28, -23, -27), 21: (-17, -19, -25), 27: (0, -4, -22), 28: (0, 10, -15), 29: (0, 24, -7), 30: (0, 38, 0),
    31: (-16, 47, -22), 32: (-8, 50, -16), 33: (0, 52, -13), 36: (-46, 1, -42), 37: (-38, -4, -36), 38: (-29, -4, -34),
    39: (-19, 2, -35), 40: (-28, 5, -34), 41: (-38, 5, -36), 48: (-26, 69, -27), 49: (-17, 64, -19), 50: (-7, 61, -15),
    51: (0, 63, -14), 57: (0, 82, -16), 58: (-8, 81, -17), 59: (-17, 77, -21), 60: (-22, 69, -26), 61: (-8, 68, -18),
    62: (0, 68, -16), 66: (0, 70, -16), 67: (-8, 69, -18),
}  # fmt: skip
ROUNDS = 8  # of camera and shape in turns
STEADY = 0.03  # weight of the usual face beside all pictures together: what no picture shows stays as usual
STRAY = 3.0  # millimetres from which on a point counts less, so that blinks and words do not shape the face
FIT = 9.0  # millimetres, root mean square: above, no face like this is seen
TURNED = 0.25  # cosine of the head's turn, below which a face tells nothing
LEAST_POINTS, LEAST_RIGID = 60, 12
MOST = 300  # pictures that are looked at


def _usual() -> np.ndarray:
    """The usual face: float64 (68, 3)."""
    face = np.zeros((68, 3))
    for point, place in _HALF.items():
        face[point] = place
        face[MIRRORED[point]] = np.array(place) * [-1, 1, 1]
    return face - face[NOSE_TIP]


USUAL_FACE = _usual()


@dataclasses.dataclass(frozen=True)
class Head:
    """shape: a face at rest, its lips closed, (68, 3) in about millimetres; unit: pixels per millimetre at scale 1."""

    shape: np.ndarray
    unit: float

    @property
    def centre(self) -> np.ndarray:
        """(3,) between the ears, about which the head turns and nods."""
        return self.shape[[0, 16]].mean(0)

    @property
    def eyes(self) -> float:
        """Opening of the eyes in millimetres."""
        return float(np.mean([np.linalg.norm(self.shape[a] - self.shape[b]) for a, b in LIDS]))

    @property
    def mouth(self) -> float:
        """Width of the mouth in millimetres."""
        return float(np.linalg.norm(self.shape[48] - self.shape[54]))


def find_head(keypoints: np.ndarray, scales: np.ndarray, threshold: float = kp.VISIBLE) -> Head | None:
    """The head of the one person in pictures (n, 133, 3), each divided by its scale (n,); None where no picture shows a face."""
    seen = (keypoints[:, kp.FACE, 2] >= threshold).sum(1) >= LEAST_POINTS
    some = np.flatnonzero(seen & np.isfinite(scales))
    some = some[np.unique(np.linspace(0, len(some) - 1, min(MOST, len(some))).round().astype(int))] if len(some) else some
    faces, weight = keypoints[some][:, kp.FACE, :2].astype(np.float64), keypoints[some][:, kp.FACE, 2] >= threshold
    cameras, able = find_cameras(faces, weight, USUAL_FACE)
    _, errors = _left_over(faces, weight, cameras, USUAL_FACE)
    able &= (np.sqrt((errors[:, RIGID] ** 2).mean(1)) < FIT) & (facing(cameras) > TURNED)
    if not able.any():
        return None
    faces, weight, scales = faces[able], weight[able], scales[some][able]
    shape = USUAL_FACE
    for _ in range(ROUNDS):
        cameras, _ = find_cameras(faces, weight, shape)
        shape = _find_shape(faces, weight, cameras, shape)
    cameras, _ = find_cameras(faces, weight, shape)
    return Head(_closed(shape), float(np.median(_sizes(cameras) / scales)))


def find_centres(keypoints: np.ndarray, head: Head, threshold: float = kp.VISIBLE) -> tuple[np.ndarray, np.ndarray]:
    """(where a head's centre lies in pictures (n, 133, 3) that show it, (n, 2), NaN where they show no face; from there to the
    nose per millimetre, as cameras (n, 2, 3))."""
    seen = keypoints[:, kp.FACE, 2] >= threshold
    faces = keypoints[:, kp.FACE, :2].astype(np.float64)
    cameras, able = find_cameras(faces, seen, head.shape)
    able &= seen[:, NOSE_TIP] & (facing(cameras) > TURNED)
    centres = faces[:, NOSE_TIP] + cameras @ head.centre
    return np.where(able[:, None], centres, np.nan), cameras


def find_cameras(faces: np.ndarray, seen: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cameras (f, 2, 3), a turn times a scale, that bring a face's `shape` (68, 3) to faces (f, 68, 2), by the points that
    expressions do not move; whether enough of these are `seen` (f, 68) for one (f,))."""
    able = seen[:, RIGID].sum(1) >= LEAST_RIGID
    weight = np.where(able[:, None], seen[:, RIGID], 1.0)
    weight = weight / weight.sum(1, keepdims=True)
    here = faces[:, RIGID] - np.einsum("fk,fkc->fc", weight, faces[:, RIGID])[:, None]
    there = shape[RIGID] - np.einsum("fk,kc->fc", weight, shape[RIGID])[:, None]
    spread = np.einsum("fk,fki,fkj->fij", weight, there, there) + 1e-6 * np.eye(3)
    across = np.einsum("fk,fki,fkj->fij", weight, here, there)
    left, sizes, right = np.linalg.svd(across @ np.linalg.inv(spread), full_matrices=False)
    return (left @ right) * sizes.mean(1)[:, None, None], able


def facing(cameras: np.ndarray) -> np.ndarray:
    """(f,) cosine between where the faces look and the camera: 1 from the front, 0 from the side."""
    turns = cameras / np.maximum(_sizes(cameras), 1e-9)[:, None, None]
    return np.cross(turns[:, 0], turns[:, 1])[:, 2]


def _sizes(cameras: np.ndarray) -> np.ndarray:
    return np.linalg.norm(cameras, axis=(1, 2)) / np.sqrt(2)


def _left_over(
    faces: np.ndarray, seen: np.ndarray, cameras: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(faces (f, 68, 2) in millimetres around where the shape's zero falls, how far each point is off (f, 68))."""
    sizes = np.maximum(_sizes(cameras), 1e-9)[:, None, None]
    drawn = np.einsum("fij,kj->fki", cameras, shape)
    use = seen[:, RIGID, None]
    zero = ((faces - drawn)[:, RIGID] * use).sum(1) / np.maximum(use.sum(1), 1)
    flat = (faces - zero[:, None]) / sizes
    return flat, np.linalg.norm(flat - drawn / sizes, axis=-1) * seen


def _find_shape(faces: np.ndarray, seen: np.ndarray, cameras: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The symmetric shape (68, 3) that these cameras see best as `faces`, near the usual one where they do not tell."""
    flat, errors = _left_over(faces, seen, cameras, shape)
    turns = cameras / np.maximum(_sizes(cameras), 1e-9)[:, None, None]
    weight = seen / (1 + (errors / STRAY) ** 2)
    mirror = np.array([-1.0, 1.0, 1.0])
    normal = np.einsum("fk,fci,fcj->kij", weight, turns, turns)
    target = np.einsum("fk,fci,fkc->ki", weight, turns, flat)
    normal = normal + mirror[:, None] * normal[MIRRORED] * mirror
    target = target + mirror * target[MIRRORED]
    steady = STEADY * weight.sum(0)
    steady = (steady + steady[MIRRORED])[:, None, None] + 1e-6
    found = np.linalg.solve(normal + steady * np.eye(3), (target + steady[..., 0] * USUAL_FACE)[..., None])[..., 0]
    found -= found[NOSE_TIP]
    return found * np.linalg.norm(_centred(USUAL_FACE)) / np.linalg.norm(_centred(found))


def _centred(shape: np.ndarray) -> np.ndarray:
    return shape[RIGID] - shape[RIGID].mean(0)


def _closed(shape: np.ndarray) -> np.ndarray:
    """The face with its lower lip raised until the lips meet."""
    closed = shape.copy()
    closed[LOWER_LIP] -= np.mean([shape[lower] - shape[upper] for upper, lower in LIPS], axis=0)
    return closed
