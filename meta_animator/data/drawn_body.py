"""Where the limbs and joints of a drawn skeleton lie, by their hues and their shapes."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from meta_animator.data.conditions.pose import LIMBS, NECK

JOINTS = 18
DARKEST, PALEST = 60, 110  # brightness and saturation (of 255) from which on a pixel belongs to a stroke
BRIGHT = 178  # joints and hands are at least as bright; limbs are darker in most films
WHITE, GREY = 130, 90  # a face's point: its darkest colour at least the one, its saturation below the other
LIMBS_AT = {joint: [(k, limb.index(joint)) for k, limb in enumerate(LIMBS) if joint in limb] for joint in range(JOINTS)}
ENDS = np.array(LIMBS)  # (17, 2) joints
REACH = 2.2  # in strokes' half widths beyond a limb's visible end, where its joint is looked for
LEAST_PURE = 0.12  # share of a limb's pixels around which all have its hue; of the rims of other limbs hardly any
GUESSED = 0.8  # score of a joint whose dot is not seen
HEAD = (0, 14, 15, 16, 17)
LONELY = 12  # half widths from the rest of a head
MOST_HIDDEN = 3  # half widths of a limb's end below a hand
FAR = 8  # half widths from the end of the limb before it, from which on a limb is none
WIDEST_GAP = 16  # in half widths: so much of a limb may be covered by others


@dataclasses.dataclass(frozen=True)
class Strokes:
    """A frame, pixel by pixel.

    hues     uint8 (h, w): index of the nearest of the 18 hues, 255 where no coloured stroke is
    bright   bool (h, w): coloured, and as bright as joints and hands are
    white    bool (h, w): a face's points
    drawn    bool (h, w): any stroke
    pure     bool (h, w): of one hue with the pixels around
    """

    hues: np.ndarray
    bright: np.ndarray
    white: np.ndarray
    drawn: np.ndarray
    pure: np.ndarray


def find_strokes(frame: np.ndarray) -> Strokes:
    """frame uint8 (h, w, 3) RGB"""
    hue, saturation, value = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    coloured = (value >= DARKEST) & (saturation >= PALEST)
    nearest = ((hue.astype(np.uint16) + 5) // 10 % JOINTS).astype(np.uint8)  # OpenCV halves the degrees
    white = (saturation < GREY) & (value >= WHITE)
    hues = np.where(coloured, nearest, 255).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    pure = cv2.erode(hues, cross) == cv2.dilate(hues, cross)
    return Strokes(hues, coloured & (value >= BRIGHT), white, coloured | white, pure & coloured)


def limbs_are_dim(frames: Sequence[np.ndarray]) -> bool:
    """Whether limbs are drawn darker than joints, as in most films."""
    dim = full = 0
    for frame in frames:
        value, strokes = frame.max(-1), find_strokes(frame)
        around = np.ones((3, 3), np.uint8)
        inside = strokes.pure & (cv2.dilate(value, around) - cv2.erode(value, around) < 40)
        dim += int((inside & ~strokes.bright).sum())
        full += int((inside & strokes.bright).sum())
    return dim > 0.5 * full


def half_width(frames: Sequence[np.ndarray], dim: bool) -> float:
    """Of the limbs' strokes in pixels, the median over the limbs of some frames."""
    widths = []
    for frame in frames:
        strokes = find_strokes(frame)
        limbs = _may_be_limbs(strokes, dim)
        for limb in range(12):  # without the head, whose limbs are short
            if (mask := limbs & (strokes.hues == limb)).sum() > 30:
                widths.append(float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3).max()))
    return float(np.median(widths)) - 0.5 if widths else 4.0


def read_body(strokes: Strokes, dim: bool, width: float) -> np.ndarray:
    """OpenPose's 18 points (18, 3) in pixels of a frame, with score 1 for those whose dots were found and GUESSED for those that
    only the ends of limbs show.

    dim     limbs are darker than joints
    width   half a limb's width in pixels
    """
    points = np.zeros((JOINTS, 3))
    limbs = {}
    for k, pixels in enumerate(_by_hue(strokes, _may_be_limbs(strokes, dim))[: len(LIMBS)]):
        if (ends := _find_limb(strokes, pixels, width)) is not None:
            limbs[k] = ends
    dots = [_find_dots(pixels, width) for pixels in _by_hue(strokes, strokes.bright)]
    limbs = _orient(limbs, dots, width)
    for joint in range(JOINTS):
        ends = np.array([limbs[k][side] for k, side in LIMBS_AT[joint] if k in limbs]).reshape(-1, 2)
        if len(ends):
            points[joint] = _place(ends, dots[joint], width)
    _add_head(points, dots, width)
    return points


