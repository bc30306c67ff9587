"""Where the fitted skeleton goes in each frame: on the reference's floor, its standing feet still, else by hips or neck."""

from typing import TYPE_CHECKING

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget.proportions import NECK, PELVIS, with_middles

if TYPE_CHECKING:
    from meta_animator.data.retarget.comparing import Factors

ANKLES = (kp.LEFT_ANKLE, kp.RIGHT_ANKLE)
NEAR_FLOOR = 0.04  # heights above the lower foot: half as likely to stand
SLOW = 0.4  # heights per second: half as likely to stand
SETTLE_S = 0.1  # seconds in which the weight goes over from one foot to the other
LEAST = 0.02  # weight of the hips beside that of standing feet
SHOWN = 0.5  # share of the frames that must show a part to be placed by


def place(
    points: np.ndarray, old: np.ndarray, new: np.ndarray, reference: np.ndarray, factors: "Factors", fps: float,
    threshold: float = kp.VISIBLE,
) -> np.ndarray:  # fmt: skip
    """The shift (f, 2) of each frame that puts the skeleton `new` (f, 135, 2), its neck at zero, where it belongs.

    The driver's way, `old`, is scaled by one factor, that of the legs where they are seen, so that strides fit. In height the
    lower foot goes that way, sideways the feet that stand; without feet, hips or neck. The way starts where the reference
    stands: on its floor if both show feet.
    """
    frames = np.isfinite(with_middles(points, threshold)).all(-1)
    feet = frames[:, ANKLES].any(1)
    legs = feet.mean() > 0
    scale = np.mean([factors.bones["thigh"], factors.bones["shin"]]) if legs else factors.bones["trunk"]
    trunk = PELVIS if frames[:, PELVIS].mean() >= SHOWN * frames[:, NECK].mean() > 0 or not frames[:, NECK].any() else NECK
    shift = scale * old[:, trunk] - new[:, trunk]
    if legs:
        stand = np.stack([_by_standing(points, old, new, scale, fps, threshold, shift[:, 0]), _by_lower(old, new, scale)], axis=1)
        shift += np.median((stand - shift)[feet], axis=0)
        sure = _around(feet.astype(np.float64), fps)[:, None] * feet[:, None]
        shift = sure * stand + (1 - sure) * shift
    return shift + _start(new + shift[:, None], frames, reference, threshold)


def _by_lower(old: np.ndarray, new: np.ndarray, scale: float) -> np.ndarray:
    """(f,) in height: the lower ankle goes the driver's lower ankle's way."""
    return scale * old[:, ANKLES, 1].max(1) - new[:, ANKLES, 1].max(1)


def _by_standing(
    points: np.ndarray, old: np.ndarray, new: np.ndarray, scale: float, fps: float, threshold: float, hips: np.ndarray
) -> np.ndarray:
    """(f,) sideways: feet that stand go the driver's way, on the average of both where both do; `hips` where none does."""
    ankles = old[:, ANKLES]
    height = scale_of(old)
    above = (ankles[..., 1].max(1, keepdims=True) - ankles[..., 1]) / (NEAR_FLOOR * height)
    speed = np.linalg.norm(np.gradient(ankles, axis=0), axis=-1) * fps / (SLOW * height) if len(old) > 1 else 0 * above
    weight = (points[:, ANKLES, 2] >= threshold) * np.exp(-np.log(2) * (above**2 + speed**2))
    weight = np.stack([_around(side, fps) for side in weight.T], axis=1)
    wanted = scale * ankles[..., 0] - new[:, ANKLES, 0]
    centred = hips + np.median((wanted * weight).sum(1) / np.maximum(weight.sum(1), 1e-9) - hips)
    return ((wanted * weight).sum(1) + LEAST * centred) / (weight.sum(1) + LEAST)


def scale_of(old: np.ndarray) -> float:
    """About the driver's height in pixels, from the longest legs and trunk."""
    leg = np.linalg.norm(old[:, kp.LEFT_HIP] - old[:, kp.LEFT_ANKLE], axis=1)
    trunk = np.linalg.norm(old[:, NECK] - old[:, PELVIS], axis=1)
    return max(1e-6, float(np.quantile(leg + trunk, 0.9)) / 0.76)


def _around(values: np.ndarray, fps: float) -> np.ndarray:
    """Values (f,) averaged over SETTLE_S to either side."""
    reach = round(SETTLE_S * fps)
    if reach < 1 or len(values) < 2:
        return values
    steps = np.arange(-reach, reach + 1)
    kernel = 1 - np.abs(steps) / (reach + 1)
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _start(placed: np.ndarray, frames: np.ndarray, reference: np.ndarray, threshold: float) -> np.ndarray:
    """The constant shift (2,) that brings the skeleton to the reference. Sideways by the hips, or the feet where these keep their
    place better; in height by the lower foot; without these by the neck, or whatever both show. Medians over the frames
    (f, 135) that show them."""
    theirs = with_middles(reference[None], threshold)[0]
    feet, ankles = frames[:, ANKLES].all(1), theirs[list(ANKLES)]
    shift, spread = None, np.inf
    for point in (PELVIS, NECK, kp.NOSE, kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER, kp.LEFT_HIP, kp.RIGHT_HIP):
        if frames[:, point].any() and np.isfinite(theirs[point]).all():
            own = placed[frames[:, point], point]
            shift, spread = theirs[point] - np.median(own, axis=0), own[:, 0].std()
            break
    if np.isfinite(ankles).all() and feet.mean() > SHOWN * frames.any(1).mean():
        own = placed[feet][:, ANKLES]
        between, lower = own[..., 0].mean(1), own[..., 1].max(1)
        sideways = ankles[:, 0].mean() - np.median(between) if between.std() < spread else shift[0]
        return np.array([sideways, ankles[:, 1].max() - np.median(lower)])
    if shift is not None:
        return shift
    shown = frames[:, :17].any(1)
    seen = np.where(frames[:, :17, None], placed[:, :17], np.nan)[shown]
    return np.nanmean(theirs[:17], axis=0) - np.nanmedian(np.nanmean(seen, axis=1), axis=0)
