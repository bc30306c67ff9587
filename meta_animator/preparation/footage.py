"""Films and photos as sources of frames: found among files and folders, named, opened and told apart by their content."""

import dataclasses
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from meta_animator.data.annotations import natural_key
from meta_animator.errors import UserError
from meta_animator.media.images import HEIC_ADVICE, HEIC_SUFFIXES, PHOTO_SUFFIXES, can_read_heic, read_alpha, read_image
from meta_animator.media.picture_film import PictureFilm
from meta_animator.media.probe import VideoFacts, probe_video
from meta_animator.media.timeline import Timeline, even
from meta_animator.media.video import VideoSource

FILM_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv",
    ".gif", ".mxf",
)  # fmt: skip
CHUNK = 16  # frames decoded at once
HASHED = 2**20  # bytes read at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A film, as a file or a folder of pictures, or a single photo.

    name      unique among the sources of a data set; letters, digits, '_' and '-'
    identity  whom it shows
    group     what it is judged and shared out together with: the photos of one person; a film is alone
    frames    the pictures of a film that is a folder, in order, and `fps`, frames per second at which they are shown
    masks     pictures of masks that came with it, one for each frame
    split     "heldout": none of it is trained on
    """

    name: str
    path: Path
    kind: Literal["clip", "photo"]
    identity: str
    group: str
    frames: tuple[Path, ...] = ()
    fps: float = 0.0
    masks: tuple[Path, ...] | None = None
    split: Literal["train", "heldout"] = "train"


class Damaged(UserError):
    """Frames of a film that do not decode."""


class Footage:
    """A source and its frames, opened when first needed. Not to be shared between threads or processes."""

    def __init__(self, source: Source, verify: bool = False) -> None:
        """verify: whether the last frame of a film is decoded first, which finds files that were cut off."""
        self.source, self.verify = source, verify
        self._film: VideoSource | PictureFilm | None = None

    @functools.cached_property
    def facts(self) -> VideoFacts | PictureFilm:
        """Of a film. Raises UserError for what cannot be read."""
        source = self.source
        if source.frames:
            return PictureFilm(source.path, source.frames, source.fps)
        return probe_video(source.path, verify=self.verify)

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown; a photo is a single frame."""
        return self.facts.timeline if self.source.kind == "clip" else even(1, 1.0)

    @functools.cached_property
    def photo(self) -> np.ndarray:
        """uint8 (height, width, 3), RGB."""
        return read_image(self.source.path)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, as it is shown."""
        return (self.facts.height, self.facts.width) if self.source.kind == "clip" else self.photo.shape[:2]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Frames of these numbers, at most CHUNK at once: (their numbers, uint8 (n, height, width, 3) RGB). Raises Damaged where
        those of a film do not decode."""
        if self.source.kind == "photo":
            yield from (([index], self.photo[None]) for index in indices)
            return
        if self._film is None:
            facts = self.facts
            is_folder = isinstance(facts, PictureFilm)
            self._film = facts if is_folder else VideoSource(self.source.path, verify=False, facts=facts)
        for start in range(0, len(indices), CHUNK):
            some = list(indices[start : start + CHUNK])
            try:
                frames = self._film.read(some)
            except UserError as error:
                raise Damaged(str(error)) from error
            yield some, frames

    def alpha(self) -> np.ndarray | None:
        """The outline that a photo's transparency draws: bool (height, width), or None."""
        return read_alpha(self.source.path) if self.source.kind == "photo" else None

    def close(self) -> None:
        if self._film is not None:
            self._film.close()
            self._film = None


class OneOpen:
    """Footage of one source after the other: the last one stays open until another is asked for."""

    def __init__(self) -> None:
        self._footage: Footage | None = None

    def of(self, source: Source) -> Footage:
        if self._footage is None or self._footage.source != source:
            self.close()
            self._footage = Footage(source)
        return self._footage

    def close(self) -> None:
        if self._footage is not None:
            self._footage.close()
            self._footage = None


