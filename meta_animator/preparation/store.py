"""What is known of each frame of a source, in files that a person can look at, delete or replace.

NAME/annotated/SOURCE/source.json            which file it is of
                     /keypoints/000012.json  {"keypoints": [[x, y, score], ... 133 of them]}, in pixels of the source
                     /mask/000012.png        0 or 255, of the source's size; depth, normal and parts likewise (see `data.clips`)
                     /frames/000000.json     what was seen and measured in a run of frames, who made which file, and from what

A file that was deleted is made anew. One that is not as it was made is the user's, and stays.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.clips import decode_map
from meta_animator.data.formats.maps import decode_mask
from meta_animator.data.keypoints import NUM_KEYPOINTS
from meta_animator.data.writer import encode_map
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.media.images import read_map, write_image
from meta_animator.media.probe import check_file
from meta_animator.preparation.footage import content_hash
from meta_animator.preparation.photos import Look

RUN = 64  # frames whose facts share a file
USER, GIVEN = "user", "given"  # by hand in the store; brought beside the footage, and theirs while it is
NOBODY, AGAIN = "", "?"  # who made what is not there, or is just being made anew
UNSEEN = -999.0  # in the place of coordinates that are not known
DIGITS = 3  # behind the point, of coordinates that are stored


@dataclasses.dataclass
class Made:
    """One layer of a frame.

    by    annotator, "user" or "given"; "?" while it is made anew
    key   what it was made from
    sha   of its file, "" where the annotator could not tell
    stat  size and time of the file when it was last looked at
    """

    by: str
    key: str = ""
    sha: str = ""
    stat: tuple[int, int] = (0, 0)


@dataclasses.dataclass
class Seen:
    """What is known of a frame.

    people   everybody that the detector saw; `detector` says which and how
    cut      whether a scene begins with it; `cutter` says among which frames and how that was told
    facts    what was measured; `measured` says from what
    look     what is remembered of a photo
    layers   {name: how it was made}
    """

    people: list[Detection] = dataclasses.field(default_factory=list)
    detector: str = ""
    cut: bool = False
    cutter: str = ""
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    measured: str = ""
    look: Look | None = None
    layers: dict[str, Made] = dataclasses.field(default_factory=dict)


class Store:
    """The files of one source."""

    def __init__(self, folder: Path, size: tuple[int, int] | None = None) -> None:
        self.folder, self.size = folder, size

    def open_for(self, path: Path, frames: Sequence[Path] = (), lost: dict[str, Path] | None = None) -> str:
        """The content hash of the source, of a folder of `frames` one of their names, sizes and times. What the store holds of
        another source of that name is moved aside; where it holds nothing, it takes over what was known of the same source
        under another name, which is in `lost` as `lost_stores` finds it."""
        lost = {} if lost is None else lost
        if not frames:
            check_file(path)
        about = self.folder / "source.json"
        stat = [digest([[file.name, *_stat(file)] for file in frames])] if frames else list(_stat(path))
        known = _read_known(about)
        if known.get("stat") == stat:
            return known["sha256"]
        sha = stat[0] if frames else content_hash(path)
        if known and known["sha256"] != sha:
            aside = self.folder.with_name(f"{self.folder.name}.{known['sha256']}")
            shutil.rmtree(aside, ignore_errors=True)
            self.folder.rename(aside)
            lost[known["sha256"]] = aside
            print(f"note: {path}: is another file than before; what was known of the old one is kept in {aside}")
        if sha in lost and not self.folder.exists():
            old = lost.pop(sha)
            old.rename(self.folder)
            print(f"note: {path}: what was known of it as {old.name} is taken over")
        _write_json(about, {"file": path.name, "sha256": sha, "stat": stat})
        return sha

    def read_run(self, start: int) -> dict[int, Seen]:
        """What is known of the frames start ... start + RUN - 1; a file that was cut off counts as none."""
        path = self._run(start)
        if not path.is_file():
            return {}
        try:
            return {int(index): _seen(entry) for index, entry in _read_json(path).items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def write_run(self, start: int, frames: Mapping[int, Seen]) -> None:
        _write_json(self._run(start), {str(index): _entry(frames[index]) for index in sorted(frames)})

    def read_note(self, name: str) -> dict[str, Any]:
        """Something else that is known of the source; nothing where it is not."""
        try:
            return _read_json(self.folder / f"{name}.json")
        except (OSError, ValueError):
            return {}

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        _write_json(self.folder / f"{name}.json", value)

    def look(self, index: int, seen: Seen, layers: Collection[str]) -> bool:
        """Looks whether the files of a frame are as they were made: what is gone is forgotten; what is another, or was not made
        here, is the user's. Returns whether anything changed."""
        if not seen.measured:  # it was never done with: what lies there is what an interrupted run has left
            return False
        changed = False
        for layer in {*layers, *seen.layers}:
            made, path = seen.layers.get(layer, Made(NOBODY)), self.path(layer, index)
            if made.by == AGAIN:
                continue
            if not path.is_file():
                if made.sha:
                    del seen.layers[layer]
                    changed = True
                continue
            stat = _stat(path)
            if stat == tuple(made.stat):
                continue
            sha = content_hash(path)
            seen.layers[layer] = Made(USER, "", sha, stat) if sha != made.sha else dataclasses.replace(made, stat=stat)
            changed = True
        return changed

    def save(self, layer: str, index: int, array: np.ndarray, by: str, key: str) -> Made:
        """Writes a layer of a frame; returns how it was made."""
        path = self.path(layer, index)
        if layer == "keypoints":
            rows = [[round(float(value), DIGITS) for value in row] for row in array]
            with whole_file(path) as part:
                part.write_text(json.dumps({"keypoints": rows}).replace("], [", "],\n["), encoding="utf-8")
        else:
            write_image(path, encode_map(layer, array))
        return Made(by, key, content_hash(path), _stat(path))

    def remove(self, layer: str, index: int, seen: Seen) -> None:
        """Removes a layer of a frame, of which `seen` then knows no more."""
        self.path(layer, index).unlink(missing_ok=True)
        del seen.layers[layer]

    def load(self, index: int, seen: Seen) -> dict[str, np.ndarray]:
        """The layers of a frame. Raises UserError for a file that does not fit, which is the user's."""
        return {layer: self.load_layer(layer, index) for layer, made in seen.layers.items() if made.sha}

    def load_layer(self, layer: str, index: int) -> np.ndarray:
        """One layer of a frame. Raises UserError as `load` does."""
        path = self.path(layer, index)
        if layer == "keypoints":
            return read_points(path)
        stored = read_map(path)
        if stored.shape[:2] != self.size:
            have, want = f"{stored.shape[1]}x{stored.shape[0]}", f"{self.size[1]}x{self.size[0]}"
            raise UserError(f"{path}: is {have}, the source {want}; give one of its size, or delete it to have it made anew")
        if layer == "mask" and stored.ndim == 3:  # as many programs save black and white
            return decode_mask(stored, True, str(path))
        return decode_map(layer, stored, str(path))

    def path(self, layer: str, index: int) -> Path:
        return self.folder / layer / f"{index:06d}{'.json' if layer == 'keypoints' else '.png'}"

    def _run(self, start: int) -> Path:
        return self.folder / "frames" / f"{start:06d}.json"


