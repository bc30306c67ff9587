"""Keypoints and masks that come with a film or photos: read, matched and checked. No pickles.

A film            one .npz: `keypoints` (frames, 133, 3), maybe `mask` (frames, height, width / 8), `width`, `height`
Photos            the same with an entry per photo, in the order of their names (2 before 10), or matched by `names` (photos,).
                  Photos of several sizes: masks in the upper left of one size, zeros around, and maybe `sizes` (photos, 2)
                  = height, width.
Photos, a folder  NAME.npz for each NAME.jpg: `keypoints` (133, 3), maybe `mask` (height, width / 8), `width`, `height`;
                  those of several people in folders of their names
Either            JSON of others (OpenPose, MMPose, rtmlib, COCO, DisCo), as `formats.keypoint_json` describes: a file, or a
                  folder with a file for each frame or photo. Of several people, the largest is followed.

Masks are bits packed by row, np.packbits(mask, axis=-1).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.clips import read_keypoints
from meta_animator.data.formats.following import followed, main_person
from meta_animator.data.formats.keypoint_json import Poses, holds_json, read_poses
from meta_animator.data.formats.names import folders_for, picture_name
from meta_animator.data.formats.names import natural_key as natural_key
from meta_animator.data.keypoints import VISIBLE
from meta_animator.errors import UserError

OUTSIDE = 0.01  # share of the points outside of the picture, from which on it is worth a word
TOO_MANY_OUTSIDE = 0.5  # share that only points of another picture have
SHARES = 2.0  # as far as points go that are shares of the picture and not pixels
ADVICE = (
    "write one .npz per photo (NAME.npz, and --keypoints FOLDER), or masks padded with zeros to one size and "
    "'sizes' (photos, 2) = height, width"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one frame or photo, from the file `path`.

    keypoints  float32 (133, 3)
    mask       uint8 (rows, bytes), packed bits; rows and bytes may be more than the picture has
    size       (height, width) of the picture that it was made for
    """

    path: Path
    keypoints: np.ndarray
    mask: np.ndarray | None = None
    size: tuple[int, int] | None = None

    def mask_of(self, title: str, size: tuple[int, int]) -> np.ndarray | None:
        """bool `size` (height, width). Raises UserError where the entry was made for a picture of another size."""
        if self.size not in (None, size):
            made_for = f"{self.size[1]}x{self.size[0]}"
            raise UserError(f"{self.path}: was made for {made_for}, but {title} is {size[1]}x{size[0]}")
        if self.mask is None:
            return None
        rows, columns = self.mask.shape[0], 8 * self.mask.shape[1]
        unpacked = self.mask.shape == size and size[1] > 1
        if rows < size[0] or columns < size[1] or unpacked:
            raise UserError(
                f"{self.path}: the mask of {title} has {rows} rows of {columns // 8} bytes; one of {size[1]}x{size[0]} needs "
                f"{size[0]} rows of {-(-size[1] // 8)}: np.packbits(mask, axis=-1)"
            )
        bits = np.unpackbits(self.mask, axis=-1).astype(bool)
        mask = bits[: size[0], : size[1]]
        if bits.sum() > mask.sum():
            raise UserError(
                f"{self.path}: the mask of {title} goes on beyond its {size[1]}x{size[0]} pixels; expected it in the upper left, "
                "zeros around"
            )
        return mask