def find_sources(inputs: Sequence[Path], identity: str = "") -> list[Source]:
    """The films and photos among files and folders, in the order of their names (2 before 10).

    Everything shows `identity`. Without one, a folder's sub-folders are people, named like them, each with the films and photos
    below it; everything else shows who is named like the input. Raises UserError where there is nothing to read.
    """
    if not inputs:
        raise UserError("no input; give a video, photos, or a folder of them")
    found: list[tuple[Path, str, str]] = []  # path, name before it is made unique, identity
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file; check the path")
        own = identity.strip() or default_identity(inputs)
        if path.is_dir():
            found += [(file, slug(file.stem), own) for file in _usable(path, path.iterdir())]
            for folder in sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_order):
                files = _usable(folder, folder.rglob("*"))
                found += [(file, slug(f"{folder.name}-{file.stem}"), identity.strip() or folder.name) for file in files]
        else:
            _check_heic([path])
            found.append((path, slug(path.stem), own))
    if not found:
        kinds = ", ".join(sorted({*PHOTO_SUFFIXES, *FILM_SUFFIXES}))
        raise UserError(f"{inputs[0]}: holds no photos and no films ({kinds})")
    unique = list({path.resolve(): (path, name, who) for path, name, who in found}.values())
    names = _unique_names([(path, name) for path, name, _ in unique])
    return [_source(path, name, who) for (path, _, who), name in zip(unique, names, strict=True)]


def check_apart(inputs: Sequence[Path], output: Path, inside: bool = False) -> None:
    """Raises UserError where an input lies in the output, or, unless it may lie `inside`, the output in an input."""
    out = output.resolve()
    for path in inputs:
        own = path.resolve()
        if own == out or out in own.parents:
            raise UserError(f"{path}: lies in the output, {output}; name an output apart from the films and photos")
        if own in out.parents and not inside:
            raise UserError(f"{output}: lies in the input, {path}, and would be read as footage; name a folder beside it")


def default_identity(inputs: Sequence[Path]) -> str:
    """A person's name, from that of the file or folder, as it is spelled."""
    first = inputs[0].resolve()
    name = first.name if first.is_dir() else first.stem if len(inputs) == 1 else first.parent.name
    return name.strip() or "person"


def slug(text: str) -> str:
    """The text with letters, digits, '_' and '-' only, fit to begin an id."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text).lstrip("_-") or "source"


def content_hash(path: Path) -> str:
    """16 hex digits of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while some := file.read(HASHED):
            digest.update(some)
    return digest.hexdigest()[:16]


def _unique_names(found: Sequence[tuple[Path, str]]) -> list[str]:
    """Sources of one name are told apart by their suffix, or else by where they lie; who alone has a name keeps it. Raises
    UserError where that does not do."""
    counts = Counter(name for _, name in found)
    longer = [name if counts[name] == 1 else f"{name}-{slug(path.suffix[1:])}" for path, name in found]
    counts = Counter(longer)
    names = {}
    for (path, name), own in zip(found, longer, strict=True):
        if own != name and counts[own] > 1:
            own += "-" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]
        if own in names:
            raise UserError(f"{path}: would have the same name, {own}, as {names[own]}; rename one of them")
        names[own] = path
    return list(names)


def _source(path: Path, name: str, who: str) -> Source:
    photo = path.suffix.lower() in PHOTO_SUFFIXES
    return Source(
        name=name, path=path, kind="photo" if photo else "clip", identity=who, group=f"photos of {who}" if photo else name
    )


def _usable(folder: Path, entries: Iterator[Path]) -> list[Path]:
    """The films and photos among a folder's entries; says what else it holds. Hidden files are none."""
    files = sorted((path for path in entries if path.is_file() and not _hidden(path, folder)), key=_order)
    usable = [path for path in files if path.suffix.lower() in (*PHOTO_SUFFIXES, *FILM_SUFFIXES)]
    usable = _check_heic(usable, folder)
    if others := [path.name for path in files if path.suffix.lower() not in (*PHOTO_SUFFIXES, *FILM_SUFFIXES)]:
        some = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        print(f"note: {folder}: left out {len(others)} that are neither photos nor films ({some})")
    return usable


def _check_heic(paths: list[Path], folder: Path | None = None) -> list[Path]:
    """Those that can be read here; HEIC photos that cannot are said, or refused where nothing else is left."""
    heic = [path for path in paths if path.suffix.lower() in HEIC_SUFFIXES and not can_read_heic()]
    if not heic:
        return paths
    if folder is None:
        raise UserError(f"{heic[0]}: is a HEIC photo; {HEIC_ADVICE}")
    names = ", ".join(path.name for path in heic)
    missing = f"{folder}: {len(heic)} HEIC photos cannot be read ({names}); pip install pillow-heif, or export them as JPEG"
    if len(heic) == len(paths):
        raise UserError(missing)
    print(f"note: {missing}")
    return [path for path in paths if path not in heic]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _order(path: Path) -> tuple:
    return natural_key(path.name)
