"""Tells drawn pose videos with red and blue swapped from right ones."""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

# Hues in degrees. Right order: shoulders red and brown, side by side; the blues are the neck and a lower leg.
# Swapped: the shoulders are the two blues, and the reds lie far apart. All other limbs look alike either way round.
RED, BROWN, BLUE, LIGHT_BLUE = (350, 10), (10, 30), (230, 250), (210, 230)
LIMB_VALUES = (100, 200)  # limbs are drawn at 0.6 of full brightness; joints, hands and face at full
BRIGHT = 210


def recognise_colour_order(frames: Sequence[np.ndarray]) -> Literal["rgb", "bgr"] | None:
    """Order of the channels in drawn pose frames, uint8 (h, w, 3), by where the shoulders' colours are.

    None where it cannot be told: no drawn pose, or never both shoulders in view. A dozen frames are enough.
    """
    votes = [_vote(frame) for frame in frames]
    rgb, bgr = sum(vote > 0 for vote in votes), sum(vote < 0 for vote in votes)
    if rgb > 2 * bgr:
        return "rgb"
    return "bgr" if bgr > 2 * rgb else None


def _vote(frame: np.ndarray) -> int:
    step = max(1, min(frame.shape[:2]) // 360)
    frame = frame[::step, ::step]
    hsv = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2HSV)
    limbs = (hsv[..., 1] > 180) & (hsv[..., 2] >= LIMB_VALUES[0]) & (hsv[..., 2] <= LIMB_VALUES[1])
    side = min(frame.shape[:2])
    limbs &= ~_grow(hsv[..., 2] > BRIGHT, max(1, side // 200))  # rims of joints have the limbs' brightness too
    red, blue = (
        _neighbours(hsv, limbs, *pair, reach=max(2, side // 25)) for pair in ((RED, BROWN), (BLUE, LIGHT_BLUE))
    )
    return int(red) - int(blue)


def _neighbours(hsv: np.ndarray, limbs: np.ndarray, a: tuple[int, int], b: tuple[int, int], *, reach: int) -> bool:
    """Whether enough limb pixels of both hues are there, and some of them lie within `reach` pixels of each other."""
    first, second = _of_hue(hsv, limbs, a), _of_hue(hsv, limbs, b)
    least = max(4, limbs.size // 10_000)
    if min(first.sum(), second.sum()) < least:
        return False
    return int((_grow(first, reach) & second).sum()) >= max(3, least // 4)


def _of_hue(hsv: np.ndarray, limbs: np.ndarray, hues: tuple[int, int]) -> np.ndarray:
    hue = hsv[..., 0].astype(np.int32) * 2  # OpenCV halves the degrees
    low, high = hues
    return limbs & ((hue >= low) & (hue < high) if low < high else (hue >= low) | (hue < high))


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
