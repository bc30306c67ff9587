"""Frames are decoded, people detected and annotated, and what was told goes to the `store`: the work of one process."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.versions import code_version
from meta_animator.errors import UserError
from meta_animator.preparation.cuts import CutFinder
from meta_animator.preparation.footage import Damaged, Footage, OneOpen, Source
from meta_animator.preparation.photos import look_at
from meta_animator.preparation.quality import measure
from meta_animator.preparation.runs import Cuts, Runs
from meta_animator.preparation.store import GIVEN, USER, Made, Seen, Store, digest, person_key, rounded
from meta_animator.preparation.tracking import nearest

TRANSPARENCY = "transparency"  # of a photo, whose outline is its mask
OWN = (USER, GIVEN, TRANSPARENCY)  # who is not overruled by an annotator


class Annotators(Protocol):
    """What `annotators.sets.AnnotatorSet` is."""

    layers: tuple[str, ...]
    made_by: Mapping[str, str]

    @property
    def versions(self) -> Mapping[str, str]: ...

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]: ...

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None],
        known: Sequence[Mapping[str, np.ndarray]] | None = None, only: Collection[str] | None = None,
    ) -> list[dict[str, np.ndarray]]: ...  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """Work on frames `indices` of a source, ascending.

    margin  frames (before, after) that are looked at for cuts only
    rate    frames per second of the frames looked at; 0: a photo
    people  whom to annotate, by frame; None: whoever is detected
    """

    source: Source
    indices: tuple[int, ...]
    margin: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    rate: float = 0.0
    people: Mapping[int, Detection | None] | None = None


class Rules:
    """What makes what is known of a frame current, or out of date."""

    def __init__(self, annotators: Annotators) -> None:
        self.layers, self.versions = annotators.layers, dict(annotators.versions)
        self.detector = digest(self.versions["people"])
        self._cuts, self._measures = code_version(CutFinder), code_version(measure, look_at)

    def cutter(self, rate: float) -> str:
        return digest([self._cuts, round(rate, 3)]) if rate else ""

    def seen(self, seen: Seen | None, rate: float) -> bool:
        """Whether people and cuts are known."""
        return seen is not None and seen.detector == self.detector and seen.cutter == self.cutter(rate)

    def wanted(self, seen: Seen, person: Detection | None) -> dict[str, str]:
        """{layer: what it is to be made from}, for those that are not the user's; a layer depends on the user's before it."""
        keys: dict[str, str] = {}
        for place, layer in enumerate(self.layers):
            made = seen.layers.get(layer)
            if person is None or (made is not None and made.by in OWN):
                continue
            before = {name: seen.layers[name].sha for name in self.layers[:place] if _is_own(seen, name)}
            others = {name: sha for name, sha in before.items() if self.versions[name] != self.versions[layer]}
            keys[layer] = digest([self.versions[layer], person_key(person), others])
        return keys

    def missing(self, seen: Seen, person: Detection | None) -> list[str]:
        """The layers that are to be made, or made anew."""
        wanted = self.wanted(seen, person)
        return [layer for layer, key in wanted.items() if layer not in seen.layers or seen.layers[layer].key != key]

    def surplus(self, seen: Seen, person: Detection | None) -> list[str]:
        """The layers that no annotator gives any more, or of somebody who is not there."""
        wanted = self.wanted(seen, person)
        return [layer for layer, made in seen.layers.items() if made.by not in OWN and layer not in wanted]

    def measured(self, seen: Seen, person: Detection | None) -> str:
        """What the facts of a frame are to be measured from."""
        return digest([self._measures, person_key(person), {name: made.sha for name, made in seen.layers.items()}])

    def current(self, seen: Seen, person: Detection | None) -> bool:
        done = not self.missing(seen, person) and not self.surplus(seen, person)
        return done and seen.measured == self.measured(seen, person)


class Worker:
    """Does spans, one after the other."""

    def __init__(self, annotators: Annotators, home: Path) -> None:
        """home: the folder of all stores."""
        self.annotators, self.home = annotators, home
        self.tell: Callable[[int], None] = lambda frames: None  # called with the number of frames that were done
        self.rules = Rules(annotators)
        self._open = OneOpen()

    def do(self, span: Span) -> str:
        """Returns why the source cannot be read, or "". Raises UserError for files that do not fit."""
        footage = self._open.of(span.source)
        try:
            store = Store(self.home / span.source.name, footage.size)
        except UserError as error:
            if span.source.kind == "photo":
                return str(error)
            raise
        try:
            if span.people is None:
                self._see(footage, store, span)
            else:
                self._annotate_span(footage, store, span)
        except Damaged as error:
            return str(error)
        return ""

    def close(self) -> None:
        self._open.close()

    def _see(self, footage: Footage, store: Store, span: Span) -> None:
        """Detects people and cuts; annotates whoever is likely to be followed, so that most frames are decoded once."""
        runs, wanted, last = Runs(store), set(span.indices), None
        cuts = Cuts(span.rate, runs) if span.rate else None
        for some, frames in footage.read([*span.margin[0], *span.indices, *span.margin[1]]):
            new = [k for k, index in enumerate(some) if index in wanted]
            people: dict[int, Detection | None] = {}
            for k, found in zip(new, self.annotators.detect([frames[k] for k in new]) if new else [], strict=True):
                seen = runs.get(some[k])
                found = [rounded(one) for one in found]
                seen.people, seen.detector = found, self.rules.detector
                seen.cut, seen.cutter = False, self.rules.cutter(span.rate)
                people[some[k]] = last = nearest(found, last)
            if new:
                self._annotate(footage, store, runs, [some[k] for k in new], [frames[k] for k in new], people)
            for index, frame in zip(some, frames, strict=True):
                if cuts is not None:
                    cuts.add(index, frame, index in wanted)
            runs.write(until=some[-1] if cuts is None else cuts.settled)
            self.tell(len(new))
        if cuts is not None:
            cuts.finish()
        runs.write()

    def _annotate_span(self, footage: Footage, store: Store, span: Span) -> None:
        runs = Runs(store)
        for some, frames in footage.read(span.indices):
            self._annotate(footage, store, runs, some, list(frames), span.people)
            runs.write(until=some[-1])
            self.tell(len(some))
        runs.write()

    def _annotate(
        self, footage: Footage, store: Store, runs: Runs, indices: list[int], frames: list[np.ndarray],
        people: Mapping[int, Detection | None],
    ) -> None:  # fmt: skip
        """Makes what is missing of these frames, and measures them."""
        todo: dict[int, list[str]] = {}
        for index in indices:
            seen, person = runs.get(index), people[index]
            store.look(index, seen, self.rules.layers)
            if "mask" in self.rules.missing(seen, person) and (alpha := footage.alpha()) is not None:
                seen.layers["mask"] = store.save("mask", index, alpha, TRANSPARENCY, "")
            for layer in self.rules.surplus(seen, person):
                runs.remove(index, layer)
            if missing := self.rules.missing(seen, person):
                runs.expect(index, missing)
                todo[index] = missing
        runs.write_expected()
        if todo:
            self._ask(store, runs, todo, dict(zip(indices, frames, strict=True)), people)
        for index, frame in zip(indices, frames, strict=True):
            seen, person = runs.get(index), people[index]
            if seen.measured != self.rules.measured(seen, person):
                layers = store.load(index, seen)
                seen.facts = measure(frame, layers, person)
                if footage.source.kind == "photo":
                    seen.look = look_at(footage.source.path.name, frame, layers, seen.facts)
                seen.measured = self.rules.measured(seen, person)

    def _ask(
        self, store: Store, runs: Runs, todo: Mapping[int, list[str]], frames: Mapping[int, np.ndarray],
        people: Mapping[int, Detection | None],
    ) -> None:  # fmt: skip
        known = [store.load(index, runs.get(index)) for index in todo]
        only = {layer for missing in todo.values() for layer in missing}
        answers = self.annotators.annotate([frames[i] for i in todo], [people[i] for i in todo], known, only)
        for (index, missing), answer in zip(todo.items(), answers, strict=True):
            seen = runs.get(index)
            keys = self.rules.wanted(seen, people[index])
            for layer in missing:
                by = self.annotators.made_by[layer]
                seen.layers[layer] = (
                    store.save(layer, index, answer[layer], by, keys[layer]) if layer in answer else Made(by, keys[layer])
                )


def _is_own(seen: Seen, layer: str) -> bool:
    return layer in seen.layers and seen.layers[layer].by in OWN
