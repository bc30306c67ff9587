"""From what is known of a source's frames to the clips it gives, and a record of every frame."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from meta_animator.annotators.base import Detection
from meta_animator.errors import UserError
from meta_animator.media.timeline import Timeline
from meta_animator.preparation.annotating import OWN
from meta_animator.preparation.clipping import Plan
from meta_animator.preparation.footage import Footage, Source
from meta_animator.preparation.photos import ALIKE, Look, repeats
from meta_animator.preparation.quality import Limits, judge
from meta_animator.preparation.records import FrameRecord
from meta_animator.preparation.store import RUN, Seen, Store
from meta_animator.preparation.tracking import follow

LONGEST = 1000  # frames of a clip: its box is one for all, and it is made at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """Which frames of a source are wanted.

    indices  in order, repeated where one stands longer
    fps      at which they are shown
    heldout  (first, end) frames that are not trained on
    """

    source: Source
    sha: str
    indices: tuple[int, ...]
    fps: float
    times: Sequence[float] = ()
    heldout: tuple[int, int] | None = None

    @property
    def rate(self) -> float:
        """Frames per second that are looked at; 0 for a photo."""
        return self.fps if self.source.kind == "clip" else 0.0

    @property
    def unique(self) -> list[int]:
        return sorted(set(self.indices))


def choose_frames(footage: Footage, fps: float | None) -> tuple[list[int], float]:
    """(numbers of the frames to look at, their rate). Raises UserError for a rate that the film does not have."""
    timeline, path = footage.timeline, footage.source.path
    if footage.source.kind == "photo":
        return [0], 1.0
    if fps is not None and not 0 < fps <= timeline.rate * 1.01:
        has = f"the video has {timeline.rate:g} frames per second"
        raise UserError(f"--fps {fps:g}: {path}: {has}; expected more than 0 and at most that")
    if fps is None and not timeline.steady:
        print(f"note: {path}: {_unsteady(timeline)}")
    return timeline.resampled(fps or 0.0)


def runs_of(indices: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(start of a run of the store, those of ascending `indices` that lie in it)."""
    run: list[int] = []
    for index in indices:
        if run and index // RUN != run[0] // RUN:
            yield run[0] - run[0] % RUN, run
            run = []
        run.append(index)
    if run:
        yield run[0] - run[0] % RUN, run


@dataclasses.dataclass(frozen=True)
class Scene:
    """Consecutive frames without a cut: their numbers, what is known of them, whom to follow, and why not to keep them."""

    indices: list[int]
    seen: list[Seen]
    people: list[Detection | None]
    reasons: list[str]


