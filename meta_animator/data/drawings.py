"""The pictures that latents are made of: each frame is read once for all its tasks and crops."""

import dataclasses
from collections.abc import Iterator, Sequence

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
    """(number of the job, view, uint8 pictures (u f 3 h w)) of every (part, views) to do: of a view, eight frames at a time that
    are encoded one by one, or one clip whose frames are encoded together.

    A data-loader worker takes whole parts, so that none reads what another has read.
    """

    def __init__(self, jobs: Sequence[tuple[Part, list[View]]]):
        self.jobs = jobs

    def __iter__(self) -> Iterator[tuple[int, View, Tensor]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self.jobs), step):
            part, views = self.jobs[number]
            at_once = max(1, FRAMES_AT_ONCE // len(part.units[0]))
            for start in range(0, len(part.units), at_once):
                units = part.units[start : start + at_once]
                drawn = [[draw_views(part.clip, index, views) for index in unit] for unit in units]
                for k, view in enumerate(views):
                    pictures = np.stack([np.stack([images[k] for images in unit]) for unit in drawn])
                    yield number, view, torch.from_numpy(pictures).movedim(-1, 2).contiguous()


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
