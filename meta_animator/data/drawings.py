"""The pictures that latents are made of: each frame is read once for all its tasks and crops."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from meta_animator.data.clips import Clip
from meta_animator.data.conditions import CONDITIONS, draw_condition
from meta_animator.data.latents import FRAME, Part, View
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize

FRAMES_AT_ONCE = 8  # of one clip and view, encoded together


class Drawings(IterableDataset):
    """(number of the job, view, uint8 pictures (u f 3 h w)) of every (part, {view: places of its units}) to do: of a view, at
    most eight frames at a time that are encoded one by one, or one clip whose frames are encoded together.

    A data-loader worker takes whole parts, so that none reads what another has read.
    """

    def __init__(self, jobs: Sequence[tuple[Part, Mapping[View, Sequence[int]]]]):
        self.jobs = jobs

    def __iter__(self) -> Iterator[tuple[int, View, Tensor]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self.jobs), step):
            part, wanted = self.jobs[number]
            of_place: dict[int, list[View]] = {}
            for view, places in wanted.items():
                for place in places:
                    of_place.setdefault(place, []).append(view)
            at_once, order = max(1, FRAMES_AT_ONCE // len(part.units[0])), sorted(of_place)
            for start in range(0, len(order), at_once):
                drawn: dict[View, list[np.ndarray]] = {}
                for place in order[start : start + at_once]:
                    frames = [draw_views(part.clip, index, of_place[place]) for index in part.units[place]]
                    for k, view in enumerate(of_place[place]):
                        drawn.setdefault(view, []).append(np.stack([images[k] for images in frames]))
                for view, pictures in drawn.items():
                    yield number, view, torch.from_numpy(np.stack(pictures)).movedim(-1, 2).contiguous()


def draw_views(clip: Clip, index: int, views: Sequence[View]) -> list[np.ndarray]:
    """Frame `index` as each of the views shows it: uint8 (h, w, 3) RGB."""
    needs = {layer for view in views if view.name != FRAME and not clip.conditions.get(view.name) for layer in _needs(view)}
    if any(view.name == FRAME for view in views):
        needs.add(FRAME)
    layers = clip.load(index, tuple(needs)) if needs else None
    ready = {name: Layers(frame=clip.load_condition(name, index)) for name in clip.conditions if _asked(views, name)}
    cropped: dict[tuple, Layers] = {}
    pictures = []
    for view in views:
        where = (view.box, view.size)
        if view.name in ready:
            pictures.append(crop_and_resize(ready[view.name], *where).frame)
            continue
        if where not in cropped:
            cropped[where] = crop_and_resize(layers, *where)
        pictures.append(_draw(view, cropped[where], index))
    return pictures


def _draw(view: View, layers: Layers, index: int) -> np.ndarray:
    if view.name == FRAME:
        return layers.frame
    if view.drop is not None:
        layers = dataclasses.replace(layers, keypoints=view.drop.apply(layers.keypoints, index))
    return draw_condition(view.name, layers)


def _needs(view: View) -> tuple[str, ...]:
    return CONDITIONS[view.name].needs


def _asked(views: Sequence[View], name: str) -> bool:
    return any(view.name == name for view in views)
