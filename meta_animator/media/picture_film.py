"""A folder of pictures as a film: with what a `video.VideoSource` gives and `probe.VideoFacts` tell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.media.timeline import Timeline, check_fps, even


class PictureFilm:
    """Frames in the order of `files`, all of the first one's size, at `fps` frames per second.

    Raises UserError for no files, and for an fps that is none.
    """

    def __init__(self, path: Path, files: Sequence[Path], fps: float) -> None:
        if not files:
            raise UserError(f"{path}: holds no pictures; expected one for each frame")
        self.path, self.files, self.fps = path, list(files), check_fps(fps, f"{path}: frames per second")
        self.height, self.width = read_image(self.files[0]).shape[:2]

    @property
    def num_frames(self) -> int:
        return len(self.files)

    @property
    def keys(self) -> np.ndarray:
        """bool (num_frames,): each frame can be read alone."""
        return np.ones(self.num_frames, bool)

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown."""
        return even(self.num_frames, self.fps)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), height, width, 3) RGB. Raises UserError for a picture of another size."""
        frames = [read_image(self.files[index]) for index in indices]
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape[:2] != (self.height, self.width):
                have, want = f"{frame.shape[1]}x{frame.shape[0]}", f"{self.width}x{self.height}"
                raise UserError(f"{self.files[index]}: is {have}, the first frame {want}; the frames of a film have one size")
        return np.stack(frames)

    def close(self) -> None:
        """Nothing stays open."""
