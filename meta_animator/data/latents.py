"""A cache of latents on disk: each frame and condition image is encoded once."""

import bisect
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor

from meta_animator.data.clips import Clip
from meta_animator.data.pose_drop import PoseDrop
from meta_animator.data.transforms import Box
from meta_animator.errors import UserError, check_handles
from meta_animator.files import locked
from meta_animator.weights import save_tensors

FRAME = "frame"  # the name of the frames themselves, beside those of tasks
PLACES = "places"  # in a file's metadata: {key of a view: places of its units in the part}, of views that lack some
PART = 64  # frames in a file: what a crash loses at most, what is in memory at once, and what processes share out

Unit = tuple[int, ...]  # numbers of the frames that are encoded together: one, or those of a clip whose frames share latents
Wanted = Mapping[tuple[str, str, str, int, int], set[Unit]]  # {(a clip's folder, its id, name, crop, drop): units}


@dataclasses.dataclass(frozen=True)
class View:
    """What of a clip is encoded: the frames or a task's condition images, cut to a box and scaled to size (height, width).

    version   of the code that draws it
    drop      what a pose lacks
    """

    name: str
    box: Box
    size: tuple[int, int]
    version: str = ""
    drop: PoseDrop | None = None

    @property
    def key(self) -> str:
        """Its tensor's name in a file; another as soon as anything about the view is."""
        facts = [[round(float(edge), 3) for edge in self.box], self.size, self.version]
        facts += [] if self.drop is None else [dataclasses.astuple(self.drop)]
        return f"{self.name} {hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Units of a clip, together about `PART` frames, and the file of their latents."""

    clip: Clip
    units: list[Unit]
    path: Path

    @property
    def num_frames(self) -> int:
        return sum(map(len, self.units))


