"""Which part of a clip's pictures is stored: one box for all frames, that the person stays inside of."""

import dataclasses

import numpy as np

from meta_animator.data.crops import figure_crop
from meta_animator.data.figures import Figure
from meta_animator.data.transforms import Box

MARGIN = 0.3  # around the person, in shares of its longer side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """How frames are cut.

    size     (height, width) to cut to the shape of, and to scale to; None: a shape that holds the person, never scaled up
    crop     whether to cut around the person at all, where there is no size
    longest  pixels of the longer side at most, where there is no size; 0: as many as there are
    """

    size: tuple[int, int] | None = None
    crop: bool = True
    longest: int = 1024


def choose_box(figure: Figure | None, have: tuple[int, int], cut: Cut) -> tuple[Box, tuple[int, int]]:
    """(box, (height, width) that it is stored at) in pictures of size `have` (height, width) that show `figure`."""
    if cut.size is not None:
        return figure_crop(figure, have, cut.size), cut.size
    box = _around(figure, have) if cut.crop and figure is not None else (0.0, 0.0, float(have[1]), float(have[0]))
    return box, stored_size(box, cut.longest)


def stored_size(box: Box, longest: int) -> tuple[int, int]:
    """(height, width) of a box that is stored with at most `longest` pixels on its longer side."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))


def _around(figure: Figure, have: tuple[int, int]) -> Box:
    """The person with a margin, in whole pixels, and no head cut off; inside of the picture."""
    boxes = np.concatenate([figure.body[None], figure.heads, figure.faces])
    corners = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    margin = MARGIN * max(figure.body[2:] - figure.body[:2])
    x0, y0 = np.floor(np.maximum(corners[:2] - margin, 0))
    x1, y1 = np.ceil(np.minimum(corners[2:] + margin, [have[1], have[0]]))
    return float(x0), float(y0), float(x1), float(y1)
