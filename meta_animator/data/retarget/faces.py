"""The reference's face with the driver's expressions: only what differs from the driver's own face at rest is carried over."""

import dataclasses

import numpy as np

from meta_animator.data import keypoints as kp

NOSE_TIP, BRIDGE = kp.FACE_NOSE_TIP, 27
EYES = slice(36, 48)
MOUTH = slice(48, 68)
# What neither expressions nor the mouth move much: the upper jaw line, the nose, the corners of the eyes.
RIGID = np.array([*range(0, 4), *range(13, 17), *range(27, 36), 36, 39, 42, 45])
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
LIPS = ((61, 67), (62, 66), (63, 65))
LOWER_LIP = [*range(55, 60), 65, 66, 67]
FRONTAL, SIDEWAYS = 0.2, 0.5  # asymmetry of the nose between both cheeks up to which a face is frontal; and of no use
LEAST_POINTS = 60  # of the 68, for a face to tell a shape
LEAST_RIGID = 8
GAIN = 0.4, 2.5  # by how much eyes or mouth may move less or more than the face's size tells


@dataclasses.dataclass(frozen=True)
class NeutralFace:
    """A face from the front, upright, at rest: (68, 2) in pixels, the tip of the nose at zero."""

    shape: np.ndarray

    @property
    def size(self) -> float:
        """Spread of the points that expressions do not move."""
        return float(np.sqrt(np.square(self.shape[RIGID] - self.shape[RIGID].mean(0)).sum(1).mean()))

    @property
    def eyes(self) -> float:
        return float(np.mean([np.linalg.norm(self.shape[a] - self.shape[b]) for a, b in LIDS]))

    @property
    def mouth(self) -> float:
        return float(np.linalg.norm(self.shape[48] - self.shape[54]))


def neutral_face(keypoints: np.ndarray, scales: np.ndarray, threshold: float = kp.VISIBLE) -> NeutralFace | None:
    """The face at rest in pictures (n, 133, 3) of one person, each divided by its scale (n,): the median of the most frontal
    ones, made symmetric, its lips closed. None where no picture shows a face nearly from the front."""
    faces = keypoints[:, kp.FACE].astype(np.float64)
    turned = np.array([_asymmetry(face, threshold) for face in faces])
    turned[~np.isfinite(scales)] = np.inf
    most = max(FRONTAL, float(turned.min(initial=np.inf)))
    if most > SIDEWAYS:
        return None
    shapes = [_upright(face[:, :2]) / scale for face, scale in zip(faces[turned <= most], scales[turned <= most], strict=True)]
    shape = np.median(shapes, axis=0)
    mirrored = shape[np.array(kp.FLIP_ORDER[kp.FACE]) - kp.FACE.start] * [-1, 1]
    return NeutralFace(_closed((shape + mirrored) / 2))


def carry_face(
    points: np.ndarray, fitted: np.ndarray, own: NeutralFace | None, theirs: NeutralFace | None, head: float,
    threshold: float = kp.VISIBLE,
) -> None:  # fmt: skip
    """Set the face points and eyes of `fitted` (f, 133, 3), whose noses are in place, to those of `points`: turned, nodded and
    moved as these are, but in the shape of the face `theirs`. Where either face is unknown: scaled by `head`."""
    faces, nose = points[:, kp.FACE].astype(np.float64), fitted[:, kp.NOSE, :2].astype(np.float64)
    tip_off = faces[:, NOSE_TIP, :2] - points[:, kp.NOSE, :2]
    known = points[:, kp.NOSE, 2] >= threshold
    tips = faces[:, NOSE_TIP, 2] >= threshold
    anchor = nose + head * np.where((known & tips)[:, None], tip_off, 0)
    base = np.where(tips[:, None], faces[:, NOSE_TIP, :2], points[:, kp.NOSE, :2])
    moved = anchor[:, None] + head * (faces[..., :2] - base[:, None])
    if own is not None and theirs is not None:
        turns, able = _turns(faces, own.shape, threshold)
        rest = np.einsum("fij,kj->fki", turns, own.shape)
        off = faces[..., :2] - base[:, None] - rest
        shown = np.einsum("fij,kj->fki", turns, theirs.shape) + _gains(own, theirs)[:, None] * off
        moved = np.where(able[:, None, None], anchor[:, None] + shown, moved)
    fitted[:, kp.FACE, :2] = moved
    for eye, lids in ((kp.LEFT_EYE, kp.FACE_EYE_IMAGE_RIGHT), (kp.RIGHT_EYE, kp.FACE_EYE_IMAGE_LEFT)):
        seen = (faces[:, lids, 2] >= threshold).all(1)[:, None]
        aside = head * (points[:, eye, :2] - faces[:, lids, :2].mean(1))
        fitted[:, eye, :2] = np.where(seen, moved[:, lids].mean(1) + aside, fitted[:, eye, :2])


