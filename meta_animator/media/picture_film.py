"""A folder of pictures as a film: with what a `video.VideoSource` gives and `probe.VideoFacts` tell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from meta_animator.errors import UserError, check_handles
from meta_animator.media.images import read_image
from meta_animator.media.timeline import Timeline, check_fps, even

ORIENTATION = 0x0112  # the EXIF tag


class PictureFilm:
    """Frames in the order of `files`, all of the first one's size, at `fps` frames per second.

    Raises UserError for no files, for one that is no picture or of another size, and for an fps that is none.
    """

    def __init__(self, path: Path, files: Sequence[Path], fps: float) -> None:
        if not files:
            raise UserError(f"{path}: holds no pictures; expected one for each frame")
        self.path, self.files, self.fps = path, list(files), check_fps(fps, f"{path}: frames per second")
        self.width, self.height = _size(self.files[0])
        for file in self.files:
            if (size := _size(file)) != (self.width, self.height):
                have, want = f"{size[0]}x{size[1]}", f"{self.width}x{self.height}"
                raise UserError(f"{file}: is {have}, the first frame {want}; the frames of a film have one size")

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
        """uint8 (len(indices), height, width, 3) RGB. Raises UserError for a damaged picture."""
        return np.stack([read_image(self.files[index]) for index in indices])

    def close(self) -> None:
        """Nothing stays open."""


def _size(file: Path) -> tuple[int, int]:
    """(width, height), upright, from the file's head."""
    try:
        with Image.open(file) as picture:
            turned = picture.format == "JPEG" and picture.getexif().get(ORIENTATION, 1) >= 5
            return picture.size[::-1] if turned else picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        check_handles(error, file)
        raise UserError(f"{file}: cannot be read as a picture; expected a complete PNG or JPEG file") from error
