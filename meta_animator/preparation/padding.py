"""Black bars around a picture (letterbox, pillarbox, either or both), constant over a film: found, to be cut off.

A bar is even, nearly black in all frames, and ends in a straight line along which the picture begins. A dark scene or a black
stage ends in no line, and is not cut.
"""

from collections.abc import Iterable

import numpy as np

from meta_animator.data.transforms import Box

BLACK = 48  # brightest that a bar is on average, of 255: after compression, and where 16 was to be black
UNEVEN = 6.0  # largest standard deviation inside of a bar, over place and time
STEP = 10  # by how much the picture is brighter than the bar where it begins
SPECKS = 0.03  # share of a bar's line that may be brighter: ringing, a speck
LIT = 0.5  # share of the picture's first line that is brighter than the bar, at some time
SOFT = 4  # lines between a bar and the first whole line of the picture
SHARP = 1.5  # how many times more the brightness rises at the end of a bar than just inside of the picture
AT_ONCE = 0.6  # share of the whole rise that comes within three lines
FULL = 0.6  # share of the brightness inside, below which a line is half bar
SLACK = 2  # lines beside the picture that its compression reaches
THINNEST = 2  # pixels
KEPT = 0.2  # least share of either side that is left


class PaddingFinder:
    """Collects frames of one film, uint8 (h, w, 3) RGB of one size; keeps sums of them, not the frames."""

    def __init__(self) -> None:
        self._brightest: np.ndarray | None = None
        self._sum: np.ndarray | None = None
        self._squares: np.ndarray | None = None
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        light = frame.max(-1)  # a bar is dark in all colours
        if self._brightest is None:
            self._brightest, shape = light.copy(), light.shape
            self._sum, self._squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        np.maximum(self._brightest, light, out=self._brightest)
        self._sum += light
        self._squares += np.square(light, dtype=np.float32)
        self._count += 1

    def box(self) -> Box:
        """The picture without its bars: (x0, y0, x1, y1) in pixel edges; all of it where there are none."""
        if self._brightest is None:
            raise ValueError("no frame was added")
        height, width = self._brightest.shape
        y0, y1 = self._ends(np.s_[:, :], axis=1)
        x0, x1 = self._ends(np.s_[y0:y1, :], axis=0)
        if x1 - x0 < KEPT * width or y1 - y0 < KEPT * height:
            return 0.0, 0.0, float(width), float(height)
        return float(x0), float(y0), float(x1), float(y1)

    def _ends(self, part: tuple, axis: int) -> tuple[int, int]:
        """Where the picture begins and ends, counted in lines: rows with axis 1, columns with axis 0."""
        light, total, squares = (array[part] for array in (self._brightest, self._sum, self._squares))
        if axis == 0:
            light, total, squares = light.T, total.T, squares.T
        first = self._bar(light, total, squares)
        last = self._bar(light[::-1], total[::-1], squares[::-1])
        return first, len(light) - last

    def _bar(self, light: np.ndarray, total: np.ndarray, squares: np.ndarray) -> int:
        """How many lines (lines, pixels) at the beginning are a bar."""
        level = float(np.median(light[:THINNEST]))
        if level > BLACK + STEP:
            return 0
        brighter = light > level + STEP
        extent = np.flatnonzero(brighter.mean(0) > SPECKS)  # in the middle, where there are bars on the other sides
        if len(extent) == 0:
            return 0
        across = np.s_[extent[0] : extent[-1] + 1]
        share, lines = brighter[:, across].mean(1), light[:, across].mean(1) - level
        dark = int(np.argmax(share > SPECKS)) if (share > SPECKS).any() else 0
        whole = [k for k in range(dark, min(dark + 2 * SOFT, len(lines))) if share[k] >= LIT and _is_sharp(lines, dark, k)]
        if not whole or whole[0] < THINNEST:
            return 0
        begins = whole[0]
        bar = np.s_[: max(1, dark - SLACK)]
        mean = total[bar].sum() / (self._count * total[bar].size)
        spread = squares[bar].sum() / (self._count * total[bar].size) - mean**2
        if mean > BLACK or spread > UNEVEN**2:
            return 0
        inside = lines[begins + SOFT - 1 : begins + 2 * SOFT - 1].mean()
        return begins + int(np.argmax(lines[begins : begins + SOFT] >= FULL * inside))


def _is_sharp(lines: np.ndarray, dark: int, begins: int) -> bool:
    """Whether brightness by line jumps where a bar may end, and does not go on rising as at the edge of a spotlight."""
    before, outer, inner, further = (lines[np.clip(k, 0, len(lines) - 1)] for k in (dark - 1, begins - 2, begins + 1, begins + 4))
    return inner - outer >= max(STEP, AT_ONCE * (inner - before), SHARP * (further - inner))


def find_padding(frames: Iterable[np.ndarray]) -> Box:
    """The part of a film's (or photo's) pictures, uint8 (h, w, 3) RGB, that is no black bar, from some of its frames:
    (x0, y0, x1, y1) in pixel edges."""
    finder = PaddingFinder()
    for frame in frames:
        finder.add(frame)
    return finder.box()


def bars_note(box: Box, size: tuple[int, int]) -> str:
    """What is outside of `box` in pictures of `size` (height, width), in words; "" where nothing is."""
    widths = {"left": box[0], "top": box[1], "right": size[1] - box[2], "bottom": size[0] - box[3]}
    bars = [f"{width:.0f} pixels at the {side}" for side, width in widths.items() if width >= 1]
    return f"black bars left out: {', '.join(bars)}" if bars else ""