def _asymmetry(face: np.ndarray, threshold: float) -> float:
    """How far the nose lies from the middle of the cheeks, as a share of their half distance; inf where no face is seen, or
    one that cannot be a face from the front."""
    if (face[:, 2] >= threshold).sum() < LEAST_POINTS:
        return np.inf
    shape = _upright(face[:, :2])
    left, right = shape[NOSE_TIP, 0] - shape[[0, 1, 2], 0].mean(), shape[[14, 15, 16], 0].mean() - shape[NOSE_TIP, 0]
    if min(left, right) <= 0 or shape[MOUTH, 1].mean() < shape[BRIDGE, 1]:
        return np.inf
    return abs(left - right) / (left + right)


def _upright(shape: np.ndarray) -> np.ndarray:
    """A face (68, 2) turned so that its eyes are level, the tip of the nose at zero."""
    x, y = shape[42:48].mean(0) - shape[36:42].mean(0)
    length = max(float(np.hypot(x, y)), 1e-9)
    turn = np.array([[x, y], [-y, x]]) / length
    return (shape - shape[NOSE_TIP]) @ turn.T


def _closed(shape: np.ndarray) -> np.ndarray:
    """The face with its lower lip raised until the lips meet."""
    closed = shape.copy()
    gap = np.mean([shape[lower] - shape[upper] for upper, lower in LIPS], axis=0)
    closed[LOWER_LIP] -= gap
    return closed


def _turns(faces: np.ndarray, shape: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(linear maps (f, 2, 2) from the face at rest to each frame's, by the points that expressions do not move; whether enough of
    these are seen (f,)). A turned head is squeezed, a tilted one rotated."""
    seen = (faces[:, RIGID, 2] >= threshold).astype(np.float64)
    able = (seen.sum(1) >= LEAST_RIGID) & (faces[:, NOSE_TIP, 2] >= threshold)
    weight = np.where(able[:, None], seen, 1.0)
    weight /= weight.sum(1, keepdims=True)
    rest = shape[RIGID] - np.einsum("fk,kc->fc", weight, shape[RIGID])[:, None]
    now = faces[:, RIGID, :2] - np.einsum("fk,fkc->fc", weight, faces[:, RIGID, :2])[:, None]
    spread = np.einsum("fk,fki,fkj->fij", weight, rest, rest)
    across = np.einsum("fk,fki,fkj->fij", weight, now, rest)
    floor = 1e-6 * np.trace(spread, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-12 * np.eye(2)
    return across @ np.linalg.inv(spread + floor), able


def _gains(own: NeutralFace, theirs: NeutralFace) -> np.ndarray:
    """By how much each of the 68 points moves more on `theirs` than on `own` face: by their size, lids by the eyes' opening and
    lips by the mouth's width."""
    size = theirs.size / max(own.size, 1e-9)
    gains = np.full(68, size)
    gains[EYES] = size * np.clip(theirs.eyes / max(own.eyes, 1e-9) / size, *GAIN)
    gains[MOUTH] = size * np.clip(theirs.mouth / max(own.mouth, 1e-9) / size, *GAIN)
    return gains
