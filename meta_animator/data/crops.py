"""Which part of a clip's pictures is shown: one box for all frames, around the person, that does not cut the face.

Boxes are (x0, y0, x1, y1) in pixel edges, as in `transforms`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from meta_animator.data.clips import Clip
from meta_animator.data.figures import Figure, figure_of_clip
from meta_animator.data.transforms import Box, crop_box
from meta_animator.settings import DataConfig

LONGEST = 2.2  # how many times one side of an aspect bucket may be the other
SMALL = 1 / 3  # of the crop's side: below, a person is called small
LOST = 0.1  # share of a picture outside of its crop, from which on it is worth a word
NOTES = {
    "cut": "faces are cut off in {}: the person moves further than a crop of this shape reaches",
    "part": "part of the person is outside of the crop in {}; data.height and data.width of another shape, or "
    "data.aspect_buckets, show more",
    "unknown": "without keypoints or mask, the middle of {} is shown (heads may be cut off); scripts/prepare_data.py adds them",
    "small": "the person is smaller than a third of the crop in {}; data.person_margin=0.2 zooms in",
}


@dataclasses.dataclass(frozen=True)
class Framing:
    """Pictures of size `have` with a `figure` that are shown at `size`, both (height, width)."""

    name: str
    figure: Figure | None
    have: tuple[int, int]
    size: tuple[int, int]


def person_crop(clip: Clip, size: tuple[int, int], margin: float = 0.0) -> Box:
    """The box of the shape of `size` (height, width) that a clip is shown in, the same in every frame.

    It is the largest there is, or with a `margin` > 0 one that the person fills with that share of their own size
    around, but never smaller than `size` in pixels of the source. It is put where it keeps the most faces, then the
    most whole heads, then as much of the person as fits, the head before the feet. A clip of which nobody knows where
    the person is (no keypoints, mask or drawn pose) is shown in its middle.
    """
    what = f"crop {size} {margin}"
    return clip.remember(what, lambda: figure_crop(figure_of_clip(clip), (clip.height, clip.width), size, margin))


def figure_crop(figure: Figure | None, have: tuple[int, int], size: tuple[int, int], margin: float = 0.0) -> Box:
    """As `person_crop`, of pictures of size `have` (height, width) that show `figure`; None: their middle."""
    largest = crop_box(have[1], have[0], *size)
    if figure is None:
        return largest
    sides = np.array([largest[2] - largest[0], largest[3] - largest[1]])
    sides /= max(1.0, _zoom(figure, sides, size, margin)) if margin > 0 else 1.0
    (left, top), faces, heads = (0.0, 0.0), figure.faces, figure.heads
    left = _offset(sides[0], have[1], faces[:, ::2], heads[:, ::2], _middle(figure.body[::2], sides[0]))
    inside = [boxes[_within(boxes[:, ::2], left, sides[0])] for boxes in (faces, heads)]
    first = figure.body[1] if figure.body[3] - figure.body[1] > sides[1] else _middle(figure.body[1::2], sides[1])
    top = _offset(sides[1], have[0], *(boxes[:, 1::2] for boxes in inside), first)
    return left, top, left + float(sides[0]), top + float(sides[1])


def random_crop(clip: Clip, size: tuple[int, int], config: DataConfig, generator: np.random.Generator) -> Box:
    """A box inside of `person_crop`, up to 1 + `data.random_crop` times smaller, that shows the same heads whole."""
    u = generator.random(3)
    x0, y0, x1, y1 = person_crop(clip, size, config.person_margin)
    head, zoom = _all_heads(clip, (x0, y0, x1, y1)), 1 + config.random_crop * u[0]
    if head is not None:
        zoom = min(zoom, (x1 - x0) / (head[2] - head[0]), (y1 - y0) / (head[3] - head[1]))
    width, height = x1 - x0, y1 - y0
    box = crop_box(width, height, *size, center=(u[1] * width, u[2] * height), zoom=max(1.0, zoom))
    left, top = x0 + box[0], y0 + box[1]
    if head is not None:
        left = min(max(left, head[2] - (box[2] - box[0])), head[0]) if zoom > 1 else left
        top = min(max(top, head[3] - (box[3] - box[1])), head[1]) if zoom > 1 else top
    return float(left), float(top), float(left + box[2] - box[0]), float(top + box[3] - box[1])


def crop_notes(shown: Sequence[Framing], margin: float) -> list[str]:
    """What there is to say of crops: faces or people that are cut, people who are small, or nowhere to be known of."""
    names: dict[str, list[str]] = {kind: [] for kind in NOTES}
    for one in shown:
        box = figure_crop(one.figure, one.have, one.size, margin)
        if one.figure is None:
            outside = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (one.have[0] * one.have[1])
            if outside > LOST:
                names["unknown"].append(one.name)
            continue
        kept, faces = int(_shown(one.figure.faces, box).sum()), len(one.figure.faces)
        if kept < faces:
            names["cut"].append(f"{one.name} at {one.size[1]}x{one.size[0]} ({kept} of {faces} stay whole)")
        elif (lost := 1 - _overlap(one.figure.body, box)) > LOST:
            names["part"].append(f"{one.name} at {one.size[1]}x{one.size[0]} ({100 * lost:.0f} %)")
        if not margin and max(_sides(one.figure.body) / _sides(np.array(box))) < SMALL:
            names["small"].append(one.name)
    return [text.format(_such_as(names[kind], len(shown))) for kind, text in NOTES.items() if names[kind]]


def some_framings(clips: Sequence[Clip], config: DataConfig, most: int = 32) -> list[Framing]:
    """Of the clips as many, evenly chosen, as can be looked at in a moment."""
    count = min(most, len(clips))
    some = [clips[k * len(clips) // count] for k in range(count)]
    return [framing_of(f"'{clip.id}'", clip, size_of(clip, config)) for clip in some]


def framing_of(name: str, clip: Clip, size: tuple[int, int]) -> Framing:
    return Framing(name, figure_of_clip(clip), (clip.height, clip.width), size)


def size_of(clip: Clip, config: DataConfig) -> tuple[int, int]:
    """(height, width) that a clip is shown at: that of the config, or with `data.aspect_buckets` of the nearest bucket."""
    return figure_size(figure_of_clip(clip) if config.person_margin else None, (clip.height, clip.width), config)


def bucket_notes(clips: Sequence[Clip], config: DataConfig) -> list[str]:
    """How many clips go to each bucket, where there are buckets."""
    if not config.aspect_buckets:
        return []
    counts = Counter(size_of(clip, config) for clip in clips)
    buckets = ", ".join(f"{count} at {width}x{height}" for (height, width), count in counts.most_common())
    return [f"of {len(clips)} clips and photos, {buckets} (width x height)"]


def figure_size(figure: Figure | None, have: tuple[int, int], config: DataConfig) -> tuple[int, int]:
    """As `size_of`, of pictures of size `have` (height, width) that show `figure`."""
    if not config.aspect_buckets:
        return config.height, config.width
    height, width = have
    if figure is not None and config.person_margin:
        person = (figure.body[2:] - figure.body[:2]) * (1 + 2 * config.person_margin)
        width, height = np.minimum(person, [width, height]).tolist()
    sizes = bucket_sizes(config.height, config.width, config.aspect_buckets)
    return min(sizes, key=lambda size: abs(math.log(size[0] * width / (size[1] * height))))


def bucket_sizes(height: int, width: int, step: int) -> list[tuple[int, int]]:
    """(height, width), and sizes of about its area with sides that are multiples of `step` and not too unlike each other."""
    area, sizes = height * width, {(height, width)}
    for short in range(step, math.isqrt(area) + 1, step):
        long = round(area / short / step) * step
        if short <= long <= LONGEST * short:
            sizes |= {(short, long), (long, short)}
    return sorted(sizes, key=lambda size: (size != (height, width), size))


def _zoom(figure: Figure, sides: np.ndarray, size: tuple[int, int], margin: float) -> float:
    """How many times smaller than `sides` a box may be: the person with the margin fits, and so do all heads; no pixel of
    the source becomes more than one of the crop's."""
    person = (figure.body[2:] - figure.body[:2]) * (1 + 2 * margin)
    heads = figure.heads[:, 2:].max(0) - figure.heads[:, :2].min(0) if len(figure.heads) else np.ones(2)
    return float(min((sides / np.maximum(np.maximum(person, heads), 1)).min(), sides[0] / size[1]))