def lost_stores(home: Path, names: Collection[str]) -> dict[str, Path]:
    """{content hash: folder} of the stores below `home` that belong to none of these sources."""
    known = {folder: _read_known(folder / "source.json") for folder in sorted(home.glob("*")) if folder.name not in names}
    return {about["sha256"]: folder for folder, about in known.items() if about}


def read_points(path: Path) -> np.ndarray:
    """float32 (133, 3) of a file as `Store` writes it. Raises UserError for anything else."""
    try:
        points = np.asarray(_read_json(path)["keypoints"], np.float32)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read; expected {{"keypoints": [[x, y, score], ...]}}, or no file') from error
    if points.shape != (NUM_KEYPOINTS, 3):
        raise UserError(f"{path}: keypoints have shape {points.shape}; expected ({NUM_KEYPOINTS}, 3), or no file")
    return np.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0)


def person_key(person: Detection | None) -> str:
    """The same text for the same person in the same place."""
    if person is None:
        return ""
    axis = [] if person.axis is None else np.asarray(person.axis).ravel().tolist()
    return digest([round(float(value), DIGITS) for value in [*person.box, *axis]])


def rounded(person: Detection) -> Detection:
    """As it comes back from a file, so that whoever is annotated again gets the same answer."""
    axis = None if person.axis is None else np.round(np.asarray(person.axis, float), DIGITS)
    box = np.round(np.asarray(person.box, float), DIGITS)
    return Detection(box=box, score=round(float(person.score), DIGITS), axis=axis)


def digest(value: Any) -> str:
    """12 hex digits of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _entry(seen: Seen) -> dict[str, Any]:
    people = [
        {"box": one.box.tolist(), "score": one.score, "axis": None if one.axis is None else one.axis.tolist()}
        for one in map(rounded, seen.people)
    ]
    layers = {name: [made.by, made.key, made.sha, list(made.stat)] for name, made in seen.layers.items()}
    facts = {name: round(float(value), 5) for name, value in seen.facts.items()}
    entry = {
        "people": people, "detector": seen.detector, "cut": seen.cut, "cutter": seen.cutter,
        "facts": facts, "measured": seen.measured, "layers": layers,
    }  # fmt: skip
    if seen.look is not None:
        pose = None if seen.look.pose is None else np.nan_to_num(seen.look.pose, nan=UNSEEN).round(4).tolist()
        entry["look"] = [seen.look.name, np.packbits(seen.look.bits).tobytes().hex(), pose, seen.look.legs]
    return entry


def _seen(entry: dict[str, Any]) -> Seen:
    people = [
        Detection(
            box=np.array(one["box"], float), score=one["score"],
            axis=None if one["axis"] is None else np.array(one["axis"], float),
        )
        for one in entry["people"]
    ]  # fmt: skip
    seen = Seen(people, entry["detector"], entry["cut"], entry["cutter"], dict(entry["facts"]), entry["measured"])
    seen.layers = {name: Made(by, key, sha, tuple(stat)) for name, (by, key, sha, stat) in entry["layers"].items()}
    if "look" in entry:
        name, bits, pose, legs = entry["look"]
        points = None if pose is None else np.array(pose, float)
        seen.look = Look(
            name=name, facts=seen.facts, bits=np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8)).astype(bool),
            pose=None if points is None else np.where(points == UNSEEN, np.nan, points), legs=legs,
        )  # fmt: skip
    return seen


def _read_known(path: Path) -> dict[str, Any]:
    try:
        known = _read_json(path)
        return known if {"sha256", "stat"} <= known.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _stat(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
