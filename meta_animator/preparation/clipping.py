"""Clips of the data set, made from footage and what is known of its frames. What has not changed since is not made again."""

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.layers import Layers
from meta_animator.data.transforms import Box, crop_and_resize
from meta_animator.data.versions import code_version
from meta_animator.data.writer import encode_map
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.preparation.crop import Cut, choose_box
from meta_animator.preparation.footage import Footage, OneOpen, Source
from meta_animator.preparation.padding import find_padding
from meta_animator.preparation.store import RUN, Seen, Store, digest

RECIPE = "recipe.json"
LOOKS = 12  # frames of a film in which black bars are looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A clip that is to be in the data set.

    indices  numbers of the frames in the source, in order; one that stands longer comes several times
    layers   those that all of these frames have
    sha      the source's content
    """

    id: str
    source: Source
    sha: str
    indices: tuple[int, ...]
    layers: tuple[str, ...]
    fps: float
    split: str = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """A clip as it is on disk. part: the folder that is to become the clip's, None where it is the clip's already."""

    plan: Plan
    facts: dict[str, Any]
    part: Path | None
    made: int


class Builder:
    """Makes clips in hidden folders below `root`/clips."""

    def __init__(self, root: Path, home: Path, cut: Cut, suffix: str) -> None:
        """home: the folder of all stores; suffix: of the files of frames."""
        self.root, self.home, self.cut, self.suffix = root, home, cut, suffix
        self._open = OneOpen()
        self.tell: Callable[[int], None] = lambda frames: None  # called with the number of frames that were done
        self._version = code_version(crop_and_resize, choose_box, encode_map)

    def build(self, plan: Plan) -> Built:
        """Raises UserError for files that do not fit the source."""
        footage = self._open.of(plan.source)
        return self._build(plan, footage, Store(self.home / plan.source.name, footage.size))

    def close(self) -> None:
        self._open.close()

    def _build(self, plan: Plan, footage: Footage, store: Store) -> Built:
        known = _seen_of(store, plan.indices)
        points = [store.load_layer("keypoints", index) for index in plan.indices]
        facts = [known[index].facts for index in plan.indices]
        box, size = choose_box(np.stack(points), facts, footage.size, picture_box(store, footage), self.cut)
        key = digest([plan.sha, plan.indices, [round(v, 3) for v in box], size, plan.layers, self.suffix, self._version])
        frames = [{layer: known[index].layers[layer].sha for layer in plan.layers} for index in plan.indices]
        home, old = self.root / "clips" / plan.id, read_recipe(self.root / "clips" / plan.id)
        if old["key"] == key and old["frames"] == frames:
            return Built(plan=plan, facts=old["facts"], part=None, made=0)
        part = home.with_name(f".{plan.id}.part")
        shutil.rmtree(part, ignore_errors=True)
        kept = old["frames"] if old["key"] == key else []
        made = 0
        moved: list[np.ndarray] = []
        for place, layers in enumerate(self._cut(plan, footage, store, frames, kept, box, size)):
            moved.append(layers.keypoints)
            made += self._write(part, home, place, layers, frames[place], kept[place] if kept else None)
            self.tell(1)
        facts = self._finish(part, plan, moved, size, known)
        _write_recipe(part, {"key": key, "frames": frames, "facts": facts, "sizes": _sizes(part, facts)})
        return Built(plan=plan, facts=facts, part=part, made=made)

    def _cut(
        self, plan: Plan, footage: Footage, store: Store, frames: list[dict], kept: list[dict], box: Box, size: tuple[int, int]
    ) -> Iterator[Layers]:
        """The layers of each frame, cut. Where a frame's picture is there already, it is black."""
        black = np.zeros((*footage.size, 3), np.uint8)
        pictures = iter([(plan.indices, [black] * len(plan.indices))]) if kept else footage.read(plan.indices)
        place = 0
        for some, pixels in pictures:
            for index, frame in zip(some, pixels, strict=True):
                changed = [n for n in plan.layers if n == "keypoints" or not kept or kept[place].get(n) != frames[place][n]]
                layers = {name: store.load_layer(name, index) for name in changed}
                yield crop_and_resize(Layers(frame=frame, **layers), box, size)
                place += 1

    def _write(self, part: Path, home: Path, place: int, layers: Layers, shas: dict[str, str], kept: dict | None) -> int:
        """Writes or takes over the pictures of a frame; returns whether one was written."""
        written = 0
        for name in ("frame", *shas):
            file = Path(name) / f"{place:06d}{self.suffix if name == 'frame' else '.png'}"
            if name == "keypoints":
                written |= kept is None or kept.get(name) != shas[name]
            elif kept is not None and (name == "frame" or kept.get(name) == shas[name]):
                (part / name).mkdir(parents=True, exist_ok=True)
                _take_over(home / file, part / file)
            else:
                write_image(part / file, encode_map(name, getattr(layers, name)))
                written = 1
        return int(written)

    def _finish(
        self, part: Path, plan: Plan, points: list[np.ndarray], size: tuple[int, int], known: dict[int, Seen]
    ) -> dict[str, Any]:
        """Writes the points; returns what the manifest says of the clip's files."""
        about = {"width": size[1], "height": size[0], "fps": float(plan.fps)}
        np.savez_compressed(part / "keypoints.npz", keypoints=np.stack(points).astype(np.float32), **about)
        paths = {name: f"clips/{plan.id}/{name}" for name in ("frame", *plan.layers)}
        paths["keypoints"] += ".npz"
        makers = {name: Counter(known[index].layers[name].by for index in plan.indices) for name in plan.layers}
        return {
            "num_frames": len(plan.indices), "width": size[1], "height": size[0], "layers": paths,
            "made_by": {name: counts.most_common(1)[0][0] for name, counts in makers.items()},
        }  # fmt: skip


