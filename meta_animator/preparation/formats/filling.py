"""Layers that the user brings lie in the store as given, before annotators make what is still missing, for as long as they are
brought."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.annotations import Entry, check_points, read_film, read_photos
from meta_animator.data.formats.maps import LAYERS, Given, Maps, read_layers
from meta_animator.data.formats.names import folders_for, refuse_twins
from meta_animator.data.keypoints import sees_person
from meta_animator.errors import UserError
from meta_animator.preparation.annotating import Annotators
from meta_animator.preparation.footage import Footage, Source
from meta_animator.preparation.planning import Wish, runs_of
from meta_animator.preparation.store import GIVEN, USER, Made, Seen, Store, digest


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
    """Saves what the user brings for the wanted frames of all sources in their stores below `home`, and forgets what was brought
    before and is not any more; returns the layers.

    Raises UserError for maps that do not fit.
    """
    found = given_of(given, [wish.source for wish in wishes])
    total, done = sum(len(wish.unique) for wish in wishes if found[wish.source.name][0]), 0
    for wish in wishes:
        maps, first = found[wish.source.name]
        forget(Store(home / wish.source.name), wish.unique, maps)
        if maps:
            footage = Footage(wish.source)
            fill(Store(home / wish.source.name, footage.size), footage, wish.unique, maps, first)
            done += len(wish.unique)
            progress("taking over maps", done, total)
    layers = {layer for maps, _ in found.values() for layer in maps}
    return [layer for layer in ("keypoints", *LAYERS) if layer in layers]


@dataclasses.dataclass(frozen=True)
class Points:
    """The user's keypoints of a film, or of photos: with what `Maps` have. Those of photos are checked as they are read."""

    entries: Sequence[Entry]
    checked: bool

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray | None:
        """float32 (133, 3); None where they show nobody. Raises UserError for those of another picture."""
        entry = self.entries[index]
        entry.mask_of(f"picture {index}", size)
        if not self.checked:
            check_points(entry.path, entry.keypoints, size, f"picture {index}")
        return entry.keypoints if sees_person(entry.keypoints) else None

    def key(self, index: int) -> str:
        return digest(self.entries[index].keypoints.round(3).tolist())


@dataclasses.dataclass(frozen=True)
class PointMasks:
    """The masks that came in one file with keypoints: with what `Maps` have."""

    entries: Sequence[Entry]

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray | None:
        return self.entries[index].mask_of(f"picture {index}", size)

    def key(self, index: int) -> str:
        return digest(hashlib.sha256(self.entries[index].mask.tobytes()).hexdigest())


def points_of(path: Path, source: Source) -> dict[str, Points | PointMasks]:
    """{layer: what a file of keypoints has of a film}; UserError where it belongs to another, or shows nobody."""
    footage = Footage(source)
    entries = read_film(path, len(footage.timeline.times), source.path, footage.size)
    check_points(path, np.stack([entry.keypoints for entry in entries]), footage.size, source.path.name)
    _check_seen(path, entries, f"frames of {source.path.name}")
    return _layers_of(entries, checked=True)


def _check_seen(path: Path, entries: Sequence[Entry], what: str) -> None:
    """Says in how many of them nobody is seen. Raises UserError where that is so in all."""
    unseen = sum(not sees_person(entry.keypoints) for entry in entries)
    if unseen == len(entries):
        raise UserError(f"{path}: no person in any of the {len(entries)} {what} (all scores below 0.3)")
    if unseen:
        print(f"note: {path}: nobody is seen in {unseen} of {len(entries)} {what}; there the annotators say where the person is")


def _layers_of(entries: Sequence[Entry], checked: bool) -> dict[str, Points | PointMasks]:
    masks = {"mask": PointMasks(entries)} if all(entry.mask is not None for entry in entries) else {}
    return {"keypoints": Points(entries, checked), **masks}


