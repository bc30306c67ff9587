"""When frames are shown, and which are shown at given times."""

import dataclasses

import numpy as np

GRACE = 0.1  # of a wanted frame's time: a frame that comes that little later is taken as there
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
        usual = np.median(gaps)
        rate = float(1 / gaps[np.abs(gaps - usual) <= usual / 4].mean())
        return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate else rate

    @property
    def duration(self) -> float:
        """Seconds; the last frame stands as long as one at the usual rate."""
        return float(self.times[-1]) + 1 / self.rate

    def at(self, fps: float) -> list[int]:
        """Numbers of the frames that are shown at 0, 1 / fps, 2 / fps, ... seconds, to the end: as many as make up the same
        duration, at least one. Frames are left out or repeated as needed."""
        count = max(1, round(self.duration * fps))
        shown = np.searchsorted(self.times, (np.arange(count) + GRACE) / fps, side="right") - 1
        return [int(index) for index in shown]


def even(count: int, fps: float) -> Timeline:
    """`count` frames at a constant rate."""
    return Timeline(np.arange(count) / fps, fps)


def same_rate(a: float, b: float) -> bool:
    """Whether two rates are one for all purposes."""
    return max(a, b) <= SAME_RATE * min(a, b)
