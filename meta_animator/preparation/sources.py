"""Where frames to prepare come from: a film or photos, with keypoints and maps that others made."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.data.annotations import Entry, check_points, natural_key, outside_note, read_film, read_photos
from meta_animator.data.crops import Framing, crop_notes, figure_crop
from meta_animator.data.figures import Figure, figure_of_frame, figure_of_points
from meta_animator.data.formats.maps import NOTHING, Given, Maps, read_layers
from meta_animator.data.keypoints import sees_person
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import Box
from meta_animator.errors import UserError
from meta_animator.media.images import HEIC_SUFFIXES, IMAGE_SUFFIXES, PHOTO_SUFFIXES, can_read_heic, read_alpha, read_image
from meta_animator.media.picture_film import PictureFilm
from meta_animator.media.video import VideoSource

CHUNK = 16  # frames decoded at once


def each_frame(film: VideoSource | PictureFilm, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, uint8 (height, width, 3) RGB) of each of these frames, of which few are in memory at once."""
    for start in range(0, len(indices), CHUNK):
        part = indices[start : start + CHUNK]
        yield from zip(part, film.read(part), strict=True)


class Source(abc.ABC):
    """Frames with what is known of them. Subclasses set these, and `read`."""

    num_frames: int
    fps = 1.0
    entries: list[Entry] | None
    maps: Mapping[str, Maps]

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self.empty = 0
        self.shown: dict[str, Framing] = {}
        self.points = (0, 0)  # that lie outside, that are seen; of the frames that were read

    @abc.abstractmethod
    def select(self, fps: float | None) -> list[int]:
        """Numbers of the frames to keep."""

    def title(self, index: int) -> str:
        """A short name of the frame for sheets."""
        return str(index)

    def shows_person(self, index: int) -> bool:
        """Whether at least three points are seen; True where there are no keypoints to tell."""
        return self.entries is None or sees_person(self.entries[index].keypoints)

    @abc.abstractmethod
    def read(self, indices: list[int]) -> Iterator[Layers]:
        """Layers of these frames, in order."""

    def box(self, index: int, layers: Layers, size: tuple[int, int]) -> Box:
        """The box of the shape of `size` (height, width) in this frame, around the person; one for a whole film."""
        name, figure = self._whole(index), self._figure(index, layers)
        self.shown[name] = Framing(name, figure, layers.size, size)
        return figure_crop(figure, layers.size, size)

    def _whole(self, index: int) -> str:
        """The name of what is cut to one box together with this frame."""
        return self.title(index)

    def _figure(self, index: int, layers: Layers) -> Figure | None:
        """Where the person is in this frame, or in all that are cut like it."""
        return figure_of_frame(layers)

    def notes(self) -> list[str]:
        """What there is to say of the points and the crops of the frames that were read."""
        return [*outside_note(*self.points), *crop_notes(list(self.shown.values()), 0.0)]

    def _layers(self, frame: np.ndarray, index: int, mask: np.ndarray | None = None) -> Layers:
        layers = {"mask": mask} | read_layers(self.maps, index, frame.shape[:2])
        if self.entries is not None:
            own = self.entries[index].mask_of(self.title(index), frame.shape[:2])
            layers["mask"] = own if own is not None and "mask" not in self.maps else layers["mask"]
            layers["keypoints"] = self.entries[index].keypoints
        return Layers(frame=frame, **layers)


class Video(Source):
    """The frames of a video."""

    def __init__(self, path: Path, keypoints: Path | None, given: Given = NOTHING) -> None:
        super().__init__()
        self.video = VideoSource(path)
        self.num_frames, self.fps = self.video.num_frames, self.video.timeline.rate
        size = (self.video.height, self.video.width)
        self.entries = None if keypoints is None else read_film(keypoints, self.num_frames, path, size)
        self.maps = given.of_film(self.num_frames, path)
        self.empty = sum(not self.shows_person(index) for index in range(self.num_frames))
        if self.empty == self.num_frames:
            raise UserError(f"{keypoints}: no person in any of the {self.num_frames} frames (all scores below 0.3)")
        if self.entries is not None:
            self.points = check_points(keypoints, self._all_keypoints(), size, str(path))

    def select(self, fps: float | None) -> list[int]:
        """Those shown at 0, 1 / fps, 2 / fps, ... seconds; without fps all of a steady film, and of another what is shown at
        its usual rate."""
        if fps is not None and not 0 < fps <= self.fps * 1.01:
            raise UserError(f"--fps {fps:g}: the video has {self.fps:g} frames per second; expected more than 0 and at most that")
        timeline = self.video.timeline
        if fps is None and not timeline.steady:
            gaps = np.diff(timeline.times)
            print(
                f"note: {self.video.path}: {gaps.min():.3f} to {gaps.max():.3f} s between frames; taken at {self.fps:g} frames "
                "per second, repeated where they stand longer (--fps gives another rate)"
            )
        return timeline.resampled(fps or 0.0)[0]

    def read(self, indices: list[int]) -> Iterator[Layers]:
        for index, frame in each_frame(self.video, indices):
            yield self._layers(frame, index)

    def _figure(self, index: int, layers: Layers) -> Figure | None:
        return None if self.entries is None else figure_of_points(self._all_keypoints(), layers.size)

    def _whole(self, index: int) -> str:
        return self.video.path.name

    def _all_keypoints(self) -> np.ndarray:
        return np.stack([entry.keypoints for entry in self.entries])


class Photos(Source):
    """Photos in the order of their names (2 before 10); those without a person are left out."""

    def __init__(self, paths: list[Path], keypoints: Path | None, given: Given = NOTHING) -> None:
        super().__init__()
        self.paths, self.num_frames = paths, len(paths)
        self.entries = None if keypoints is None else read_photos(keypoints, paths)
        self.maps = given.of_photos(paths)
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
            layers = self._layers(read_image(path), index, read_alpha(path))
            if layers.keypoints is not None:
                outside, seen = check_points(self.entries[index].path, layers.keypoints, layers.size, path.name)
                self.points = (self.points[0] + outside, self.points[1] + seen)
            yield layers


def find_photos(inputs: Sequence[Path]) -> list[Path]:
    """The photos among the inputs in the order of their names (2 before 10); none if the input is a video."""
    if not inputs:
        raise UserError("no input; give a video, a folder of photos, or photos")
    if len(inputs) == 1 and inputs[0].is_dir():
        photos = sorted(_photos_in(inputs[0]), key=lambda path: natural_key(path.name))
        if not photos:
            raise UserError(f"{inputs[0]}: holds no photos ({', '.join(IMAGE_SUFFIXES)})")
        return photos
    photos = [path for path in inputs if path.suffix.lower() in PHOTO_SUFFIXES]
    if len(inputs) > 1 and len(photos) < len(inputs):
        raise UserError(f"{len(inputs)} inputs, {len(photos)} of them photos; give one video, or photos only")
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file; check the path")
    return sorted(photos, key=lambda path: natural_key(path.name))


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
    stems = {path.stem for path in photos}
    annotated = [path for path in files if path.suffix == ".npz" and path.stem in stems]
    if others := [path.name for path in files if path not in [*heic, *photos, *annotated]]:
        some = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        print(f"note: {folder}: left out {len(others)} that are no photos ({some})")
    return photos
