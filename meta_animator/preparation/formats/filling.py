"""Layers that the user brings lie in the store as the user's own, before annotators make what is still missing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.formats.maps import LAYERS, Given, Maps, read_layers
from meta_animator.errors import UserError
from meta_animator.preparation.annotating import Annotators
from meta_animator.preparation.footage import Footage, Source
from meta_animator.preparation.planning import Wish, runs_of
from meta_animator.preparation.store import USER, Seen, Store, digest

GIVEN = "given"


class WithGiven:
    """Annotators beside whom the user brings `layers`; those that no annotator gives come last."""

    def __init__(self, annotators: Annotators, layers: Collection[str]) -> None:
        self.annotators = annotators
        self.extra = tuple(layer for layer in layers if layer not in annotators.layers)
        self.layers = (*annotators.layers, *self.extra)
        self.made_by = {**annotators.made_by, **dict.fromkeys(self.extra, GIVEN)}

    @property
    def versions(self) -> Mapping[str, str]:
        return {**self.annotators.versions, **dict.fromkeys(self.extra, GIVEN)}

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        return self.annotators.detect(frames)

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None],
        known: Sequence[Mapping[str, np.ndarray]] | None = None, only: Collection[str] | None = None,
    ) -> list[dict[str, np.ndarray]]:  # fmt: skip
        """As the annotators' own; of the layers that nobody gives, nothing."""
        wanted = set(self.annotators.layers if only is None else only) - set(self.extra)
        return self.annotators.annotate(frames, people, known, wanted) if wanted else [{} for _ in frames]


def with_given(annotators: Annotators, layers: Collection[str]) -> Annotators:
    """The annotators, and the layers that the user brings beside them."""
    return WithGiven(annotators, layers) if layers else annotators


def put_given(given: Given, wishes: Sequence[Wish], home: Path, progress: Callable[[str, int, int], None]) -> list[str]:
    """Saves what the user brings for the wanted frames of all sources in their stores below `home`; returns the layers.

    Raises UserError for maps that do not fit.
    """
    found = given_of(given, [wish.source for wish in wishes])
    total, done = sum(len(wish.unique) for wish in wishes if found[wish.source.name][0]), 0
    for wish in wishes:
        maps, first = found[wish.source.name]
        if maps:
            footage = Footage(wish.source)
            fill(Store(home / wish.source.name, footage.size), footage, wish.unique, maps, first)
            done += len(wish.unique)
            progress("taking over maps", done, total)
    layers = {layer for maps, _ in found.values() for layer in maps}
    return [layer for layer in LAYERS if layer in layers]


def given_of(given: Given, sources: Sequence[Source]) -> dict[str, tuple[dict[str, Maps], int]]:
    """{source's name: (the maps given for it, the number of its first frame in them)}.

    The masks that came with a source are its own. In what the user brings each film has a folder or file of its name, or the only
    film all of it, and each photo has a picture of its name. Raises UserError where a source has none.
    """
    found: dict[str, tuple[dict[str, Maps], int]] = {}
    films = [source for source in sources if source.kind == "clip"]
    for source in films:
        own = _own(given, source, alone=len(films) == 1)
        count = len(Footage(source).timeline.times) if own.paths else 0
        found[source.name] = own.of_film(count, source.path), 0
    photos = [source for source in sources if source.kind == "photo"]
    if photos:
        maps = given.of_photos([source.path for source in photos])
        found |= {source.name: (maps, place) for place, source in enumerate(photos)}
    for source in sources:
        if source.masks is not None and "mask" not in given.paths:
            found[source.name][0]["mask"] = Maps("mask", list(source.masks))
    return found


def fill(store: Store, footage: Footage, indices: Sequence[int], maps: Mapping[str, Maps], first: int = 0) -> None:
    """Saves the maps of these frames as the user's, but for those that were corrected since, or are there already."""
    for start, run in runs_of(indices):
        known, changed = store.read_run(start), False
        for index in run:
            seen = known.setdefault(index, Seen())
            store.look(index, seen)
            keys = {layer: _key(one, first + index) for layer, one in maps.items()}
            stale = [layer for layer, key in keys.items() if not _stays(seen, layer, key)]
            if not stale:
                continue
            arrays = read_layers(maps, first + index, footage.size)
            for layer in stale:
                seen.layers[layer] = store.save(layer, index, arrays[layer], USER, keys[layer])
            changed = True
        if changed:
            store.write_run(start, known)


def _stays(seen: Seen, layer: str, key: str) -> bool:
    made = seen.layers.get(layer)
    return made is not None and made.by == USER and made.key in ("", key)  # "": replaced by hand


def _key(maps: Maps, index: int) -> str:
    path = maps.files[0 if maps.is_film else index]
    facts = path.stat()
    return digest([str(path), facts.st_size, facts.st_mtime_ns, maps.bright, maps.axes])


def _own(given: Given, film: Source, alone: bool) -> Given:
    """What lies below the given paths under the film's name; for a film that is `alone` also the paths themselves."""
    paths = {}
    for layer, path in given.paths.items():
        own = [entry for entry in (path.iterdir() if path.is_dir() else ()) if film.path.stem in (entry.name, entry.stem)]
        if len(own) != 1 and not alone:
            said = f"has {len(own)} entries for {film.path.name}"
            raise UserError(f"{path}: {said}; of several films each has a folder or file of its name")
        paths[layer] = own[0] if len(own) == 1 else path
    return Given(paths=paths, bright=given.bright, axes=given.axes)
