"""Masks, depth, normals and body parts that others made: a picture for each frame or photo, or a film of masks.

mask     white on black, colour or grey; a cut-out's transparency; labels 0, 1, 2, ... in a PNG, all but 0 a person
depth    grey, 8 or 16 bits, near bright (or `bright="far"`)
normal   (n + 1) / 2 in 8 or 16 bits, RGB, black where there is no surface; axes:
         "opengl"   x right, y up, z towards the camera, which are ours
         "directx"  x right, y down, z towards the camera
         "opencv"   x right, y down, z away from the camera
parts    an index into `layers.PARTS` (Sapiens' 28 classes), 8 bits

Maps smaller or larger than the pictures, but of their shape, are scaled.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from meta_animator.data.formats.names import folders_for, natural_key, picture_name, refuse_twins
from meta_animator.data.layers import PARTS
from meta_animator.errors import UserError
from meta_animator.media.images import IMAGE_SUFFIXES, read_map
from meta_animator.media.video import open_film

LAYERS = ("mask", "depth", "normal", "parts")
AXES = {"opengl": (1, 1, 1), "directx": (1, -1, 1), "opencv": (1, -1, -1)}
LABELS = 16  # numbers below which a PNG of a mask holds labels, and not grey levels
GREY = 0.25  # share of neither black nor white from which on a picture is no mask
SAME_SHAPE = 0.02  # share by which the aspect of a map may differ from its picture's


@dataclasses.dataclass(frozen=True)
class Maps:
    """One layer of a film, or of photos, in their order.

    files   a picture for each, or one film for all
    bright  what is bright in depth: "near" or "far"
    axes    of normals, a key of AXES
    """

    layer: str
    files: list[Path]
    is_film: bool = False
    bright: str = "near"
    axes: str = "opengl"

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The layer of frame or photo `index` as `data.layers.Layers` has it, at `size` (height, width). Raises UserError for
        what does not fit."""
        path = self.files[0 if self.is_film else index]
        where = f"{path}, frame {index}" if self.is_film else str(path)
        stored = open_film(path).read([index])[0] if self.is_film else read_map(path)
        have = stored.shape[:2]
        if abs(have[0] * size[1] / (have[1] * size[0]) - 1) > SAME_SHAPE:
            raise UserError(f"{where}: is {have[1]}x{have[0]}, its picture {size[1]}x{size[0]}; expected the same shape")
        if self.layer == "mask":
            lossless = not self.is_film and path.suffix.lower() == ".png"
            return _scaled(decode_mask(stored, lossless, where).astype(np.uint8), size, smooth=False) > 0
        if self.layer == "depth":
            depth = _scaled(_depth(stored, where), size, smooth=True)
            return depth if self.bright == "near" else 1 - depth
        if self.layer == "normal":
            return _unit(_scaled(_normal(stored, where) * np.float32(AXES[self.axes]), size, smooth=True))
        return _scaled(_parts(stored, where), size, smooth=False)


    def key(self, index: int) -> str:
        """A text that is another one when the file of frame or photo `index`, or how it is understood, is."""
        path = self.files[0 if self.is_film else index]
        facts = path.stat()
        about = f"{path} {facts.st_size} {facts.st_mtime_ns} {self.bright} {self.axes}"
        return hashlib.sha256(about.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What a user brings: {layer: folder or film}, and how depth and normals are to be understood."""

    paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    bright: str = "near"
    axes: str = "opengl"

    def of_film(self, count: int, film: Path) -> dict[str, Maps]:
        """{layer: maps of a film's `count` frames}; UserError where they are not as many."""
        return {layer: maps_of_film(layer, path, count, film, **self._options) for layer, path in self.paths.items()}

    def of_photos(self, photos: Sequence[Path]) -> dict[str, Maps]:
        """{layer: maps of these photos}; UserError where one has none."""
        return {layer: maps_of_photos(layer, path, photos, **self._options) for layer, path in self.paths.items()}

    @property
    def _options(self) -> dict[str, str]:
        return {"bright": self.bright, "axes": self.axes}


NOTHING = Given()


def read_layers(maps: Mapping[str, Maps], index: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """{layer: array} of frame or photo `index`, at `size` (height, width); depth is 0 outside of the mask, if there is one."""
    layers = {layer: one.read(index, size) for layer, one in maps.items()}
    if "mask" in layers and "depth" in layers:
        layers["depth"] = layers["depth"] * layers["mask"]
    return layers


def maps_of_film(layer: str, path: Path, count: int, film: Path, **options: str) -> Maps:
    """The maps of a film's `count` frames: a folder of pictures in the order of their names (2 before 10), or for masks a film.
    Raises UserError where they are not as many."""
    if path.is_dir():
        files = pictures_in(path)
        found, is_film = len(files), False
    elif layer == "mask" and path.is_file():
        files, found, is_film = [path], open_film(path).num_frames, True
    else:
        kinds = "a film or a folder of pictures" if layer == "mask" else "a folder of pictures"
        raise UserError(f"{path}: {'is one file' if path.is_file() else 'no such file'}; expected {kinds}, one for each frame")
    if found != count:
        raise UserError(f"{path}: {layer} of {found} frames, but {film} has {count}; they must be as many")
    return Maps(layer, files, is_film, **options)


def maps_of_photos(layer: str, path: Path, photos: Sequence[Path], **options: str) -> Maps:
    """The maps of photos: in a folder, each named like its photo (NAME.png for NAME.jpg), those of several people in folders
    named like the photos' own (`folders_for`); for one photo also a file. UserError where one has none, or two the same."""
    if path.is_file() and len(photos) == 1:
        return Maps(layer, [path], **options)
    if not path.is_dir():
        said = "is one file" if path.is_file() else "no such folder"
        raise UserError(f"{path}: {said}; expected a folder with NAME.png for each photo NAME.jpg")
    named = functools.cache(_pictures_by_name)
    files = []
    for photo in photos:
        places = folders_for(photo, path)
        own = next((own for place in places if (own := named(place).get(picture_name(photo.name)))), [])
        if len(own) != 1:
            said = "has no picture" if not own else f"has both {own[0].name} and {own[1].name}"
            raise UserError(f"{path}: {said} for {photo.name}; expected one, {photo.stem}.png")
        files += own
    refuse_twins(zip(photos, files, strict=True), path)
    return Maps(layer, files, **options)


def _pictures_by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in pictures_in(folder):
        found.setdefault(picture_name(file.name), []).append(file)
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names (2 before 10), but for hidden ones."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    return sorted(files, key=lambda file: natural_key(file.name))


def decode_mask(stored: np.ndarray, lossless: bool, where: str) -> np.ndarray:
    """bool (height, width) of a picture of a mask; transparency counts only where there is some. lossless: whether small numbers
    may be labels. Raises UserError for a picture in many greys."""
    if stored.dtype == np.bool_:
        return stored
    if stored.ndim == 3 and stored.shape[2] in (2, 4) and stored[..., -1].min() < np.iinfo(stored.dtype).max:
        stored = stored[..., -1]
    elif stored.ndim == 3:
        stored = stored[..., : 3 if stored.shape[2] > 2 else 1].max(-1)
    top = np.iinfo(stored.dtype).max
    if lossless and stored.max() < LABELS:
        return stored > 0
    if ((stored > 0.1 * top) & (stored < 0.9 * top)).mean() > GREY:
        raise UserError(f"{where}: is a picture in many greys; expected a mask, white on black")
    return stored > top // 2


def _depth(stored: np.ndarray, where: str) -> np.ndarray:
    if stored.ndim == 3 and (stored[..., :1] != stored[..., 1:3]).any():
        raise UserError(f"{where}: is a coloured picture; expected depth in grey, 8 or 16 bits")
    grey = stored if stored.ndim == 2 else stored[..., 0]
    if grey.dtype == np.bool_:
        raise UserError(f"{where}: is black and white; expected depth in grey, 8 or 16 bits")
    return grey.astype(np.float32) / np.iinfo(grey.dtype).max


def _normal(stored: np.ndarray, where: str) -> np.ndarray:
    if stored.ndim != 3 or stored.shape[2] < 3 or stored.dtype == np.bool_:
        raise UserError(f"{where}: expected normals in RGB, 8 or 16 bits")
    coded = stored[..., :3]
    vectors = coded.astype(np.float32) / (np.iinfo(coded.dtype).max / 2) - 1
    return _unit(vectors) * (coded.max(-1, keepdims=True) > 0)


def _parts(stored: np.ndarray, where: str) -> np.ndarray:
    if stored.ndim != 2:
        raise UserError(f"{where}: has {stored.shape[2]} channels; expected labels in one channel, 0 to {len(PARTS) - 1}")
    if stored.max() >= len(PARTS):
        raise UserError(f"{where}: has label {int(stored.max())}; labels go from 0 to {len(PARTS) - 1}")
    return stored.astype(np.uint8)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; those shorter than a half, on the edge of the background, become zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length >= 0.5, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


def _scaled(array: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    if array.shape[:2] == size:
        return array
    smaller = size[0] < array.shape[0]
    method = cv2.INTER_NEAREST_EXACT if not smooth else cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(array, size[::-1], interpolation=method)