def scenes_of(wish: Wish, store: Store, look: Collection[str] = ()) -> Iterator[Scene]:
    """The scenes of a source, read as they are needed; none is longer than LONGEST frames. look: layers for `Store.look`."""
    indices: list[int] = []
    seen: list[Seen] = []
    for start, run in runs_of(wish.unique):
        known = store.read_run(start)
        if look and any([store.look(index, known[index], look) for index in run if index in known]):
            store.write_run(start, known)
        for index in run:
            one = known.get(index, Seen())
            if indices and (one.cut or len(indices) == LONGEST):
                yield _scene(indices, seen, wish.fps)
                indices, seen = [], []
            indices.append(index)
            seen.append(one)
    if indices:
        yield _scene(indices, seen, wish.fps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What is kept. layers: that each frame needs; least: frames of a film's clip; alike: whether photos that nearly repeat
    another are kept."""

    layers: tuple[str, ...]
    limits: Limits = Limits()
    least: int = 4
    alike: bool = False


def plan_all(wishes: Sequence[Wish], home: Path, selection: Selection, records: list[FrameRecord]) -> Iterator[Plan]:
    """The clips of all sources, in order; adds a record of each frame to `records`."""
    verdicts: dict[str, dict[int, str]] = {}
    for wish in wishes:
        if wish.source.name not in verdicts:
            verdicts |= _judge([one for one in wishes if one.source.group == wish.source.group], home, selection)
        yield from _plan_source(wish, Store(home / wish.source.name), selection, verdicts.pop(wish.source.name), records)


def _judge(group: Sequence[Wish], home: Path, selection: Selection) -> dict[str, dict[int, str]]:
    """{source: {frame: what speaks against its quality, or ""}} of a film, or of one person's photos."""
    places = [(wish, start, run) for wish in group for start, run in runs_of(wish.unique)]
    facts, keys, looks = [], [], []
    for wish, start, run in places:
        known = Store(home / wish.source.name).read_run(start)
        for index in run:
            seen = known.get(index, Seen())
            keys.append((wish.source.name, index))
            facts.append(seen.facts)
            looks.append(seen.look)
    reasons = judge(facts, selection.limits)
    if not selection.alike:
        _reject_alike(reasons, looks)
    verdicts: dict[str, dict[int, str]] = {wish.source.name: {} for wish in group}
    for (name, index), reason in zip(keys, reasons, strict=True):
        verdicts[name][index] = reason
    return verdicts


def _reject_alike(reasons: list[str], looks: Sequence[Look | None]) -> None:
    good = [k for k, look in enumerate(looks) if look is not None and not reasons[k]]
    for k, other in zip(good, repeats([looks[k] for k in good]), strict=True):
        if other is not None:
            reasons[k] = ALIKE


def _plan_source(
    wish: Wish, store: Store, selection: Selection, verdicts: Mapping[int, str], records: list[FrameRecord]
) -> Iterator[Plan]:
    numbers: Counter[str] = Counter()
    for scene in scenes_of(wish, store):
        reasons = [
            _reason(seen, why, selection.layers) or verdicts[index]
            for index, seen, why in zip(scene.indices, scene.seen, scene.reasons, strict=True)
        ]
        for run, heldout in _kept_runs(scene.indices, reasons, wish.heldout):
            if wish.source.kind == "clip" and len(run) < selection.least:
                for place in run:
                    reasons[place] = f"fewer than {selection.least} good frames in a row"
                continue
            split = "heldout" if heldout else "train"
            numbers[split] += 1
            yield Plan(
                id=_id(wish.source, split, numbers[split]), source=wish.source, sha=wish.sha, layers=selection.layers,
                indices=_repeated(wish.indices, {scene.indices[place] for place in run}), fps=wish.fps, split=split,
            )  # fmt: skip
        records += _records(wish, scene, reasons)


def _scene(indices: list[int], seen: list[Seen], rate: float) -> Scene:
    people, reasons = follow([one.people for one in seen], rate)
    return Scene(indices, seen, people, reasons)


def _reason(seen: Seen, why: str, layers: Sequence[str]) -> str:
    """Why a frame is not kept. Whoever gives a frame's points by hand says that somebody is there."""
    if why and not _is_users(seen, "keypoints"):
        return why
    missing = [layer for layer in layers if layer not in seen.layers or not seen.layers[layer].sha]
    return f"no {missing[0]} could be told" if missing else ""


def _is_users(seen: Seen, layer: str) -> bool:
    return layer in seen.layers and seen.layers[layer].by in OWN


def _kept_runs(
    indices: Sequence[int], reasons: Sequence[str], heldout: tuple[int, int] | None
) -> list[tuple[list[int], bool]]:
    """Runs of places without a reason against them, each with whether it is held out."""
    runs: list[tuple[list[int], bool]] = []
    before = None
    for place, (index, reason) in enumerate(zip(indices, reasons, strict=True)):
        out = heldout is not None and heldout[0] <= index < heldout[1]
        if reason:
            before = None
            continue
        if before != out:
            runs.append(([], out))
        runs[-1][0].append(place)
        before = out
    return runs


def _repeated(indices: Sequence[int], kept: set[int]) -> tuple[int, ...]:
    return tuple(index for index in indices if index in kept)


def _id(source: Source, split: str, number: int) -> str:
    """`walk`, `walk.2`, ... and `walk.heldout`, ...; names of sources have no dot."""
    name = source.name if split == "train" else f"{source.name}.heldout"
    return name if number == 1 else f"{name}.{number}"


def _records(wish: Wish, scene: Scene, reasons: Sequence[str]) -> Iterator[FrameRecord]:
    for index, seen, reason in zip(scene.indices, scene.seen, reasons, strict=True):
        yield FrameRecord(
            source=wish.source.name, index=index, time=float(wish.times[index]) if len(wish.times) else None,
            kept=not reason, reason=reason, facts=seen.facts,
            made_by={layer: made.by for layer, made in seen.layers.items() if made.sha},
        )  # fmt: skip


def _unsteady(timeline: Timeline) -> str:
    gaps = timeline.times[1:] - timeline.times[:-1]
    return (
        f"{gaps.min():.3f} to {gaps.max():.3f} s between frames; taken at {timeline.rate:g} frames per second, repeated where "
        "they stand longer (--fps gives another rate)"
    )

