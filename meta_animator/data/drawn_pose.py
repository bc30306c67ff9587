"""Tells videos of drawn poses from films, and from poses on another ground than black."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from meta_animator.data.clips import Clip
from meta_animator.errors import UserError

TASKS = ("dwpose", "pose_hamer")  # the Meta-Tasks whose drawings are skeletons on black
LOOKS = 12  # frames of a clip that are looked at
DARK, BRIGHT = 30, 50  # the ground is darker than the one, strokes are brighter than the other
FEW = 20  # drawn pixels below which a frame counts as empty
LEAST_BLACK = 0.75  # share of a drawn pose's frame; on real ones it is 0.94 and more
LEAST_COLOURED, LEAST_SATURATED = 0.7, 0.15  # share of the strokes' pixels that are saturated or white, and saturated
MOST_SOLID = 0.25  # share of the drawn pixels further inside than any stroke is thick
INSTEAD = "make a data set of the film with scripts/prepare_data.py, or give its keypoints as .npz, or its poses drawn on black"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Of one frame: shares of black pixels, and of the drawn ones those in strokes' colours, saturated, and deep inside."""

    black: float
    coloured: float
    saturated: float
    solid: float
    ground: tuple[int, int, int] | None  # the colour that most of the frame has, if one has and it is not black


def check_drawn_pose(clip: Clip, task: str, where: str) -> None:
    """Raises UserError, beginning with `where`, for a clip whose drawings of `task` are no skeletons on black."""
    count = min(LOOKS, clip.num_frames)
    some = sorted({round(k) for k in np.linspace(0, clip.num_frames - 1, count)})
    if (fault := find_fault([clip.load_condition(task, k) for k in some], strokes=task == "dwpose")) is not None:
        raise UserError(f"{where}: {fault}")


def find_fault(frames: Sequence[np.ndarray], strokes: bool = True) -> str | None:
    """What speaks against frames uint8 (h, w, 3) being skeletons drawn on black; None where nothing does, or all are black.

    strokes   False: hands may be solid and grey
    """
    drawings = [drawing for drawing in map(measure, frames) if drawing is not None]
    if not drawings:
        return None
    names = ("black", "coloured", "saturated", "solid")
    black, coloured, saturated, solid = (float(np.median([getattr(d, name) for d in drawings])) for name in names)
    if black < LEAST_BLACK:
        grounds = [drawing.ground for drawing in drawings if drawing.ground is not None]
        if len(grounds) > len(drawings) / 2:
            colour = ", ".join(f"{value:.0f}" for value in np.median(np.array(grounds), axis=0))
            return f"these are drawn on a ground that is not black (RGB {colour}); poses are read from skeletons on black"
        return f"this looks like a film, not like drawn poses ({black:.0%} of its pixels are black); {INSTEAD}"
    if strokes and (coloured < LEAST_COLOURED or saturated < LEAST_SATURATED or solid > MOST_SOLID):
        return f"what it shows on black are not the coloured strokes of a drawn pose; {INSTEAD}"
    return None


def measure(frame: np.ndarray) -> Drawing | None:
    """None for a frame that is as good as black."""
    step = max(1, min(frame.shape[:2]) // 360)
    frame = np.ascontiguousarray(frame[::step, ::step])
    brightest, drawn = frame.max(-1), frame.max(-1) >= BRIGHT
    if drawn.sum() < FEW:
        return None
    saturated = (cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1] > 140) & drawn
    coloured = saturated | (frame.min(-1) >= 160)
    thick = max(3, min(frame.shape[:2]) // 16) | 1
    inside = cv2.erode(drawn.astype(np.uint8), np.ones((thick, thick), np.uint8)) > 0
    middle = np.median(frame.reshape(-1, 3), axis=0)
    uniform = middle.max() >= DARK and (np.abs(frame - middle).max(-1) <= 12).mean() > 0.6
    return Drawing(
        black=float((brightest < DARK).mean()), coloured=float(coloured[drawn].mean()),
        saturated=float(saturated[drawn].mean()), solid=float(inside[drawn].mean()),
        ground=tuple(int(value) for value in middle) if uniform else None,
    )  # fmt: skip