class LatentCache:
    """`<folder>/<key>/<clip>-<stamp>.safetensors`, a file for each part of a clip, with a tensor (u f' c h w), its first two axes
    as one, for each view: f' latent frames of each of the part's units, or of some of them, which the file's metadata name.

    The key is made of what all latents depend on (base, precision), the stamp of the clip's files and the part's frames.
    Files are mapped into memory while they are read, none stays open, and several processes may add to one cache.
    """

    def __init__(
        self, folder: Path, depends_on: Mapping[str, Any], kept: Sequence[tuple[Clip, list[Unit]]], tasks: Sequence[str],
        view: Callable[[Clip, str, int, int], View], crops: int = 1, drops: int = 0, wanted: Wanted | None = None,
    ):  # fmt: skip
        """kept: what may be read of each clip, in order, all units of one length; view(clip, name, crop, drop): what a crop
        of it shows, of a pose without what the variant `drop` leaves out, 1 to `drops`, 0: the whole; wanted: what of it all
        will be read, None: everything."""
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
        self.folder, self.kept, self.tasks, self.view = folder / key, list(kept), list(tasks), view
        self.crops, self.drops, self.wanted = crops, drops, wanted
        self.parts = [part for clip, units in self.kept for part in self._parts(clip, units)]
        self._by_clip: dict[tuple[str, str], list[Part]] = {}
        for part in self.parts:
            self._by_clip.setdefault(name_of(part.clip), []).append(part)

    def _parts(self, clip: Clip, units: list[Unit]) -> list[Part]:
        """Clips of one name in two data sets, or changed on disk, have files of their own."""
        parts, at_once = [], max(1, PART // max(map(len, units), default=1))
        for start in range(0, len(units), at_once):
            some = units[start : start + at_once]
            named = [unit[0] for unit in some] if all(len(unit) == 1 for unit in some) else some
            stamp = hashlib.sha256(f"{clip.folder.resolve()}:{clip.stamp()}:{named}".encode()).hexdigest()[:10]
            parts.append(Part(clip, some, self.folder / f"{clip.id}-{stamp}.safetensors"))
        return parts

    def share(self, rank: int, ranks: int) -> list[Part]:
        """The parts that one of several processes fills: about as many frames as each of the others, and the same whatever is
        there already."""
        loads, own = [0] * ranks, []
        for part in self.parts:
            lightest = loads.index(min(loads))
            loads[lightest] += part.num_frames
            own += [part] if lightest == rank else []
        return own

    def missing(self, part: Part) -> dict[View, list[int]]:
        """{view: places of the part's units} of what is wanted and not there yet. A file that is damaged counts as none, and is
        said."""
        there, wanted = _places(part), {}
        names = [FRAME, *(task for task in self.tasks if task in part.clip.available_tasks())]
        for crop, drop, name in itertools.product(range(self.crops), range(1 + self.drops), names):
            if places := self._wanted(part, name, crop, drop):
                wanted.setdefault(self.view(part.clip, name, crop, drop), set()).update(places)
        left = {view: sorted(places.difference(there.get(view.key, ()))) for view, places in wanted.items()}
        return {view: places for view, places in left.items() if places}

    def _wanted(self, part: Part, name: str, crop: int, drop: int) -> Sequence[int]:
        if self.wanted is None:
            return range(len(part.units))
        units = self.wanted.get((*name_of(part.clip), name, crop, drop), ())
        return [place for place, unit in enumerate(part.units) if unit in units]

    def add(self, part: Part, latents: Mapping[View, tuple[Sequence[int], Tensor]]) -> None:
        """Latents (u f' c h w), the first two axes as one, of views and the units at these places, beside those that the file
        has."""
        with locked(self.folder / ".lock"):
            rows = {key: _rows(places, _tensor(part.path, key)) for key, places in _places(part).items()}
            for view, (places, tensor) in latents.items():
                rows.setdefault(view.key, {}).update(_rows(places, tensor))
            ordered = {key: dict(sorted(found.items())) for key, found in rows.items()}
            some = {key: list(found) for key, found in ordered.items() if len(found) < len(part.units)}
            tensors = {key: torch.cat(list(found.values())) for key, found in ordered.items()}
            save_tensors(tensors, part.path, {PLACES: json.dumps(some)} if some else None)

    def read(self, clip: Clip, name: str, frames: Sequence[int], crop: int = 0, drop: int = 0) -> Tensor:
        """Latents (f' c h w) in float32: of these frames as a unit where they are kept as one, otherwise of each by
        itself. Raises UserError where their file has gone."""
        parts, key = self._by_clip[name_of(clip)], self.view(clip, name, crop, drop).key
        firsts = [part.units[0] for part in parts]
        together = _place(parts, firsts, tuple(frames)) is not None
        units = [tuple(frames)] if together else [(frame,) for frame in frames]
        chosen: dict[int, list[tuple[Unit, int]]] = {}
        for unit in units:
            number, place = _place(parts, firsts, unit)
            chosen.setdefault(number, []).append((unit, place))
        found = {}
        for number, some in chosen.items():
            part = parts[number]
            try:
                with safe_open(part.path, "pt") as file:
                    stored, places = file.get_slice(key), _places_in(file, part).get(key)
                    rows = {place: row for row, place in enumerate(places)}
                    each = stored.get_shape()[0] // len(rows)
                    found |= {unit: stored[rows[place] * each : (rows[place] + 1) * each] for unit, place in some}
            except (OSError, SafetensorError, LookupError, ValueError) as error:
                check_handles(error, part.path)
                raise UserError(f"{part.path}: no cached latents any more ({error}); the same command makes them") from error
        return torch.cat([found[unit] for unit in units]).float()


def _place(parts: Sequence[Part], firsts: Sequence[Unit], unit: Unit) -> tuple[int, int] | None:
    """(number of the part, place in it) of a unit; None where it is not kept."""
    number = bisect.bisect_right(firsts, unit) - 1
    if number < 0:
        return None
    place = bisect.bisect_left(parts[number].units, unit)
    return (number, place) if place < len(parts[number].units) and parts[number].units[place] == unit else None


def _places(part: Part) -> dict[str, Sequence[int]]:
    """{key of a view: places of the units} whose latents the part's file has."""
    if not part.path.exists():
        return {}
    try:
        with safe_open(part.path, "pt") as file:
            return _places_in(file, part)
    except (SafetensorError, ValueError):
        print(f"note: {part.path}: is damaged; its latents are encoded anew")
        part.path.unlink(missing_ok=True)
        return {}


def _places_in(file: safe_open, part: Part) -> dict[str, Sequence[int]]:
    some = json.loads((file.metadata() or {}).get(PLACES, "{}"))
    return {key: some.get(key, range(len(part.units))) for key in file.keys()}  # noqa: SIM118


def _rows(places: Sequence[int], tensor: Tensor) -> dict[int, Tensor]:
    """{place of a unit: its latents (f' c h w)} of a view's tensor."""
    return dict(zip(places, rearrange(tensor, "(u f) c h w -> u f c h w", u=len(places)), strict=True))


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def name_of(clip: Clip) -> tuple[str, str]:
    """What tells a clip from others, in several data sets too."""
    return str(clip.folder), clip.id
