"""A published data set's sequences as they come, with the masks and keypoints that lie beside their frames: one clip each."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from meta_animator.data.annotations import Entry, check_points
from meta_animator.data.figures import Figure, figure_of_frame, figure_of_points
from meta_animator.data.formats.following import main_person
from meta_animator.data.formats.keypoint_json import read_poses
from meta_animator.data.formats.maps import Maps
from meta_animator.data.layers import Layers
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.media.picture_film import PictureFilm
from meta_animator.media.video import VideoSource
from meta_animator.preparation.footage import slug
from meta_animator.preparation.formats import trees
from meta_animator.preparation.prepare import SHEET_FRAMES, Summary, check_size, cropped, write_sheets
from meta_animator.preparation.sources import Source, each_frame


class Recorded(Source):
    """The frames of one sequence."""

    def __init__(self, sequence: trees.Sequence) -> None:
        super().__init__()
        self.sequence = sequence
        pictures = sequence.frames
        self.film = PictureFilm(sequence.path, pictures, sequence.fps) if pictures else VideoSource(sequence.path)
        self.num_frames, self.fps = self.film.num_frames, self.film.timeline.rate
        self.maps = {} if sequence.masks is None else {"mask": Maps("mask", list(sequence.masks))}
        self.entries = None if sequence.keypoints is None else _entries(sequence.keypoints)
        if self.entries is not None:
            size = self.film.height, self.film.width
            self.points = check_points(sequence.keypoints[0].parent, self._all_keypoints(), size, sequence.name)
            self.empty = sum(not self.shows_person(index) for index in range(self.num_frames))

    def select(self, fps: float | None) -> list[int]:
        """Those shown at 0, 1 / fps, 2 / fps, ... seconds; all without fps."""
        if fps is not None and not 0 < fps <= self.fps * 1.01:
            raise UserError(f"--fps {fps:g}: {self.sequence.path} has {self.fps:g} frames per second; expected at most that")
        return self.film.timeline.resampled(fps or 0.0)[0]

    def title(self, index: int) -> str:
        return f"{self.sequence.name} {index}"

    def read(self, indices: list[int]) -> Iterator[Layers]:
        for index, frame in each_frame(self.film, indices):
            yield self._layers(frame, index)

    def _whole(self, index: int) -> str:
        return self.sequence.name

    def _figure(self, index: int, layers: Layers) -> Figure | None:
        return figure_of_frame(layers) if self.entries is None else figure_of_points(self._all_keypoints(), layers.size)

    def _all_keypoints(self) -> np.ndarray:
        return np.stack([entry.keypoints for entry in self.entries])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeConfig:
    """What to make from the sequences of a data set; the fields are those of `prepare.PrepareConfig`."""

    output: Path
    prompt: str = ""
    size: tuple[int, int] | None = None
    fps: float | None = None
    overwrite: bool = False


def prepare_sequences(
    config: TreeConfig, sequences: Sequence[trees.Sequence], progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Writes a data set with a clip for each sequence, and its sheets. `progress(done, of)` is called after each sequence.

    A sequence that cannot be read is said and left out. Raises UserError where all are.
    """
    check_size(config.size)
    samples: list[tuple[str, Layers]] = []
    frames = heldout = 0
    every = max(1, len(sequences) // SHEET_FRAMES)
    with DatasetWriter(config.output, overwrite=config.overwrite) as writer:
        for done, sequence in enumerate(sequences, 1):
            try:
                source = Recorded(sequence)
                kept = source.select(config.fps)
                shown = _Shown(cropped(source, kept, config.size))
                about = {"identity": sequence.name, "prompt": config.prompt, "split": sequence.split}
                writer.add(id=slug(sequence.name), layers=shown, fps=config.fps or source.fps, **about)
            except UserError as error:
                if config.fps is not None and str(error).startswith("--fps"):
                    raise
                print(f"note: {sequence.name} is left out: {error}")
                continue
            frames += len(kept)
            heldout += len(kept) if sequence.split == "heldout" else 0
            if len(samples) < SHEET_FRAMES and (done - 1) % every == 0:
                samples.append((sequence.name, shown.last))
            if progress is not None:
                progress(done, len(sequences))
        if not frames:
            raise UserError(f"{config.output}: none of {len(sequences)} sequences can be read")
        tasks = write_sheets(writer.staging / "sheets", samples)
    return Summary(frames, heldout, [], 0, tasks)


class _Shown:
    """Passes frames on, and keeps the last for the sheets."""

    def __init__(self, layers: Iterator[Layers]) -> None:
        self.layers, self.last = layers, None

    def __iter__(self) -> Iterator[Layers]:
        for layers in self.layers:
            self.last = layers
            yield layers


def _entries(files: Sequence[Path]) -> list[Entry]:
    poses = [read_poses(file) for file in files]
    if bad := next((file for file, one in zip(files, poses, strict=True) if len(one.people) != 1), None):
        raise UserError(f"{bad}: is not of one frame")
    points = main_person([one.people[0] for one in poses])
    return [Entry(path=file, keypoints=one, size=made.sizes[0]) for file, one, made in zip(files, points, poses, strict=True)]
