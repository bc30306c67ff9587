"""Clips to compare, from whatever holds them: a video, a folder of pictures or of clips, a data set, or what stage 3 wrote.

A folder of pictures is one clip, or several where the names begin differently: dance_0001.png and squat_0001.png belong to
`dance` and `squat`. Clips are paired by name; a single one on either side needs none.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from meta_animator.config import load_config
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import Clip, is_data_set, read_manifest
from meta_animator.data.transforms import move_keypoints
from meta_animator.errors import UserError
from meta_animator.evaluation.animation import driving_frames, load_layers, margin_of
from meta_animator.media.images import IMAGE_SUFFIXES, read_image
from meta_animator.media.video import open_film

FILM_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
SAID = 3  # names in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One clip that can be loaded.

    where   its file or folder, for messages
    frames  which frames of the other side's clip its own ones belong to; None: all, one by one
    margin  `data.person_margin` that stage 3 cropped it by; None where it was not stage 3
    load    called with (size, margin): the frames with what is known of them; a data set's are cropped to that size (height,
            width) where it is given, those of others come as they are
    """

    name: str
    where: Path
    load: Callable[[tuple[int, int] | None, float], list[Layers]]
    frames: list[int] | None = None
    margin: float | None = None


def read_sources(path: Path) -> dict[str, Source]:
    """{name: clip} of a file or folder. Raises UserError for what holds no clip."""
    if path.is_file():
        return {path.stem: _film(path)}
    if is_data_set(path):
        return {clip.id: _known(path, clip) for clip in read_manifest(path) if clip.has_frames}
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if (path / "frames").is_dir():
        return {path.name: _sampled(path)}
    inside = sorted(path.glob("[!.]*"))
    pictures = [one for one in inside if one.suffix.lower() in IMAGE_SUFFIXES]
    clips = [one for one in inside if _is_film(one) or (one.is_dir() and _holds_pictures(one))]
    if pictures and clips:
        raise UserError(f"{path}: holds pictures ({pictures[0].name}) and clips ({clips[0].name}); expected either")
    if not pictures and not clips:
        raise UserError(f"{path}: holds no clip; expected videos, pictures, folders of them, a data set, or what stage 3 wrote")
    if pictures:
        return {name: _pictures(name, path, files) for name, files in _by_clip(pictures, path.name).items()}
    sources: dict[str, Source] = {}
    for one in clips:
        source = _film(one) if one.is_file() else _sampled(one) if (one / "frames").is_dir() else _pictures(one.name, one)
        if source.name in sources:
            raise UserError(f"{path}: two clips are named {source.name!r}; every clip needs its own name")
        sources[source.name] = source
    return sources


def pair(
    generated: Mapping[str, Source], truth: Mapping[str, Source], names: Iterable[str] = ()
) -> dict[str, tuple[Source, Source]]:
    """{name: (generated, true)}, of the clips of these names or, without any, of all.

    A name also fits a longer one that ends in "_" and the name, as TiktokDance_00337 does 00337, on either side. Raises UserError
    where one side lacks a clip, or has several that fit.
    """
    wanted = tuple(names)
    if not wanted and len(generated) == len(truth) == 1:
        (name, ours), (theirs,) = next(iter(generated.items())), truth.values()
        return {name: (ours, theirs)}
    if len(wanted) == 1 and len(generated) == 1 and (theirs := _find(truth, wanted[0])) is not None:
        return {wanted[0]: (next(iter(generated.values())), theirs)}
    wanted = wanted or (*truth, *(name for name in generated if not any(_fit(name, other) for other in truth)))
    for side, sources in (("generated", generated), ("true", truth)):
        if missing := [name for name in wanted if _find(sources, name) is None]:
            there = next(iter(sources.values())).where.parent
            if several := [other for other in sources if _fit(other, missing[0])]:
                raise UserError(f"clip {missing[0]!r}: several {side} ones fit, {_some(several)}; name clips alike on both sides")
            raise UserError(
                f"{len(missing)} of {len(wanted)} clips have no {side} one: {_some(missing)}; {there} has {_some(sources)}; "
                "name those to compare with --clips"
            )
    return {name: (_find(generated, name), _find(truth, name)) for name in wanted}


def load_pair(ours: Source, theirs: Source, size: tuple[int, int] | None) -> tuple[list[Layers], list[Layers]]:
    """(generated, true) frames of one size, as many of each. size: (height, width) that the middle of all is brought to.

    Raises UserError where counts or sizes do not fit.
    """
    generated = ours.load(None, 0.0)
    wanted = generated[0].size
    truth = theirs.load(None if ours.margin is None else wanted, ours.margin or 0.0)
    if ours.frames is not None:
        if max(ours.frames) >= len(truth):
            raise UserError(f"{ours.where}: shows up to frame {max(ours.frames)}, {theirs.where} has only {len(truth)} frames")
        truth = [truth[k] for k in ours.frames]
    if len(truth) != len(generated):
        raise UserError(f"{ours.where} has {len(generated)} frames, {theirs.where} has {len(truth)}; expected as many")
    if size is not None:
        return [middle(layers, size) for layers in generated], [middle(layers, size) for layers in truth]
    if truth[0].size != wanted:
        shown = " and ".join(f"{width}x{height}" for height, width in (wanted, truth[0].size))
        raise UserError(f"{ours.where} and {theirs.where} differ in size, {shown} pixels; --size WxH brings both to one")
    return generated, truth


