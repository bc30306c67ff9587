"""Reading `manifest.jsonl`, the table of contents of a data set: one JSON object per line and clip.

{"id", "identity", "prompt", "fps", "num_frames", "width", "height", "kind": "clip"|"photo",
 "layers": {"frame": "clips/<id>/frame", ...}, "conditions": {"<task>": ...}, "split": "train"|"heldout",
 "made_by": {"<layer>": "<annotator>", ...}}
Paths are relative to the manifest's folder and stay inside it. `clips.py` says how each layer is stored.
"""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from meta_animator.data.clips import Clip, driving_clip, picture_path, read_keypoints
from meta_animator.data.conditions import find_condition
from meta_animator.data.layers import LAYER_NAMES
from meta_animator.data.shards import INDEX, ShardPath, check_tars, is_sharded, is_url, read_index, unpack
from meta_animator.data.writer import MANIFEST, DatasetWriter
from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor
from meta_animator.media.images import IMAGE_SUFFIXES
from meta_animator.media.probe import probe_video
from meta_animator.media.timeline import check_fps

__all__ = ["MANIFEST", "Clip", "DatasetWriter", "driving_clip", "find_clip", "read_lines", "read_manifest"]

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "id": str, "identity": str, "fps": (int, float), "num_frames": int, "width": int, "height": int, "kind": str,
    "layers": dict,
}  # fmt: skip
OPTIONAL: dict[str, type | tuple[type, ...]] = {"prompt": str, "conditions": dict, "split": str, "made_by": dict}
CHOICES = {"kind": ("clip", "photo"), "split": ("train", "heldout")}


def is_data_set(folder: str | Path) -> bool:
    """Whether `folder` holds a manifest or tar shards, or is a URL, which is taken for that of shards."""
    return is_sharded(folder) or (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: str | Path) -> list[Clip]:
    """All clips of a data set, checked: files are there, as many and as large as the manifest says. The data set is a folder, or
    tar shards in a folder or at a URL.

    Raises UserError that names the manifest's line for anything else.
    """
    manifest = manifest_of(folder)
    clips: dict[str, Clip] = {}
    for number, clip in read_lines(folder):
        if isinstance(clip, Clip) and clip.id in clips:
            clip = UserError(f"id {clip.id!r} is used twice; every clip needs its own")
        if isinstance(clip, UserError):
            raise UserError(f"{manifest}, line {number}: {clip}") from clip
        clips[clip.id] = clip
    if not clips:
        raise UserError(f"{manifest}: is empty; expected one JSON object per line")
    check_tars([clip.folder for clip in clips.values() if isinstance(clip.folder, ShardPath)])
    if unsteady := [clip.id for clip in clips.values() if clip.times is not None]:
        some = ", ".join(unsteady[:3]) + (", ..." if len(unsteady) > 3 else "")
        warnings.warn(
            f"{manifest}: {len(unsteady)} clips are films without a constant frame rate ({some}); training takes their frames as "
            "evenly spaced; scripts/prepare_data.py makes them so",
            stacklevel=2,
        )
    return list(clips.values())


def manifest_of(folder: str | Path) -> str:
    """The name of the file that lists the clips of a data set."""
    packed = is_url(folder) or (is_sharded(folder) and not (Path(folder) / MANIFEST).is_file())
    return f"{folder}/{INDEX}" if packed else str(Path(folder) / MANIFEST)


def read_lines(folder: str | Path) -> Iterator[tuple[int, Clip | UserError]]:
    """(number, clip or what is wrong with it) of each line of the manifest. Raises UserError where there is none to read."""
    folder = folder if is_url(folder) else Path(folder)
    packed = manifest_of(folder) == f"{folder}/{INDEX}"
    for number, line in enumerate(read_index(folder).split("\n") if packed else _read_lines(folder / MANIFEST), 1):
        if not line.strip():
            continue
        try:
            clip = _parse(folder, line, packed)
            _check_files(clip)
        except UserError as error:
            yield number, error
        else:
            yield number, clip


def find_clip(folder: str | Path, id: str) -> Clip:
    """The clip of this id, or for an empty one the first. Raises UserError with the ids that are there."""
    clips = read_manifest(folder)
    for clip in clips:
        if clip.id == id or not id:
            return clip
    raise UserError(f"{folder}: has no clip '{id}'; it has: {', '.join(clip.id for clip in clips)}")


def _read_lines(manifest: Path) -> list[str]:
    if not manifest.is_file():
        raise UserError(f"{manifest}: no such file; expected a data-set folder made by scripts/prepare_data.py")
    refuse_impostor(manifest)
    try:
        return manifest.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{manifest}: cannot be read as UTF-8 text") from error