def _take_over(file: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copy2(file, target)


def picture_box(store: Store, footage: Footage) -> Box:
    """The pictures of a source without black bars; looked for once, in frames that are decoded quickly."""
    version = code_version(find_padding)
    known = store.read_note("picture")
    if known.get("version") == version:
        return tuple(known["box"])
    indices = np.arange(len(footage.timeline.times))
    if footage.source.kind == "clip" and footage.facts.keys is not None and footage.facts.keys.sum() >= LOOKS / 2:
        indices = np.flatnonzero(footage.facts.keys)
    some = sorted({int(indices[round(k)]) for k in np.linspace(0, len(indices) - 1, min(LOOKS, len(indices)))})
    box = find_padding(frame for _, frames in footage.read(some) for frame in frames)
    store.write_note("picture", {"version": version, "box": list(box)})
    return box


def _seen_of(store: Store, indices: tuple[int, ...]) -> dict[int, Seen]:
    runs = {start: store.read_run(start) for start in {index - index % RUN for index in indices}}
    return {index: runs[index - index % RUN][index] for index in indices}


def read_recipe(home: Path) -> dict[str, Any]:
    """What a clip's folder was made from; nothing where it is not there, or not whole."""
    try:
        recipe = json.loads((home / RECIPE).read_text(encoding="utf-8"))
        if recipe["sizes"] == _sizes(home, recipe["facts"]):
            return {name: recipe[name] for name in ("key", "frames", "facts")}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"key": "", "frames": [], "facts": {}}


def _sizes(home: Path, facts: dict[str, Any]) -> dict[str, list[int]]:
    """{layer: bytes of each of its files, in order}, which tells most files that were cut off or written over."""
    files = {layer: sorted((home / layer).iterdir()) for layer in facts["layers"] if layer != "keypoints"}
    files["keypoints"] = [home / "keypoints.npz"]
    return {layer: [file.stat().st_size for file in some] for layer, some in files.items()}


def _write_recipe(home: Path, recipe: dict[str, Any]) -> None:
    try:
        (home / RECIPE).write_text(json.dumps(recipe), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{home / RECIPE}: cannot be written ({error.strerror})") from error