def read_photos(path: Path | None, generated: Path) -> list[np.ndarray]:
    """The photos uint8 (h, w, 3) in a file, folder or data set (those that are not held out); without `path` those that the
    folders of stage 3 in or at `generated` were sampled with, as far as they are still there."""
    return [photo for place in photo_places(path, generated) for photo in _photos(place)]


def photo_places(path: Path | None, generated: Path) -> list[Path]:
    """The files and folders that `read_photos` reads."""
    if path is not None:
        return [path]
    configs = [generated / "config.yaml", *generated.glob("*/config.yaml")] if generated.is_dir() else []
    named = {load_config(config, []).sample.reference for config in configs if config.is_file()}
    return [Path(place) for place in sorted(named) if place and Path(place).exists()]


def photos_as_shown(places: Iterable[Path], size: tuple[int, int], margin: float) -> list[np.ndarray]:
    """Those of the data sets among `places`, cropped to `size` (height, width) around the person, as stage 3 crops its truth."""
    sets = [read_manifest(place) for place in places if is_data_set(place)]
    clips = [clip for one in sets for clip in one if clip.split == "train" and clip.has_frames]
    return [layers.frame for layers in load_layers(clips, size, margin)]


def _photos(path: Path) -> list[np.ndarray]:
    if path.is_file():
        return [layers.frame for layers in _film(path).load(None, 0.0)] if _is_film(path) else [read_image(path)]
    if is_data_set(path):
        clips = [clip for clip in read_manifest(path) if clip.split == "train" and clip.has_frames]
        return [clip.load(k, ("frame",)).frame for clip in clips for k in range(clip.num_frames)]
    photos = [read_image(file) for file in _picture_files(path)] if path.is_dir() else []
    if not photos:
        raise UserError(f"{path}: holds no photos")
    return photos


def middle(layers: Layers, size: tuple[int, int]) -> Layers:
    """The largest part around the middle that has the shape of `size` (height, width), brought to it: areas where it shrinks,
    bilinear where it grows."""
    height, width = layers.size
    scale = max(size[0] / height, size[1] / width)
    high, wide = min(round(size[0] / scale), height), min(round(size[1] / scale), width)
    top, left = (height - high) // 2, (width - wide) // 2
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def cut(picture: np.ndarray, how: int) -> np.ndarray:
        part = np.ascontiguousarray(picture[top : top + high, left : left + wide])
        return part if part.shape[:2] == size else cv2.resize(part, size[::-1], interpolation=how)

    points = layers.keypoints
    if points is not None:
        points = move_keypoints(points, (left, top, left + wide, top + high), size)
    mask = None if layers.mask is None else cut(layers.mask.astype(np.uint8), cv2.INTER_NEAREST).astype(bool)
    return Layers(frame=cut(layers.frame, way), mask=mask, keypoints=points)


def _is_film(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in FILM_SUFFIXES


def _sampled(folder: Path) -> Source:
    """What stage 3 wrote."""
    source = _pictures(folder.name, folder / "frames")
    count = len(_picture_files(folder / "frames"))
    frames = driving_frames(folder, count) if (folder / "times.json").is_file() else None
    margin = margin_of(folder) if (folder / "config.yaml").is_file() else None
    return dataclasses.replace(source, frames=frames, margin=margin)


def _known(data_set: Path, clip: Clip) -> Source:
    def load(size: tuple[int, int] | None, margin: float) -> list[Layers]:
        return [clip.load(k) for k in range(clip.num_frames)] if size is None else load_layers([clip], size, margin)

    return Source(name=clip.id, where=data_set / clip.id, load=load)


def _film(path: Path) -> Source:
    def load(size: tuple[int, int] | None, margin: float) -> list[Layers]:
        film = open_film(path)
        return [Layers(frame=frame) for frame in film.read(range(film.num_frames))]

    return Source(name=path.stem, where=path, load=load)


def _pictures(name: str, folder: Path, files: list[Path] | None = None) -> Source:
    found = files or _picture_files(folder)
    if not found:
        raise UserError(f"{folder}: no frames")

    def load(size: tuple[int, int] | None, margin: float) -> list[Layers]:
        frames = [read_image(file) for file in found]
        if odd := next((file for file, frame in zip(found, frames, strict=True) if frame.shape != frames[0].shape), None):
            raise UserError(f"{odd}: differs in size from {found[0].name}; expected frames of one size")
        return [Layers(frame=frame) for frame in frames]

    return Source(name=name, where=folder, load=load)


def _picture_files(folder: Path) -> list[Path]:
    return sorted((one for one in folder.glob("[!.]*") if one.suffix.lower() in IMAGE_SUFFIXES), key=_number)


def _holds_pictures(folder: Path) -> bool:
    return (folder / "frames").is_dir() or any(one.suffix.lower() in IMAGE_SUFFIXES for one in folder.glob("[!.]*"))


def _by_clip(files: list[Path], alone: str) -> dict[str, list[Path]]:
    """Pictures by what their names begin with, before the last number and what joins it."""
    clips: dict[str, list[Path]] = {}
    for file in files:
        name = re.sub(r"[_\-. ]*\d+\D*$", "", file.stem)
        clips.setdefault(name or alone, []).append(file)
    return {name: sorted(some, key=_number) for name, some in clips.items()}


def _number(file: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1]) if digits else -1, file.name


def _find(sources: Mapping[str, Source], name: str) -> Source | None:
    fitting = [name] if name in sources else [other for other in sources if _fit(other, name)]
    return sources[fitting[0]] if len(fitting) == 1 else None


def _fit(one: str, other: str) -> bool:
    return one == other or one.endswith(f"_{other}") or other.endswith(f"_{one}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SAID]) + (", ..." if len(listed) > SAID else "")