def _parse(folder: str | Path | ShardPath, line: str, packed: bool = False) -> Clip:
    """`packed`: the line is one of shards' index."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(entry, dict):
        raise UserError(f"is a JSON {type(entry).__name__}, expected an object {{...}}")
    folder = unpack(folder, entry) if packed else folder
    if missing := [key for key in REQUIRED if key not in entry]:
        raise UserError(f"key {missing[0]!r} is missing")
    known = REQUIRED | OPTIONAL
    for key, value in entry.items():
        if key not in known:
            raise UserError(f"unknown key {key!r}; known keys: {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise UserError(f"{key!r} is {json.dumps(value)[:60]}, of the wrong type")
        if key in CHOICES and value not in CHOICES[key]:
            raise UserError(f"{key!r} is {value!r}, expected one of {', '.join(CHOICES[key])}")
    _check_values(entry)
    return Clip(folder=folder, **entry)


def _check_values(entry: dict[str, Any]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry["id"]):
        raise UserError(f"id {entry['id']!r} may hold only letters, digits, '.', '_' and '-'")
    if not entry["identity"].strip():
        raise UserError("'identity' is empty; expected the person's name")
    for key in ("fps", "num_frames", "width", "height"):
        if not 0 < entry[key] < 1e6:
            raise UserError(f"{key!r} is {entry[key]}, expected a positive number")
    check_fps(entry["fps"], "'fps'")
    if entry["kind"] == "photo" and entry["num_frames"] != 1:
        raise UserError(f"a photo has 1 frame, not {entry['num_frames']}; write one line per photo")
    for layer in entry["layers"]:
        if layer not in LAYER_NAMES:
            raise UserError(f"unknown layer {layer!r}; layers are {', '.join(LAYER_NAMES)}")
    for layer, name in entry.get("made_by", {}).items():
        if layer not in LAYER_NAMES or not isinstance(name, str):
            raise UserError(f"'made_by' says {json.dumps({layer: name})[:60]}; expected a layer and the name of its annotator")
    for task in entry.get("conditions", {}):
        find_condition(task)
    if "frame" not in entry["layers"] and "keypoints" not in entry["layers"] and not entry.get("conditions"):
        raise UserError("has no 'frame' layer, and neither keypoints nor conditions to drive from")


def _check_files(clip: Clip) -> None:
    if isinstance(clip.folder, ShardPath):
        return _check_packed(clip)
    root = clip.folder.resolve()
    for name, relative in [*clip.layers.items(), *clip.conditions.items()]:
        if not isinstance(relative, str) or not relative:
            raise UserError(f"the path of {name!r} is {relative!r}, expected a text")
        path = clip.folder / relative
        if Path(relative).is_absolute() or ".." in Path(relative).parts or not path.resolve().is_relative_to(root):
            raise UserError(f"the path of {name!r}, {relative!r}, leaves the data-set folder")
        if not path.exists():
            raise UserError(f"{name!r} points to {relative!r}, which does not exist")
        if name == "keypoints":
            _expect(name, "frames", len(read_keypoints(path)), clip.num_frames)
        elif path.is_dir():
            _check_pictures(clip, name, path, root)
        elif name in ("frame", *clip.conditions):
            facts = probe_video(path, verify=False)
            _expect(name, "frames", facts.num_frames, clip.num_frames)
            _expect(name, "size", f"{facts.width}x{facts.height}", f"{clip.width}x{clip.height}")
            if not facts.timeline.steady:
                clip.times = facts.timeline.times
        else:
            raise UserError(f"{name!r} points to {relative!r}, expected a folder of PNG files")


def _check_packed(clip: Clip) -> None:
    """That the index lists the files; what is in them was checked when they were packed."""
    for name, relative in [*clip.layers.items(), *clip.conditions.items()]:
        if not isinstance(relative, str) or relative not in clip.folder.stored:
            raise UserError(f"{name!r} points to {relative!r}, which 'stored' does not have")
        stored = clip.folder.stored[relative]
        if stored.single != (name == "keypoints"):
            raise UserError(f"{name!r} is {'one file' if stored.single else 'several files'} in 'stored'")
        if not stored.single:
            _expect(name, "frames", len(stored.offsets), clip.num_frames)


def _check_pictures(clip: Clip, name: str, path: Path, root: Path) -> None:
    files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("._")]
    for file in files:
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise UserError(f"{name!r}: {file.name} is a link that leaves the data-set folder")
    _expect(name, "frames", len(files), clip.num_frames)
    numbers = {file.stem for file in files}
    for index in range(clip.num_frames):
        if f"{index:06d}" not in numbers:
            raise UserError(f"{name!r}: {path.name}/{index:06d}.png is missing")
    first = picture_path(path, 0)
    refuse_impostor(first)
    try:
        with Image.open(first) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5
            size = picture.size[::-1] if turned else picture.size
    except OSError as error:
        raise UserError(f"{first}: cannot be read as a picture") from error
    _expect(name, "size", f"{size[0]}x{size[1]}", f"{clip.width}x{clip.height}")


def _expect(name: str, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise UserError(f"{name!r} has {what} {found}, the manifest says {expected}")
