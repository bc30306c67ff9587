"""Filling the cache of latents: films read, conditions drawn, pictures encoded, files written."""

import contextlib
import dataclasses
import io
import itertools
from pathlib import Path

from accelerate import Accelerator
from safetensors import safe_open

from meta_animator.data.latents import Part
from meta_animator.errors import UserError
from meta_animator.settings import RunConfig
from meta_animator.stages.cache import check_cacheable, make_cache
from meta_animator.stages.data import Training

UNITS = 4  # frames, or clips that are encoded together, of each measurement


class OwnEncoding:
    """`step()` fills a cache of its own, in a folder of its own below `folder`, with some frames of another clip each time and
    their condition images for every task of the run.

    images   that each step has encoded
    """

    def __init__(self, config: RunConfig, training: Training, accelerator: Accelerator, folder: Path):
        check_cacheable(config.data, config.model)
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.networks, samples = training.stage.models, training.samples
        self.clips = samples.num_frames is not None
        self.tasks = list(training.plan.samples)
        kept = samples.kept_units(training.plan.pools(), together=not self.networks.backbone.frames_apart)
        if not kept:
            raise UserError("cache: there is nothing to encode")
        self._turns = itertools.cycle(kept)
        self.images: list[int] = []

    def step(self) -> None:
        (clip, units), number = next(self._turns), len(self.images)
        data = dataclasses.replace(self.config.data, cache_dir="")
        with contextlib.redirect_stderr(io.StringIO()):  # no bar for each
            cache = make_cache(
                data, self.networks, [(clip, units[:UNITS])], self.tasks, self.accelerator, folder=self.folder / str(number),
                seed=self.config.seed, clips=self.clips,
            )  # fmt: skip
        self.images.append(sum(part.num_frames * len(_names(part)) for part in cache.parts))


def _names(part: Part) -> list[str]:
    with safe_open(part.path, "pt") as file:
        return list(file.keys())
