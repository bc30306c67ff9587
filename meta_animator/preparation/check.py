"""Everything that is wrong with a data set, found in seconds."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from meta_animator.data.annotations import OUTSIDE, TOO_MANY_OUTSIDE
from meta_animator.data.clips import Clip, picture_path
from meta_animator.data.keypoints import VISIBLE, sees_person
from meta_animator.data.manifest import manifest_of, read_lines
from meta_animator.errors import UserError

LOOKED_AT = 600  # pictures whose pixels are read, of a whole data set
NAMED = 3  # frames that a fault names


@dataclasses.dataclass
class Found:
    """faults and notes, a line each; of how much."""

    faults: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    clips: int = 0
    frames: int = 0
    people: int = 0


def check_folder(folder: str | Path) -> Found:
    """Looks at every line of the manifest and every file it counts on; at the pixels of some. Raises UserError where there is
    no manifest to read."""
    found, clips = Found(), []
    ids: dict[str, int] = {}
    for number, clip in read_lines(folder):
        where = f"{manifest_of(folder)}, line {number}"
        if isinstance(clip, UserError):
            found.faults.append(f"{where}: {clip}")
            continue
        if clip.id in ids:
            found.faults.append(f"{where}: id {clip.id!r} is used already in line {ids[clip.id]}; every clip needs its own")
        ids.setdefault(clip.id, number)
        clips.append((where, clip))
    if not clips and not found.faults:
        found.faults.append(f"{manifest_of(folder)}: is empty; expected one JSON object per line")
    found.clips, found.frames = len(clips), sum(clip.num_frames for _, clip in clips)
    share = min(1.0, LOOKED_AT / max(1, found.frames))
    for where, clip in clips:
        found.faults += [f"{where}: '{clip.id}': {fault}" for fault in _faults(clip, share)]
    found.people = len({clip.identity for _, clip in clips})
    found.notes += list(_identities([clip for _, clip in clips]))
    return found


def _faults(clip: Clip, share: float) -> Iterator[str]:
    sizes = f"{clip.width}x{clip.height}"
    pictures = {name: clip.folder / path for name, path in {**clip.layers, **clip.conditions}.items() if name != "keypoints"}
    for name, folder in pictures.items():
        if folder.is_dir():
            wrong = [(k, size) for k in range(clip.num_frames) if (size := _size(folder, k)) != (clip.width, clip.height)]
            if wrong:
                what = "cannot be read" if wrong[0][1] is None else f"is {wrong[0][1][0]}x{wrong[0][1][1]}, not {sizes}"
                yield f"{name} of {_such(k for k, _ in wrong)} {what}"
    if "keypoints" in clip.layers:
        yield from _point_faults(clip)
    yield from _pixel_faults(clip, share)


def _point_faults(clip: Clip) -> Iterator[str]:
    points = np.stack([clip.load_keypoints(k) for k in range(clip.num_frames)])
    if nobody := np.flatnonzero(~sees_person(points)).tolist():
        yield f"keypoints of {_such(nobody)} show nobody (fewer than 3 points with a score of {VISIBLE:g})"
    seen = points[..., 2] >= VISIBLE
    limits = np.array([clip.width - 0.5, clip.height - 0.5])
    out = seen & ((points[..., :2] < -0.5) | (points[..., :2] >= limits)).any(-1)
    shares = out.sum(1) / np.maximum(seen.sum(1), 1)
    if (far := np.flatnonzero(shares > TOO_MANY_OUTSIDE).tolist()) or out.sum() > OUTSIDE * max(1, seen.sum()):
        which = far or np.flatnonzero(shares > 0).tolist()
        yield f"{out.sum() / max(1, seen.sum()):.0%} of the seen keypoints lie outside of the picture, in {_such(which)}"


def _pixel_faults(clip: Clip, share: float) -> Iterator[str]:
    """What only the pixels tell, of some of the frames."""
    count = max(1, round(share * clip.num_frames))
    some = sorted(random.Random(clip.id).sample(range(clip.num_frames), count))
    empty: list[int] = []
    for index in some:
        try:
            layers = clip.load(index) if clip.has_frames else clip.load(index, ("mask",))
        except UserError as error:
            yield str(error)
            return
        if layers.mask is not None and not layers.mask.any():
            empty.append(index)
    if empty:
        yield f"mask of {_such(empty)} is empty" + ("" if count == clip.num_frames else f" (looked at {count} of them)")


def _identities(clips: list[Clip]) -> Iterator[str]:
    """Names that differ by case or blanks only are most often one person."""
    names = sorted({clip.identity for clip in clips})
    plain: dict[str, str] = {}
    for name in names:
        twin = plain.setdefault(" ".join(name.lower().split()), name)
        if twin != name:
            yield f"people {twin!r} and {name!r} are taken for two; are they one?"


def _size(folder: Path, index: int) -> tuple[int, int] | None:
    """(width, height) of a picture, upright; None where it is none."""
    try:
        with picture_path(folder, index).open("rb") as file, Image.open(file) as picture:
            return picture.size[::-1] if picture.getexif().get(0x0112, 1) >= 5 else picture.size
    except (OSError, UserError):
        return None


def _such(indices) -> str:
    listed = list(indices)
    some = ", ".join(map(str, listed[:NAMED])) + (", ..." if len(listed) > NAMED else "")
    return f"frame {listed[0]}" if len(listed) == 1 else f"{len(listed)} frames ({some})"