def read_film(path: Path, count: int, video: Path, size: tuple[int, int]) -> list[Entry]:
    """An entry for each of a film's frames. Raises UserError where the file belongs to another film."""
    if holds_json(path):
        return _film_of_poses(path, read_poses(path), count, video, size)
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder without .json, which is for photos; a video takes one .npz with an entry per frame, or JSON"
        )
    stored = _read(path)
    if len(stored["keypoints"]) != count:
        raise UserError(f"{path}: keypoints for {len(stored['keypoints'])} frames, but {video} has {count}; they must be as many")
    made_for = stored.get("size")
    if made_for not in (None, size):
        raise UserError(f"{path}: was made for {made_for[1]}x{made_for[0]}, but the video is {size[1]}x{size[0]}")
    expected = (count, size[0], -(-size[1] // 8))
    if (masks := stored.get("mask")) is not None and masks.shape != expected:
        raise UserError(f"{path}: mask is {masks.dtype} {masks.shape}; expected uint8 {expected}, bits packed by row")
    return _entries(path, stored)


def read_photos(path: Path, photos: Sequence[Path]) -> list[Entry]:
    """An entry for each photo; those of several people may lie in folders named like the photos' own (`folders_for`). Raises
    UserError where one has none, or two would share one."""
    places = [_place_of(photo, path) for photo in photos]
    entries: dict[int, Entry] = {}
    for place in dict.fromkeys(places):
        own = [number for number, where in enumerate(places) if where == place]
        entries |= zip(own, _photos_at(place, [photos[number] for number in own]), strict=True)
    return [entries[number] for number in range(len(photos))]


def _place_of(photo: Path, path: Path) -> Path:
    """Where the keypoints of a photo lie: `path`, or a folder in it."""
    if not path.is_dir():
        return path
    return next((p for p in folders_for(photo, path)[:-1] if holds_json(p) or (p / f"{photo.stem}.npz").is_file()), path)


def _photos_at(path: Path, photos: Sequence[Path]) -> list[Entry]:
    if holds_json(path):
        return _photos_of_poses(path, read_poses(path), photos)
    if path.is_dir():
        return _read_folder(path, photos)
    stored = _read(path)
    if "names" in stored:
        return _by_name(path, _entries(path, stored), [str(name) for name in stored["names"]], photos)
    if (count := len(stored["keypoints"])) != len(photos):
        raise UserError(f"{path}: keypoints for {count} frames, but there are {len(photos)}; they must be as many")
    names = [photo.name for photo in photos]
    if names != sorted(names):
        first = next(k for k, (a, b) in enumerate(zip(names, sorted(names), strict=True)) if a != b)
        print(
            f"note: {path}: has no 'names'; its entries are taken for the photos in counting order, {names[first]} before "
            f"{sorted(names)[first]}, which is not that of the alphabet"
        )
    return _entries(path, stored)


def check_points(path: Path, keypoints: np.ndarray, size: tuple[int, int], title: str) -> tuple[int, int]:
    """(how many seen points of (..., 133, 3) lie outside of pictures of `size` (height, width), how many are seen).

    Raises UserError where they are no pixels, or lie outside for the most part.
    """
    seen = keypoints[keypoints[..., 2] >= VISIBLE][:, :2]
    if not len(seen):
        return 0, 0
    if (furthest := np.abs(seen).max()) <= SHARES:
        raise UserError(f"{path}: no keypoint is beyond {furthest:.2g}; expected pixels, not shares of the picture")
    outside = int(((seen < -0.5) | (seen >= [size[1] - 0.5, size[0] - 0.5])).any(1).sum())
    if outside > TOO_MANY_OUTSIDE * len(seen):
        raise UserError(
            f"{path}: {outside / len(seen):.0%} of the points lie outside of {title} ({size[1]}x{size[0]}); they belong to a "
            "picture of another size"
        )
    return outside, len(seen)


def outside_note(outside: int, seen: int) -> list[str]:
    """What to say of points that lie outside, if anything."""
    if outside <= OUTSIDE * seen:
        return []
    return [f"{outside / seen:.0%} of the points that count as seen lie outside of the picture, and are not drawn there"]


def _film_of_poses(path: Path, poses: Poses, count: int, video: Path, size: tuple[int, int]) -> list[Entry]:
    if len(poses.people) != count:
        raise UserError(f"{path}: keypoints for {len(poses.people)} frames, but {video} has {count}; they must be as many")
    if other := next((made_for for made_for in poses.sizes if made_for not in (None, size)), None):
        raise UserError(f"{path}: was made for {other[1]}x{other[0]}, but the video is {size[1]}x{size[0]}")
    return [Entry(path=path, keypoints=points, size=size) for points in followed(path, poses.people)]


def _photos_of_poses(path: Path, poses: Poses, photos: Sequence[Path]) -> list[Entry]:
    """The largest person of each photo."""
    points = np.stack([main_person([people])[0] for people in poses.people]) if poses.people else []
    entries = [Entry(path=path, keypoints=one, size=size) for one, size in zip(points, poses.sizes, strict=True)]
    if poses.names:
        return _by_name(path, entries, poses.names, photos, picture_name)
    if len(entries) != len(photos):
        raise UserError(f"{path}: keypoints of {len(entries)} pictures, but there are {len(photos)} photos; they must be as many")
    return entries


def _read_folder(folder: Path, photos: Sequence[Path]) -> list[Entry]:
    if twins := [photo for photo in photos if sum(other.stem == photo.stem for other in photos) > 1]:
        names = " and ".join(photo.name for photo in twins[:2])
        raise UserError(f"{folder}: {names} would share {twins[0].stem}.npz; rename one of them")
    if missing := [photo for photo in photos if not (folder / f"{photo.stem}.npz").is_file()]:
        more = f" ({len(missing)} of {len(photos)} photos have none)" if len(missing) > 1 else ""
        raise UserError(f"{folder}: has no {missing[0].stem}.npz for {missing[0].name}{more}")
    entries = []
    for photo in photos:
        path = folder / f"{photo.stem}.npz"
        stored = _read(path, single=True)
        if len(stored["keypoints"]) != 1:
            raise UserError(f"{path}: keypoints for {len(stored['keypoints'])} frames; the file of a photo has (133, 3)")
        entries += _entries(path, stored)
    return entries


def _by_name(
    path: Path, entries: list[Entry], names: list[str], photos: Sequence[Path], of: Callable[[str], str] = lambda name: name
) -> list[Entry]:
    """The entries of these photos; `of` makes of a photo's name that by which the file calls it."""
    if len(names) != len(entries):
        raise UserError(f"{path}: {len(names)} names for {len(entries)} entries; they must be as many")
    names = [re.split(r"[\\/]", name)[-1] for name in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: '{twice[0]}' is named twice")
    places = {name: k for k, name in enumerate(names)}
    found = [places.get(of(photo.name), places.get(of(photo.stem))) for photo in photos]
    if missing := [photo.name for photo, place in zip(photos, found, strict=True) if place is None]:
        more = f" ({len(missing)} of {len(photos)} photos have none)" if len(missing) > 1 else ""
        raise UserError(f"{path}: names no entry for {missing[0]}{more}; its names: {', '.join(names[:4])}")
    if len(set(found)) < len(found):
        twins = [photo.name for photo, place in zip(photos, found, strict=True) if found.count(place) > 1]
        raise UserError(f"{path}: {' and '.join(twins[:2])} would share one entry; rename one of them")
    if unused := [name for k, name in enumerate(names) if k not in found]:
        print(f"note: {path}: {len(unused)} entries are of photos that are not there ({', '.join(unused[:4])})")
    return [entries[place] for place in found]


def _entries(path: Path, stored: dict[str, Any]) -> list[Entry]:
    count, masks = len(stored["keypoints"]), stored.get("mask")
    sizes = stored.get("sizes") or [stored.get("size")] * count
    if masks is not None and (masks.dtype != np.uint8 or masks.ndim != 3 or len(masks) != count):
        shape = f"({count}, height, width / 8)"
        raise UserError(f"{path}: mask is {masks.dtype} {masks.shape}; expected uint8 {shape}, bits packed by row")
    rows = [None] * count if masks is None else list(masks)
    return [
        Entry(path=path, keypoints=points, mask=mask, size=size)
        for points, mask, size in zip(stored["keypoints"], rows, sizes, strict=True)
    ]


def _read(path: Path, single: bool = False) -> dict[str, Any]:
    """keypoints (n, 133, 3) and what else is there: mask uint8 (n, rows, bytes), names, size (height, width), sizes (n of
    these). With `single` the axis n may be left out."""
    keypoints = read_keypoints(path, single=single)
    with np.load(path, allow_pickle=False) as file:
        try:
            raw = {key: file[key] for key in ("mask", "names", "sizes", "width", "height") if key in file}
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise UserError(f"{path}: cannot be read as an .npz of arrays ({error})") from error
            raise UserError(f"{path}: holds an array of arrays, which takes a pickle and is not read; {ADVICE}") from None
    stored: dict[str, Any] = {"keypoints": keypoints} | {key: raw[key] for key in ("mask", "names") if key in raw}
    mask = raw.get("mask")
    if mask is not None:
        stored["mask"] = mask[None] if single and mask.ndim == 2 else mask
    if "width" in raw and "height" in raw:
        stored["size"] = int(raw["height"]), int(raw["width"])
    if "sizes" in raw:
        sizes = raw["sizes"]
        if sizes.shape != (len(keypoints), 2) or not np.issubdtype(sizes.dtype, np.integer):
            expected = f"whole numbers ({len(keypoints)}, 2), height and width"
            raise UserError(f"{path}: sizes are {sizes.dtype} {sizes.shape}; expected {expected}")
        stored["sizes"] = [(int(height), int(width)) for height, width in sizes]
    if "names" in raw and stored["names"].dtype.kind == "S":
        stored["names"] = [name.decode() for name in stored["names"]]
    return stored