def given_of(given: Given, sources: Sequence[Source]) -> dict[str, tuple[dict[str, Maps], int]]:
    """{source's name: (the maps given for it, the number of its first frame in them)}.

    The masks that came with a source are its own. In what the user brings each film has a folder or file of its name, or the only
    film all of it, and each photo has a picture of its name, those of several people in folders named like theirs. Raises
    UserError where a source has none, or two have the same.
    """
    found: dict[str, tuple[dict[str, Maps], int]] = {}
    films = _of_kind(sources, "clip")
    for source, own in zip(films, _own_of_films(given, films), strict=True):
        points = own.paths.pop("keypoints", None)
        count = len(Footage(source).timeline.times) if own.paths else 0
        found[source.name] = {**(points_of(points, source) if points else {}), **own.of_film(count, source.path)}, 0
    photos = _of_kind(sources, "photo")
    if photos:
        maps = _maps_of_photos(given, photos)
        if "keypoints" in given.paths:
            entries = read_photos(given.paths["keypoints"], [source.path for source in photos])
            _check_seen(given.paths["keypoints"], entries, "photos")
            maps = _layers_of(entries, checked=False) | maps
        found |= {source.name: (maps, place) for place, source in enumerate(photos)}
    for source in sources:
        if source.masks is not None and "mask" not in given.paths:
            found[source.name][0]["mask"] = Maps("mask", list(source.masks))
    return found


def check_given(given: Given, sources: Sequence[Source]) -> None:
    """Raises UserError where one of all sources finds no file of its own in what is given, before they are shared out."""
    _own_of_films(given, _of_kind(sources, "clip"))
    if photos := _of_kind(sources, "photo"):
        _maps_of_photos(given, photos)


def _of_kind(sources: Sequence[Source], kind: str) -> list[Source]:
    return [source for source in sources if source.kind == kind]


def _maps_of_photos(given: Given, photos: Sequence[Source]) -> dict[str, Maps]:
    paths = {layer: path for layer, path in given.paths.items() if layer != "keypoints"}
    return dataclasses.replace(given, paths=paths).of_photos([source.path for source in photos])


def fill(store: Store, footage: Footage, indices: Sequence[int], maps: Mapping[str, Maps], first: int = 0) -> None:
    """Saves the maps of these frames as given, but for those that were corrected since, or are there already."""
    for start, run in runs_of(indices):
        known, changed = store.read_run(start), False
        for index in run:
            seen = known.setdefault(index, Seen())
            store.look(index, seen, maps)
            keys = {layer: one.key(first + index) for layer, one in maps.items()}
            stale = [layer for layer, key in keys.items() if not _stays(seen, layer, key)]
            if not stale:
                continue
            arrays = read_layers(maps, first + index, footage.size)
            for layer in stale:
                if arrays[layer] is not None:
                    seen.layers[layer] = store.save(layer, index, arrays[layer], GIVEN, keys[layer])
                elif layer in seen.layers and _is_given(seen.layers[layer]):
                    store.remove(layer, index, seen)
            changed = True
        if changed:
            store.write_run(start, known)


def _stays(seen: Seen, layer: str, key: str) -> bool:
    made = seen.layers.get(layer)
    return made is not None and (made.key == key if _is_given(made) else made.by == USER)


def _is_given(made: Made) -> bool:
    """Those of older stores are called the user's, too, and have a key; what was put there by hand has none."""
    return made.by == GIVEN or (made.by == USER and made.key != "")


def forget(store: Store, indices: Sequence[int], kept: Collection[str]) -> None:
    """Removes what was given for these frames once, but for the layers that are `kept`; corrections by hand stay."""
    for start, run in runs_of(indices):
        known, changed = store.read_run(start), False
        for index in (index for index in run if index in known):
            seen = known[index]
            if not any(_is_given(made) and layer not in kept for layer, made in seen.layers.items()):
                continue
            changed |= store.look(index, seen, ())
            for layer in [layer for layer, made in seen.layers.items() if _is_given(made) and layer not in kept]:
                store.remove(layer, index, seen)
                changed = True
        if changed:
            store.write_run(start, known)


def _own_of_films(given: Given, films: Sequence[Source]) -> list[Given]:
    found = [_own(given, film, alone=len(films) == 1) for film in films]
    for layer, path in given.paths.items():
        refuse_twins([(film.path, own.paths[layer]) for film, own in zip(films, found, strict=True)], path)
    return found


def _own(given: Given, film: Source, alone: bool) -> Given:
    """What lies below the given paths under the film's name; for a film that is `alone` also the paths themselves."""
    paths = {}
    for layer, path in given.paths.items():
        own = next((own for place in folders_for(film.path, path) if (own := _named_like(film, place))), [])
        if len(own) != 1 and not alone:
            said = f"has {len(own)} entries for {film.path.name}"
            raise UserError(f"{path}: {said}; of several films each has a folder or file of its name")
        paths[layer] = own[0] if len(own) == 1 else path
    return Given(paths=paths, bright=given.bright, axes=given.axes)


def _named_like(film: Source, place: Path) -> list[Path]:
    return [entry for entry in (place.iterdir() if place.is_dir() else ()) if film.path.stem in (entry.name, entry.stem)]
