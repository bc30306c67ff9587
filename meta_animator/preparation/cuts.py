"""Where a film cuts from one scene to the next, told while its frames are decoded, each once.

The detector is scenedetect's, which measures a change against those before and after: a fast pan or a dance cuts nothing. What
comes back at once, as after a flash, cuts nothing either. Where one scene dissolves into the next, the pictures in between are
mixtures of those before and after, which no movement makes; there the cut is in the middle.
"""

from collections import deque
from collections.abc import Iterable

import cv2
import numpy as np

SIDE = 160  # pixels of the longer side that frames are compared at
WINDOW = 2  # frames on either side that a change is measured against
RATIO = 3.0  # how many times larger than those around it a change at a cut is
CHANGE = 15.0  # least mean change of hue, saturation and brightness at a cut, of 255
GIST = 32  # pixels of the longer side at which two pictures are compared beyond small motion
BACK = 0.5  # share of the difference at a change below which the pictures before and after it are the same again
FLASH = 0.25  # seconds that a flash, or whatever hides the scene, lasts at most
DISSOLVE, LONGEST_DISSOLVE = 0.6, 40  # seconds, and frames at most, between two pictures that one is looked for between
UNLIKE = 20.0  # least difference of these two, of 255
RELATED = 0.6  # correlation from which on they are one scene in another light
MIXED = 0.25  # share of their difference by which a mixture of them may be missed
MIDDLE = (0.2, 0.8)  # share that the first has half-way
REPEATED = 0.05  # mean change of brightness below which a frame is the last one shown again
MOST_REPEATED = 4  # frames in a row that are passed over for that


class CutFinder:
    """Finds the frames at which a new scene begins, some frames after they were added. Memory does not grow with the film."""

    def __init__(self, fps: float) -> None:
        """fps: frames per second of the frames that will be added."""
        from scenedetect.detectors import AdaptiveDetector

        self._reach = max(1, round(FLASH * fps))
        self._detector = AdaptiveDetector(
            adaptive_threshold=RATIO, min_scene_len=1, window_width=WINDOW, min_content_val=CHANGE
        )
        self._count = 0  # frames added
        self._fed: deque[int] = deque(maxlen=4 * WINDOW + 2)  # numbers of the frames that the detector was given
        self._steps = 0
        self._repeated = 0
        self._last: np.ndarray | None = None
        self._gists: deque[tuple[int, np.ndarray]] = deque(maxlen=2 * self._reach + self.delay + 1)
        self._waiting: list[int] = []
        self._span = max(4, min(LONGEST_DISSOLVE, round(DISSOLVE * fps)))
        self._cut = -2 * self._span  # the last one that was told

    @property
    def delay(self) -> int:
        """How many frames after it was added, at the latest, a cut at a frame is told."""
        return (WINDOW + 1) * (MOST_REPEATED + 1) + self._reach

    def add(self, frame: np.ndarray) -> list[int]:
        """Takes the next frame, uint8 (h, w, 3) RGB; returns numbers of frames, counted from 0, that begin a scene."""
        picture = _shrink(frame, SIDE)
        number, self._count = self._count, self._count + 1
        repeated = self._last is not None and _difference(picture, self._last) < REPEATED
        self._repeated = self._repeated + 1 if repeated else 0
        self._last = picture
        self._gists.append((number, _shrink(picture, GIST)))
        if not 0 < self._repeated <= MOST_REPEATED:
            for _ in range(1 if number else 1 + WINDOW):  # nothing changed before the first frame
                self._feed(number)
        return self._ready(final=False)

    def finish(self) -> list[int]:
        """The cuts that `add` has not told yet, after the last frame."""
        for _ in range(WINDOW if self._count else 0):
            self._feed(self._count - 1)
        return self._ready(final=True)

    def _feed(self, number: int) -> None:
        from scenedetect import FrameTimecode

        self._fed.append(number)
        step = FrameTimecode(self._steps, fps=25.0)  # of any rate: nothing is measured in seconds
        self._steps += 1
        for found in self._detector.process_frame(step, np.ascontiguousarray(self._last[..., ::-1])):
            self._waiting.append(self._fed[found.frame_num - self._steps])

    def _ready(self, final: bool) -> list[int]:
        """Of the changes that are far enough back, those after which the picture from before did not come back."""
        due = [cut for cut in self._waiting if final or cut + self._reach < self._count]
        self._waiting = [cut for cut in self._waiting if cut not in due]
        told = [cut for cut in due if not self._comes_back(cut)]
        if not told and not self._waiting and self._count - 1 - self._cut > 2 * self._span:  # a slow one is told once
            told = self._dissolve()
        self._cut = max([self._cut, *told])
        return told

    def _dissolve(self) -> list[int]:
        """The frame in the middle, where the last pictures go over from one to another by mixtures of both."""
        if len(self._gists) <= self._span:
            return []
        numbers, last = zip(*list(self._gists)[-1 - self._span :], strict=True)
        first, end = (picture.astype(np.float32).ravel() for picture in (last[0], last[-1]))
        whole = first - end
        if np.abs(whole).mean() < UNLIKE or _correlation(first, end) > RELATED:
            return []
        pictures = [picture.astype(np.float32).ravel() - end for picture in last]
        shares = [float(picture @ whole / (whole @ whole)) for picture in pictures]
        early, middle, late = (k * self._span // 4 for k in (1, 2, 3))
        missed = max(float(np.linalg.norm(pictures[k] - shares[k] * whole)) for k in (early, middle, late))
        in_order = shares[early] > shares[middle] > shares[late] and MIDDLE[0] < shares[middle] < MIDDLE[1]
        if not in_order or missed > MIXED * float(np.linalg.norm(whole)):
            return []
        return [next(number for number, share in zip(numbers, shares, strict=True) if share < 0.5)]

    def _comes_back(self, cut: int) -> bool:
        before = [gist for number, gist in self._gists if cut - self._reach <= number < cut]
        after = [gist for number, gist in self._gists if cut <= number <= cut + self._reach]
        change = _difference(before[-1], after[0])
        return any(_difference(a, b) < BACK * change for a in before for b in after)


def find_cuts(frames: Iterable[np.ndarray], fps: float) -> list[int]:
    """The numbers of the frames, uint8 (h, w, 3) RGB, at which a new scene begins; not the first."""
    finder = CutFinder(fps)
    return [cut for frame in frames for cut in finder.add(frame)] + finder.finish()


def _shrink(picture: np.ndarray, side: int) -> np.ndarray:
    """With `side` pixels as the longer side, unless it is smaller."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference."""
    return float(cv2.absdiff(a, b).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one is flat."""
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))