def _offset(length: float, room: float, faces: np.ndarray, heads: np.ndarray, wanted: float) -> float:
    """Where a stretch of `length` starts, from 0 to room - length: it holds the most faces (n, 2), then the most heads, and
    lies as near to `wanted` as that allows."""
    last = max(0.0, room - length)
    starts = np.concatenate([[wanted], *(np.concatenate([s[:, 0], s[:, 1] - length]) for s in (faces, heads))])
    starts = np.unique(np.clip(np.concatenate([starts, [0.0, last]]), 0.0, last))
    held = [_count(stretches, starts, length) for stretches in (faces, heads)]
    best = np.lexsort((np.abs(starts - wanted), -held[1], -held[0]))[0]
    return float(starts[best])


def _count(stretches: np.ndarray, starts: np.ndarray, length: float) -> np.ndarray:
    """How many of the stretches (n, 2) lie whole in start ... start + length, for each of the starts."""
    fitting = stretches[stretches[:, 1] - stretches[:, 0] <= length]
    earliest, latest = np.sort(fitting[:, 1] - length), np.sort(fitting[:, 0])
    return np.searchsorted(earliest, starts + 1e-9, "right") - np.searchsorted(latest, starts - 1e-9, "left")


def _within(stretches: np.ndarray, start: float, length: float) -> np.ndarray:
    return (stretches[:, 0] >= start - 1e-6) & (stretches[:, 1] <= start + length + 1e-6)


def _shown(boxes: np.ndarray, box: Box) -> np.ndarray:
    return _within(boxes[:, ::2], box[0], box[2] - box[0]) & _within(boxes[:, 1::2], box[1], box[3] - box[1])


def _overlap(body: np.ndarray, box: Box) -> float:
    """The share of a body's box that lies inside the crop."""
    sides = np.minimum(body[2:], box[2:]) - np.maximum(body[:2], box[:2])
    return float(np.prod(np.maximum(sides, 0)) / max(np.prod(body[2:] - body[:2]), 1e-6))


def _middle(stretch: np.ndarray, length: float) -> float:
    return float(stretch.sum() - length) / 2


def _all_heads(clip: Clip, box: Box) -> np.ndarray | None:
    """Around all heads and usable faces (4,) that a box of the clip shows whole; None where it shows none."""
    figure = figure_of_clip(clip)
    if figure is None:
        return None
    boxes = np.concatenate([figure.heads, figure.faces])
    shown = boxes[_shown(boxes, box)]
    return np.concatenate([shown[:, :2].min(0), shown[:, 2:].max(0)]) if len(shown) else None


def _sides(box: np.ndarray) -> np.ndarray:
    return box[2:] - box[:2]


def _such_as(names: list[str], looked: int) -> str:
    return f"{len(names)} of {looked} clips, such as {names[0]}" if looked > 2 else " and ".join(names)
