"""When frames are shown, and which are shown at given times."""

import dataclasses
import math
from typing import Any

import numpy as np

from meta_animator.errors import UserError

LOWEST, HIGHEST = 0.01, 1000.0  # frames per second that a rate can be
ROUNDING_S = 0.002  # seconds that a time stamp may be late: containers round to milliseconds
JITTER = 0.3  # of a frame, that stamps may be late where frames are wanted at the film's own rate
SAME_RATE = 1.002  # rates this close are one (29.97 and 30)


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """times: seconds (num_frames,) from the first frame on, ascending; fps: what the file gives as its average rate."""

    times: np.ndarray
    fps: float

    @property
    def steady(self) -> bool:
        """Whether every frame comes within half a frame of where a constant rate puts it."""
        return bool(np.abs(self.times - np.arange(len(self.times)) / self.fps).max() <= 0.5 / self.fps)

    @property
    def rate(self) -> float:
        """Frames per second: the average of a steady film, and of another its usual rate, that of most of its gaps."""
        if self.steady:
            return self.fps
        gaps = np.diff(self.times)
        usual = np.sort(gaps)[len(gaps) // 2]  # one of them, also of an even number
        rate = float(1 / gaps[np.abs(gaps - usual) <= usual / 4].mean())
        return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate else rate

    @property
    def duration(self) -> float:
        """Seconds; the last frame stands as long as one at the usual rate."""
        return float(self.times[-1]) + 1 / self.rate

    def resampled(self, fps: float = 0.0) -> tuple[list[int], float]:
        """(numbers of the frames that make up the same time at `fps` frames per second, that rate); 0: at its own rate.

        Frames of a steady film at its own rate are all of them.
        """
        if self.steady and (not fps or same_rate(fps, self.rate)):
            return list(range(len(self.times))), self.rate
        return self.at(fps or self.rate), fps or self.rate

    def at(self, fps: float) -> list[int]:
        """Numbers of the frames that are shown at 0, 1 / fps, 2 / fps, ... seconds, to the end: as many as make up the same
        duration, at least one. Frames are left out or repeated as needed."""
        count = max(1, round(self.duration * fps))
        grace = JITTER / fps if same_rate(fps, self.rate) else ROUNDING_S
        shown = np.searchsorted(self.times, np.arange(count) / fps + grace, side="right") - 1
        return [int(index) for index in shown]


def even(count: int, fps: float) -> Timeline:
    """`count` frames at a constant rate."""
    return Timeline(np.arange(count) / fps, fps)


def same_rate(a: float, b: float) -> bool:
    """Whether two rates are one for all purposes."""
    return max(a, b) <= SAME_RATE * min(a, b)


def check_fps(value: Any, where: str) -> float:
    """The rate as a number. Raises UserError for text, lists, nan, and what is no rate of frames."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not LOWEST <= value <= HIGHEST:
        expected = f"one number of frames per second, {LOWEST:g} to {HIGHEST:g}, such as 29.97"
        raise UserError(f"{where} is {str(value)[:40]!r}; expected {expected}")
    return float(value)
