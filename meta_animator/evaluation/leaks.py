"""Frames that a training photo shows, too: whoever has seen them shows what they were given, not what they can do."""

from collections.abc import Sequence

import cv2
import numpy as np

CELLS = 32  # a side: what compression changes is averaged out
TOLERANCE = 12.0  # of 255, in each cell


def seen_before(frames: np.ndarray, photos: Sequence[np.ndarray]) -> np.ndarray:
    """Which of the frames uint8 (n, h, w, 3) are nearly equal to one of the photos uint8 (h', w', 3): bool (n,).

    Nearly equal: no cell of 32 x 32 differs by more than 12 of 255 in the mean of a colour, as after another compression or at
    another size. A photo that shows another part of the frame is not found.
    """
    if len(photos) == 0:
        return np.zeros(len(frames), bool)
    ours, theirs = np.stack([_cells(frame) for frame in frames]), np.stack([_cells(photo) for photo in photos])
    return np.array([np.abs(theirs - cells).max((1, 2, 3)).min() <= TOLERANCE for cells in ours])


def _cells(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
