"""The reference's face with the driver's expressions: only what differs from the driver's own face at rest is carried over."""

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget.heads import NOSE_TIP, Head, find_cameras

EYES, MOUTH = slice(36, 48), slice(48, 68)
GAIN = 0.4, 2.5  # by how much eyes or mouth may move less or more than the face's size tells


def carry_face(
    points: np.ndarray, fitted: np.ndarray, own: Head | None, theirs: Head | None, factor: float, threshold: float = kp.VISIBLE
) -> None:
    """Set the face points and eyes of `fitted` (f, 133, 3), whose noses are in place, to those of `points`: turned, nodded and
    moved as these are, but in the shape of the head `theirs`. Where either head is unknown: multiplied by `factor`."""
    faces, nose = points[:, kp.FACE].astype(np.float64), fitted[:, kp.NOSE, :2].astype(np.float64)
    seen = faces[..., 2] >= threshold
    known, tips = points[:, kp.NOSE, 2] >= threshold, seen[:, NOSE_TIP]
    base = np.where(tips[:, None], faces[:, NOSE_TIP, :2], points[:, kp.NOSE, :2])
    anchor = nose + factor * np.where((known & tips)[:, None], base - points[:, kp.NOSE, :2], 0)
    off = faces[..., :2] - base[:, None]
    moved = anchor[:, None] + factor * off
    if own is not None and theirs is not None:
        cameras, able = find_cameras(faces[..., :2], seen, own.shape)
        rest = np.einsum("fij,kj->fki", cameras, own.shape)
        new = np.einsum("fij,kj->fki", cameras, theirs.shape) * (theirs.unit / own.unit)
        moved = np.where((able & tips)[:, None, None], anchor[:, None] + new + _gains(own, theirs)[:, None] * (off - rest), moved)
    fitted[:, kp.FACE, :2] = moved
    for eye, lids in ((kp.LEFT_EYE, kp.FACE_EYE_IMAGE_RIGHT), (kp.RIGHT_EYE, kp.FACE_EYE_IMAGE_LEFT)):
        whole = seen[:, lids].all(1)[:, None]
        aside = factor * (points[:, eye, :2] - faces[:, lids, :2].mean(1))
        fitted[:, eye, :2] = np.where(whole, moved[:, lids].mean(1) + aside, fitted[:, eye, :2])


def _gains(own: Head, theirs: Head) -> np.ndarray:
    """By how much each of the 68 points moves more on `theirs` than on `own` face: by their size, lids by the eyes' opening and
    lips by the mouth's width."""
    gains = np.ones(68)
    gains[EYES] = np.clip(theirs.eyes / max(own.eyes, 1e-9), *GAIN)
    gains[MOUTH] = np.clip(theirs.mouth / max(own.mouth, 1e-9), *GAIN)
    return gains * theirs.unit / own.unit
