"""Where frames to prepare come from: a film or photos, with keypoints and masks from an .npz."""

import abc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from meta_animator.data.clips import read_keypoints
from meta_animator.data.crops import figure_crop
from meta_animator.data.figures import Figure, figure_of_frame, figure_of_points
from meta_animator.data.keypoints import VISIBLE
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import Box
from meta_animator.errors import UserError
from meta_animator.media.images import HEIC_SUFFIXES, IMAGE_SUFFIXES, PHOTO_SUFFIXES, can_read_heic, read_alpha, read_image
from meta_animator.media.video import VideoSource

CHUNK = 16  # frames decoded at once


class Source(abc.ABC):
    """Frames with what is known of them. Subclasses set these, and `read`."""

    num_frames: int
    fps = 1.0
    keypoints: np.ndarray | None
    masks: np.ndarray | None

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self.empty = 0

    @abc.abstractmethod
    def select(self, fps: float | None) -> list[int]:
        """Numbers of the frames to keep."""

    def title(self, index: int) -> str:
        """A short name of the frame for sheets."""
        return str(index)

    def shows_person(self, index: int) -> bool:
        """Whether at least three points are seen; True where there are no keypoints to tell."""
        return self.keypoints is None or int((self.keypoints[index, :, 2] >= VISIBLE).sum()) >= 3

    @abc.abstractmethod
    def read(self, indices: list[int]) -> Iterator[Layers]:
        """Layers of these frames, in order."""

    def box(self, index: int, layers: Layers, size: tuple[int, int]) -> Box:
        """The box of the shape of `size` (height, width) in this frame, around the person; one for a whole film."""
        return figure_crop(self._figure(index, layers), layers.size, size)

    def _figure(self, index: int, layers: Layers) -> Figure | None:
        """Where the person is in this frame, or in all that are cut like it."""
        return figure_of_frame(layers)

    def _layers(self, frame: np.ndarray, index: int, mask: np.ndarray | None = None) -> Layers:
        height, width = frame.shape[:2]
        if self.masks is not None:
            if self.masks.shape[1:] != (height, -(-width // 8)):
                raise UserError(
                    f"the mask of {self.title(index)} has {self.masks.shape[1]} rows of {self.masks.shape[2]} bytes; one of "
                    f"{width}x{height} needs {height} rows of {-(-width // 8)}: np.packbits(mask, axis=-1)"
                )
            mask = np.unpackbits(self.masks[index], axis=-1)[:, :width].astype(bool)
        return Layers(frame=frame, mask=mask, keypoints=None if self.keypoints is None else self.keypoints[index])


class Film(Source):
    """The frames of a video."""

    def __init__(self, path: Path, keypoints: Path | None) -> None:
        super().__init__()
        self.video = VideoSource(path)
        self.num_frames, self.fps = self.video.num_frames, self.video.timeline.rate
        size = (self.video.height, self.video.width)
        self.keypoints, self.masks = _read_annotations(keypoints, self.num_frames, f"{path} has", size)
        self.empty = sum(not self.shows_person(index) for index in range(self.num_frames))
        if self.empty == self.num_frames:
            raise UserError(f"{keypoints}: no person in any of the {self.num_frames} frames (all scores below 0.3)")

    def select(self, fps: float | None) -> list[int]:
        """Those shown at 0, 1 / fps, 2 / fps, ... seconds; without fps all of a steady film, and of another what is shown at
        its usual rate."""
        if fps is not None and not 0 < fps <= self.fps * 1.01:
            raise UserError(f"--fps {fps:g}: the video has {self.fps:g} frames per second; give at most that")
        timeline = self.video.timeline
        if fps is None and not timeline.steady:
            gaps = np.diff(timeline.times)
            print(
                f"note: {self.video.path}: {gaps.min():.3f} to {gaps.max():.3f} s between frames; taken at {self.fps:g} frames "
                "per second, repeated where they stand longer (--fps gives another rate)"
            )
        return timeline.resampled(fps or 0.0)[0]

    def read(self, indices: list[int]) -> Iterator[Layers]:
        for start in range(0, len(indices), CHUNK):
            part = indices[start : start + CHUNK]
            for index, frame in zip(part, self.video.read(part), strict=True):
                yield self._layers(frame, index)

    def _figure(self, index: int, layers: Layers) -> Figure | None:
        return None if self.keypoints is None else figure_of_points(self.keypoints, layers.size)


class Photos(Source):
    """Photos in the order of their names; those without a person are left out."""

    def __init__(self, paths: list[Path], keypoints: Path | None) -> None:
        super().__init__()
        self.paths, self.num_frames = paths, len(paths)
        self.keypoints, self.masks = _read_annotations(keypoints, len(paths), "there are", None)
        self.skipped = [path.name for i, path in enumerate(paths) if not self.shows_person(i)]
        if len(self.skipped) == len(paths):
            raise UserError(f"{keypoints}: no person in any of the {len(paths)} photos (all scores below 0.3)")

    def select(self, fps: float | None) -> list[int]:
        if fps is not None:
            raise UserError("--fps is for videos; photos have no frame rate")
        return [index for index in range(self.num_frames) if self.shows_person(index)]

    def title(self, index: int) -> str:
        return self.paths[index].name

    def read(self, indices: list[int]) -> Iterator[Layers]:
        for index in indices:
            path = self.paths[index]
            yield self._layers(read_image(path), index, read_alpha(path))


def find_photos(inputs: Sequence[Path]) -> list[Path]:
    """The photos among the inputs in the order of their names; none if the input is a video."""
    if not inputs:
        raise UserError("no input; give a video, a folder of photos, or photos")
    if len(inputs) == 1 and inputs[0].is_dir():
        photos = sorted(_photos_in(inputs[0]))
        if not photos:
            raise UserError(f"{inputs[0]}: holds no photos ({', '.join(IMAGE_SUFFIXES)})")
        return photos
    photos = [path for path in inputs if path.suffix.lower() in PHOTO_SUFFIXES]
    if len(inputs) > 1 and len(photos) < len(inputs):
        raise UserError(f"{len(inputs)} inputs, {len(photos)} of them photos; give one video, or photos only")
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file; check the path")
    return sorted(photos, key=lambda path: path.name)


def _photos_in(folder: Path) -> list[Path]:
    """The photos of a folder; says how many other files it holds, and names HEIC photos that cannot be read here. Hidden
    files, such as the `._*` that macOS leaves, are none."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    heic = [path for path in files if path.suffix.lower() in HEIC_SUFFIXES and not can_read_heic()]
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES and path not in heic]
    if heic:
        names = ", ".join(path.name for path in heic)
        missing = f"{folder}: {len(heic)} HEIC photos cannot be read ({names}); pip install pillow-heif, or export them as JPEG"
        if not photos:
            raise UserError(missing)
        print(f"note: {missing}")
    if others := [path.name for path in files if path not in heic and path not in photos]:
        some = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        print(f"note: {folder}: left out {len(others)} that are no photos ({some})")
    return photos


def _read_annotations(
    path: Path | None, count: int, whose: str, size: tuple[int, int] | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(keypoints, packed masks), each None where it is not given."""
    if path is None:
        return None, None
    keypoints = read_keypoints(path)
    seen = keypoints[keypoints[..., 2] >= VISIBLE]
    if len(seen) and (furthest := np.abs(seen[:, :2]).max()) <= 2:
        raise UserError(f"{path}: no keypoint is beyond {furthest:.2g}; expected pixels, not shares of the picture")
    if len(keypoints) != count:
        raise UserError(f"{path}: keypoints for {len(keypoints)} frames, but {whose} {count}; they must be as many")
    with np.load(path, allow_pickle=False) as stored:
        masks = stored.get("mask")
        made_for = tuple(int(stored[key]) for key in ("height", "width") if key in stored)
    if size is not None and len(made_for) == 2 and made_for != size:
        raise UserError(f"{path}: was made for {made_for[1]}x{made_for[0]}, but the video is {size[1]}x{size[0]}")
    if masks is None:
        return keypoints, None
    expected = (count, *masks.shape[1:]) if size is None else (count, size[0], -(-size[1] // 8))
    if masks.dtype != np.uint8 or masks.ndim != 3 or masks.shape != expected:
        shape = f"({count}, height, width / 8)" if size is None else expected
        raise UserError(f"{path}: mask is {masks.dtype} {masks.shape}; expected uint8 {shape}, bits packed by row")
    return keypoints, masks
