"""How a clip's frames are cut and how large they are stored."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from meta_animator.data.transforms import Box
from meta_animator.preparation.boxes import MARGIN, clip_box, find_figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """How frames are cut.

    size     (height, width) to cut to the shape of, and to scale to; None: a shape that holds the person, never scaled up
    crop     whether to cut around the person at all, where there is no size
    margin   around the person, in shares of their own size
    longest  pixels of the longer side at most, where there is no size; 0: as many as there are
    """

    size: tuple[int, int] | None = None
    crop: bool = True
    margin: float = MARGIN
    longest: int = 1024


def choose_box(
    keypoints: np.ndarray, facts: Sequence[Mapping[str, float]], have: tuple[int, int], within: Box, cut: Cut
) -> tuple[Box, tuple[int, int]]:
    """(box, (height, width) that it is stored at) of a clip with frames of size `have` (height, width).

    keypoints  (frames, 133, 3)
    facts      of each frame, as `quality.measure` tells
    within     the picture without black bars
    """
    if cut.size is None and not cut.crop:
        box = (0.0, 0.0, float(have[1]), float(have[0]))
    else:
        box = clip_box(find_figure(keypoints, facts, have), have, cut.size, cut.margin, within)
    return box, cut.size or stored_size(box, cut.longest)


def stored_size(box: Box, longest: int) -> tuple[int, int]:
    """(height, width) of a box that is stored with at most `longest` pixels on its longer side."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))
