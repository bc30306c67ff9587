"""Bringing somebody else's motion to the size and place of the reference person.

One scale and one shift hold for the whole clip, so the motion itself stays as it is.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.errors import UserError

# Points whose spread tells a person's size; arms are left out, since they move most.
SHOULDERS, HIPS = (kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER), (kp.LEFT_HIP, kp.RIGHT_HIP)
FRAME_POINTS = [kp.NOSE, *SHOULDERS, *HIPS, kp.LEFT_KNEE, kp.RIGHT_KNEE, kp.LEFT_ANKLE, kp.RIGHT_ANKLE]
ALIKE = 0.1  # share of the driving frames, those most like the reference's pose, that sizes are compared in
TALL = 0.9  # quantile of the drawn heights: standing poses, but not a single outlier
DRAWN = 50  # brightness from which a pixel of a drawn pose counts


def fit_keypoints(driving: np.ndarray, reference: np.ndarray, threshold: float = kp.VISIBLE) -> np.ndarray:
    """The driving points (f, 133, 3), scaled and moved to the reference person (133, 3): float32 (f, 133, 3).

    Scale: from the frames in which the driver's pose is most like the reference's. Place: sideways by the hips'
    middle, in height by the lower ankle, so that the feet stand on the same floor; where those are not seen in both,
    by hips or neck. Medians over the frames that show a person. Scores stay. Raises UserError where the two have too little
    in common, or the reference shows nobody.
    """
    if not kp.sees_person(reference, threshold):
        raise UserError("the reference photo shows no person (all scores below 0.3); take another, or set sample.fit_pose=no")
    scale, shown = _scale(driving, reference, threshold), driving[kp.sees_person(driving, threshold)]
    shift = np.zeros(2)
    for axis, anchors in ((0, (_hips, _neck, _anything)), (1, (_floor, _hips, _neck, _anything))):
        for anchor in anchors:
            there, here = anchor(reference[None], threshold), anchor(shown, threshold)
            if np.isfinite(there).any() and np.isfinite(here).mean() > 0.5:
                shift[axis] = np.nanmedian(there, axis=0)[axis] - scale * np.nanmedian(here, axis=0)[axis]
                break
        else:
            raise UserError("the driving motion and the reference person have no body part in common to align")
    fitted = np.array(driving, np.float32)
    fitted[..., :2] = driving[..., :2] * scale + shift
    return fitted


def drawn_pose_fit(
    frames: Iterable[np.ndarray], reference_box: tuple[float, float, float, float]
) -> tuple[float, tuple[float, float]]:
    """The (scale, shift) for `warp_drawn` that bring drawn poses (h, w, 3) into the reference person's box; looks at one frame
    at a time.

    reference_box is (x0, y0, x1, y1) in the output picture, best taken with `drawn_box` from the reference's own drawn pose.
    The clip's tall poses get the box's height; its feet stand on the box's lower edge, its middle is the box's. Raises
    UserError where nothing is drawn.
    """
    found = np.array([box for box in map(drawn_box, frames) if box is not None])
    if len(found) == 0:
        raise UserError("the drawn pose video is black: no frame shows a pose")
    scale = (reference_box[3] - reference_box[1]) / np.quantile(found[:, 3] - found[:, 1], TALL)
    middle, bottom = np.median((found[:, 0] + found[:, 2]) / 2), np.median(found[:, 3])
    shift = ((reference_box[0] + reference_box[2]) / 2 - scale * middle, reference_box[3] - scale * bottom)
    return scale, shift


def drawn_box(image: np.ndarray) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) in pixel edges around what is drawn on black, uint8 (h, w, 3); None on a black picture."""
    drawn = image.max(axis=-1) >= DRAWN
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _scale(driving: np.ndarray, reference: np.ndarray, threshold: float) -> float:
    """Ratio of the spreads of the points that both show, in the driving frames whose pose is most like the reference's.

    Comparing like poses spares the guess how far limbs are turned out of the picture plane.
    """
    points, target = driving[:, FRAME_POINTS].astype(np.float64), reference[FRAME_POINTS].astype(np.float64)
    both = (points[..., 2] >= threshold) & (target[:, 2] >= threshold)
    enough = both.sum(1) >= max(2, 0.7 * both.sum(1).max(initial=0))
    if not enough.any():
        raise UserError("the driving motion and the reference person have too few body points in common")
    points, both = points[enough], both[enough]
    own, own_size = _centred(points[..., :2], both)
    other, other_size = _centred(np.broadcast_to(target[:, :2], points[..., :2].shape), both)
    if own_size.min() < 1e-3 or other_size.min() < 1e-3:
        raise UserError("the body points of the driving motion or the reference lie on one spot; check them")
    unlike = np.square(own / own_size[:, None, None] - other / other_size[:, None, None]).sum((1, 2))
    alike = np.argsort(unlike, kind="stable")[: max(1, round(ALIKE * len(unlike)))]
    return float(np.median(other_size[alike] / own_size[alike]))


def _centred(points: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (f, n, 2) less their mean over those of `use` (f, n), others 0; and their spread (f,)."""
    weight = use[..., None].astype(np.float64)
    centred = (points - (points * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)) * weight
    return centred, np.sqrt(np.square(centred).sum((1, 2)) / use.sum(1))


def _mean(points: np.ndarray, indices: tuple[int, ...], threshold: float) -> np.ndarray:
    """Mean (..., 2) of points (..., 133, 3); NaN where one of them is not seen."""
    chosen = points[..., list(indices), :].astype(np.float64)
    seen = (chosen[..., 2] >= threshold).all(-1)
    return np.where(seen[..., None], chosen[..., :2].mean(-2), np.nan)


def _hips(points: np.ndarray, threshold: float) -> np.ndarray:
    return _mean(points, HIPS, threshold)


def _neck(points: np.ndarray, threshold: float) -> np.ndarray:
    return _mean(points, SHOULDERS, threshold)


def _floor(points: np.ndarray, threshold: float) -> np.ndarray:
    """The lower ankle of each frame; NaN unless both are seen."""
    ankles = points[:, [kp.LEFT_ANKLE, kp.RIGHT_ANKLE]].astype(np.float64)
    lower = ankles[np.arange(len(ankles)), ankles[..., 1].argmax(1), :2]
    return np.where((ankles[..., 2] >= threshold).all(1)[:, None], lower, np.nan)


def _anything(points: np.ndarray, threshold: float) -> np.ndarray:
    """The middle of the body points that are seen."""
    body = points[:, kp.BODY].astype(np.float64)
    seen = body[..., 2] >= threshold
    total = (body[..., :2] * seen[..., None]).sum(1)
    count = seen.sum(1)[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def warp_drawn(frame: np.ndarray, scale: float, shift: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Scales about the corner, then shifts, both in pixel edges; shrinks by averaging, enlarges linearly."""
    height, width = frame.shape[:2]
    source = np.ascontiguousarray(frame)
    if scale < 1:
        smaller = (max(1, round(width * scale)), max(1, round(height * scale)))
        source = cv2.resize(source, smaller, interpolation=cv2.INTER_AREA)
    sx, sy = scale * width / source.shape[1], scale * height / source.shape[0]
    centres = np.array([[sx, 0, shift[0] + (sx - 1) / 2], [0, sy, shift[1] + (sy - 1) / 2]])
    return cv2.warpAffine(source, centres, size[::-1], flags=cv2.INTER_LINEAR)