def _may_be_limbs(strokes: Strokes, dim: bool) -> np.ndarray:
    """Pixels of coloured strokes; of films with dim limbs without joints and hands and their rims, which are as dim."""
    mask = strokes.hues < JOINTS
    return mask & (cv2.dilate(strokes.bright.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0) if dim else mask


def _by_hue(strokes: Strokes, mask: np.ndarray) -> list[np.ndarray]:
    """The pixels (n, 2) x, y of a mask, those of each hue apart."""
    rows, columns = np.nonzero(mask)
    hues = strokes.hues[rows, columns]
    order = np.argsort(hues, kind="stable")
    places = np.stack([columns, rows], -1)[order]
    return np.split(places, np.searchsorted(hues[order], np.arange(1, JOINTS)))


def _parts(pixels: np.ndarray) -> list[np.ndarray]:
    """Pixels (n, 2) that hang together, part by part; the largest first."""
    if not len(pixels):
        return []
    corner = pixels.min(0)
    x, y = (pixels - corner).T
    mask = np.zeros((y.max() + 1, x.max() + 1), np.uint8)
    mask[y, x] = 1
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    which = labels[y, x]
    order = np.argsort(which, kind="stable")
    parts = np.split(pixels[order], np.searchsorted(which[order], np.arange(2, which.max() + 1)))
    return sorted(parts, key=len, reverse=True)


def _find_limb(strokes: Strokes, pixels: np.ndarray, width: float) -> np.ndarray | None:
    """Both ends (2, 2) of a limb's ellipse, in no order, from the pixels (n, 2) of its hue; None where it is not seen."""
    parts = [part for part in _parts(pixels) if strokes.pure[part[:, 1], part[:, 0]].mean() > LEAST_PURE]
    parts = [part.astype(np.float64) for part in parts if len(part) >= max(4.0, 0.5 * width**2)]
    first = next((k for k, part in enumerate(parts) if _breadth(part) < 1.5 * width + 1), None)
    if first is None:
        return None
    some, rest = parts[first], parts[:first] + parts[first + 1 :]
    while rest:
        middle, along = _axis(some)
        gaps = [_gap(strokes, some, part, middle, along, width) for part in rest]
        nearest = int(np.argmin(gaps))
        if not np.isfinite(gaps[nearest]):
            break
        some = np.concatenate([some, rest.pop(nearest)])
    return _ends(strokes, some, width)


def _ends(strokes: Strokes, pixels: np.ndarray, width: float) -> np.ndarray:
    """Where a limb's ellipse ends, also below what is drawn over its tips."""
    middle, along = _axis(pixels)
    place = (pixels - middle) @ along
    tips = (place.min(), place.max())
    covered = [_covered(strokes, middle + (tip + side) * along, side * along) for side, tip in zip((-1, 1), tips, strict=True)]
    ends = [tip + side * (min(cover, width) + 0.5) for side, tip, cover in zip((-1, 1), tips, covered, strict=True)]
    hidden = int(np.argmax(covered))
    if covered[hidden] > 2.5 * width and covered[1 - hidden] <= 2.5 * width:
        side = 2 * hidden - 1
        most = min(covered[hidden], MOST_HIDDEN * width)
        ends[hidden] = ends[1 - hidden] + side * _hidden_length(side * (place - ends[1 - hidden]), most, width)
    return middle + np.array(ends)[:, None] * along


def _hidden_length(place: np.ndarray, covered: float, width: float) -> float:
    """The length of an ellipse, `width` its half width, from how wide it is where it is seen: pixels at `place` from its one end
    on, the other end below at most `covered` pixels of something else."""
    count = np.bincount(np.maximum(place, 0).astype(int))[:-2] / 2  # its last columns may be cut askew
    seen = float(place.max())
    if len(count) < 8:
        return seen
    lengths = np.arange(seen, seen + covered + 1, 0.5)
    at = (np.arange(len(count)) + 0.5) / lengths[:, None]
    shapes = 2 * width * np.sqrt(np.clip(at * (1 - at), 0, None))
    return float(lengths[np.abs(shapes - count).sum(1).argmin()])


def _covered(strokes: Strokes, start: np.ndarray, along: np.ndarray) -> float:
    """Over how many pixels from `start` on something is drawn."""
    length, (height, width) = 0, strokes.drawn.shape
    while length < max(height, width):
        x, y = np.rint(start + length * along).astype(int)
        if not (0 <= x < width and 0 <= y < height and strokes.drawn[y, x]):
            break
        length += 1
    return float(length)


def _axis(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = pixels.mean(0)
    spread = np.cov((pixels - middle).T) if len(pixels) > 2 else np.eye(2)
    return middle, np.linalg.eigh(spread)[1][:, 1]


def _breadth(pixels: np.ndarray) -> float:
    """How far from its axis a part reaches."""
    middle, along = _axis(pixels)
    return float(np.abs((pixels - middle) @ [-along[1], along[0]]).max())


def _gap(strokes: Strokes, some: np.ndarray, pixels: np.ndarray, middle: np.ndarray, along: np.ndarray, width: float) -> float:
    """How far a limb's part lies from the rest of it along its axis; infinite where it is no part of it."""
    across = np.array([-along[1], along[0]])
    if np.abs((pixels - middle) @ across).max() > 1.5 * width + 1:
        return np.inf
    here, there = (some - middle) @ along, (pixels - middle) @ along
    low, high = (here.max(), there.min()) if there.mean() > here.mean() else (there.max(), here.min())
    if high <= low:
        return 0.0
    between = middle + np.linspace(low, high, max(2, int(high - low)))[:, None] * along
    x, y = np.rint(between).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < strokes.drawn.shape[1]) & (y < strokes.drawn.shape[0])
    covered = strokes.drawn[y[inside], x[inside]].mean() if inside.any() else 0.0
    return high - low if covered > 0.8 and high - low < WIDEST_GAP * width else np.inf


def _find_dots(pixels: np.ndarray, width: float) -> np.ndarray:
    """(n, 3): x, y and area of the places that have a joint's colour and brightness and are no larger than a joint's dot."""
    parts = [part for part in _parts(pixels) if len(part) >= 3 and np.ptp(part, axis=0).max() <= 3 * width + 2]
    return np.array([(*part.mean(0), len(part)) for part in parts]).reshape(-1, 3)


def _orient(limbs: dict[int, np.ndarray], dots: list[np.ndarray], width: float) -> dict[int, np.ndarray]:
    """The limbs with their ends in the order of LIMBS, beginning at the neck that fits the limbs and dots best."""
    necks = [end for k, _ in LIMBS_AT[NECK] if k in limbs for end in limbs[k]] or [None]
    tries = [_orient_from(neck, limbs, dots, width) for neck in necks]
    return min(tries, key=lambda each: each[1])[0]


def _orient_from(
    neck: np.ndarray | None, limbs: dict[int, np.ndarray], dots: list[np.ndarray], width: float
) -> tuple[dict[int, np.ndarray], float]:  # fmt: skip
    """(the limbs in their order, how badly they fit together, in pixels); every limb begins where the one before it ends."""
    places, total, oriented = {NECK: neck}, 0.0, {}
    for k, (first, last) in enumerate(LIMBS):
        if k not in limbs:
            continue
        begin = places.get(first)
        costs = []
        for ends in (limbs[k], limbs[k][::-1]):
            away = 0.0 if begin is None else float(np.hypot(*(ends[0] - begin)))
            costs.append(away + _off(ends[0], dots[first], width) + _off(ends[1], dots[last], width))
        if begin is not None and min(np.hypot(*(limbs[k] - begin).T)) > FAR * width:
            total += 2 * FAR * width
            continue
        turned = costs[1] < costs[0]
        oriented[k] = limbs[k][::-1] if turned else limbs[k]
        total += min(costs)
        places[last] = oriented[k][1]
        places.setdefault(first, oriented[k][0])
    return oriented, total


def _off(end: np.ndarray, dots: np.ndarray, width: float) -> float:
    """How far the nearest of a joint's dots is, up to a bound; 0 where it has none."""
    return min(float(np.hypot(*(dots[:, :2] - end).T).min()), 8 * width) if len(dots) else 0.0


def _place(ends: np.ndarray, dots: np.ndarray, width: float) -> tuple[float, float, float]:
    """Where a joint lies: at its dot near the ends (n, 2) of its limbs, else between these; and its score."""
    expected = np.median(ends, axis=0)
    if len(dots):
        far = np.hypot(*(dots[:, None, :2] - ends).transpose(2, 0, 1)).min(1)
        far -= np.minimum(dots[:, 2] / (np.pi * width**2), 1) * width  # whole dots rather than what a rim leaves of one
        if far.min() < REACH * width + 3:
            return (*dots[far.argmin(), :2], 1.0)
    return (*expected, GUESSED)


def _add_head(points: np.ndarray, dots: list[np.ndarray], width: float) -> None:
    """Dots of eyes and ears, whose limbs may be too short to be seen, near what is known of the head."""
    for joint in HEAD:
        known = points[[k for k in HEAD if points[k, 2]], :2]
        some = dots[joint][dots[joint][:, 2] > width**2] if len(dots[joint]) else dots[joint]
        if points[joint, 2] or not len(known) or not len(some):
            continue
        far = np.hypot(*(some[:, None, :2] - known).transpose(2, 0, 1)).min(1)
        if far.min() < LONELY * width:
            points[joint] = *some[far.argmin(), :2], 1


def likeness(strokes: Strokes, points: np.ndarray, dim: bool, width: float) -> float | None:
    """How well points (18, 3) explain the limbs of a frame: the share of its limbs' pixels that lie on limbs between the points,
    or, where that is less, the share of these limbs that lies on strokes. None for a frame without limbs."""
    limbs = _may_be_limbs(strokes, dim) & strokes.pure
    drawn = np.zeros(limbs.shape, np.uint8)
    for a, b in LIMBS:
        if points[a, 2] and points[b, 2]:
            ends = [tuple(int(value) for value in np.rint(points[end, :2])) for end in (a, b)]
            cv2.line(drawn, *ends, 1, 2 * int(np.ceil(width)) + 3)
    if limbs.sum() < width**2:
        return None
    thin = cv2.erode(drawn, np.ones((3, 3), np.uint8), iterations=int(np.ceil(width))) > 0
    on = strokes.drawn[thin].mean() if thin.any() else 0.0
    return float(min(drawn[limbs].mean(), on))
