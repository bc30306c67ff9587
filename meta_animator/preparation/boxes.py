"""The part of a source that its frames are cut to: one box for a whole clip, around the person, heads whole.

Boxes are (x0, y0, x1, y1) in pixel edges, as in `transforms`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from meta_animator.data.crops import figure_crop
from meta_animator.data.figures import HEAD_SHARE, OUTLYING, Figure, figure_of_points
from meta_animator.data.keypoints import FACE, LEFT_SHOULDER, RIGHT_SHOULDER, VISIBLE
from meta_animator.data.transforms import Box
from meta_animator.preparation.quality import EDGES
from meta_animator.preparation.views import HEAD

LEAST = 16  # pixels of a box's sides, as far as there is picture
MARGIN = 0.2  # around the person on all sides, in sides of their box


def find_figure(keypoints: np.ndarray | None, facts: Sequence[Mapping[str, float]], have: tuple[int, int]) -> Figure | None:
    """Where frames of size `have` (height, width) show their person; None where nothing tells.

    keypoints  (frames, 133, 3), or None
    facts      of each frame, as `quality.measure` tells them: the person's box takes in hair and clothes, which no point
               marks, and tells where the head is that shows no point, as from behind
    """
    figure = None if keypoints is None else figure_of_points(keypoints, have)
    boxes = np.array([[one[edge] for edge in EDGES] for one in facts if "left" in one]).reshape(-1, 4)
    if not len(boxes):
        return figure
    body = np.concatenate([np.quantile(boxes[:, :2], OUTLYING, axis=0), np.quantile(boxes[:, 2:], 1 - OUTLYING, axis=0)])
    heads = [
        _head(np.array([one[edge] for edge in EDGES]), None if keypoints is None else keypoints[k])
        for k, one in enumerate(facts) if "left" in one
    ]  # fmt: skip
    hidden = np.array([head for head in heads if head is not None]).reshape(-1, 4)
    if figure is None:
        return Figure(faces=np.zeros((0, 4)), heads=hidden, body=body)
    body = np.concatenate([np.minimum(figure.body[:2], body[:2]), np.maximum(figure.body[2:], body[2:])])
    return dataclasses.replace(figure, heads=np.concatenate([_with_hair(figure.heads, boxes), hidden]), body=body)


def clip_box(
    figure: Figure | None, have: tuple[int, int], size: tuple[int, int] | None = None, margin: float = MARGIN,
    within: Box | None = None,
) -> Box:  # fmt: skip
    """The box that all frames of a clip, of size `have` (height, width), are cut to.

    The person is in its middle with a share `margin` of their own size around, as far as there is picture, and heads before
    feet. With a `size` (height, width) the box has its shape, is never smaller in pixels, and cuts no head that fits; without
    it has the person's shape. within: the part of the picture that may be shown, without black bars. None for a figure: all
    of that, or its middle.
    """
    x0, y0, x1, y1 = within or (0.0, 0.0, float(have[1]), float(have[0]))
    shifted = None if figure is None else _shift(figure, (x0, y0, x1, y1))
    room = (round(y1 - y0), round(x1 - x0))
    if size is not None:
        box = figure_crop(shifted, room, size, margin)
    elif shifted is None:
        box = (0.0, 0.0, float(room[1]), float(room[0]))
    else:
        box = _around(shifted, room, margin)
    return box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0


def _around(figure: Figure, room: tuple[int, int], margin: float) -> Box:
    """Around body and heads with the margin, in whole pixels, an even number of them where there are as many."""
    boxes = np.concatenate([figure.body[None], figure.heads])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    reach = np.maximum(margin * (high - low).max(), (LEAST - (high - low)) / 2)
    low, high = np.floor(np.clip(low - reach, 0, room[::-1])), np.ceil(np.clip(high + reach, 0, room[::-1]))
    odd = np.where(high - low > 1, (high - low) % 2, 0)
    high, low = np.where(low > 0, high, high - odd), np.where(low > 0, low - odd, low)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _head(box: np.ndarray, points: np.ndarray | None) -> np.ndarray | None:
    """The head at the top of a person's box; None where points show it."""
    if points is not None and ((points[HEAD, 2] >= VISIBLE).sum() >= 2 or (points[FACE, 2] >= VISIBLE).sum() >= 10):
        return None
    left, top, right, bottom = box
    shoulders = np.array([]) if points is None else points[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    seen = shoulders[shoulders[:, 2] >= VISIBLE] if len(shoulders) else shoulders
    if len(seen) == 0:
        return np.array([left, top, right, top + HEAD_SHARE * (bottom - top)])
    x, y = seen[:, :2].mean(0)
    if y <= top:
        return None
    return np.array([max(left, x - (y - top) / 2), top, min(right, x + (y - top) / 2), y])


def _with_hair(heads: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Heads that reach up to the top of the nearest person's box, where that is less than half a head higher."""
    grown = heads.copy()
    for head in grown:
        tops = boxes[(boxes[:, 0] <= head[2]) & (boxes[:, 2] >= head[0]), 1]
        near = tops[(tops < head[1]) & (head[1] - tops < (head[3] - head[1]) / 2)]
        if len(near):
            head[1] = near.max()
    return grown


def _shift(figure: Figure, within: Box) -> Figure:
    """As seen in a part of the picture; heads and faces that it does not show whole are left out."""
    corner, limit = np.array(within[:2] * 2), np.array([within[2] - within[0], within[3] - within[1]])

    def inside(boxes: np.ndarray) -> np.ndarray:
        moved = boxes - corner
        return moved[(moved[:, :2] >= -0.5).all(1) & (moved[:, 2:] <= limit + 0.5).all(1)]

    body = figure.body - corner
    body = np.concatenate([np.clip(body[:2], 0, limit), np.clip(body[2:], 0, limit)])
    return Figure(faces=inside(figure.faces), heads=inside(figure.heads), body=body)
