"""Whom of the people in a scene to annotate: one person, followed from frame to frame."""

import itertools
from collections.abc import Sequence

import numpy as np

from meta_animator.annotators.base import Detection

SAME = 0.3  # least overlap of the boxes of one person in two consecutive frames
GAP = 12  # frames in a row in which a person may be overlooked


def nearest(found: Sequence[Detection], last: Detection | None) -> Detection | None:
    """Of the people in a frame the one who was `last` followed, or else the largest."""
    if not found:
        return None
    if last is not None:
        best = max(found, key=lambda one: overlap(one.box, last.box))
        if overlap(best.box, last.box) >= SAME:
            return best
    return max(found, key=lambda one: area(one.box))


def follow(scene: Sequence[Sequence[Detection]]) -> tuple[list[Detection | None], list[str]]:
    """(the followed person, why the frame is of no use) of each frame of a scene; where nobody is seen for a short time
    between frames that show the person, the nearest frame's."""
    chosen: list[Detection | None] = []
    last = None
    for found in scene:
        chosen.append(nearest(found, last))
        last = chosen[-1] or last
    seen = list(chosen)
    for k in _gaps(seen):
        chosen[k] = _neighbour(seen, k)
    return chosen, ["" if person is not None else "nobody is seen" for person in chosen]


def area(box: np.ndarray) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    inner = area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    return inner / max(area(a) + area(b) - inner, 1e-9)


def _gaps(chosen: list[Detection | None]) -> list[int]:
    """Frames without anybody, few in a row, between frames with somebody."""
    known = [k for k, person in enumerate(chosen) if person is not None]
    return [k for a, b in itertools.pairwise(known) if 1 < b - a <= GAP + 1 for k in range(a + 1, b)]


def _neighbour(chosen: list[Detection | None], k: int) -> Detection:
    before = next(j for j in range(k - 1, -1, -1) if chosen[j] is not None)
    after = next(j for j in range(k + 1, len(chosen)) if chosen[j] is not None)
    return chosen[before if k - before <= after - k else after]
