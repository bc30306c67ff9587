"""The cache of latents of a run: what it depends on, and the filling of it by all processes."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from meta_animator.data.clips import Clip
from meta_animator.data.conditions import CONDITIONS
from meta_animator.data.crops import size_of
from meta_animator.data.drawings import FRAMES_AT_ONCE, Drawings
from meta_animator.data.latents import FRAME, LatentCache, Part, View
from meta_animator.data.pose_drop import PoseDrop, drop_of, loses_parts, number_of_drops
from meta_animator.data.samples import crop_of, number_of_crops
from meta_animator.data.transforms import crop_and_resize
from meta_animator.data.versions import code_version
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, read_map
from meta_animator.media.video import VideoSource
from meta_animator.models.assembly import Assembly
from meta_animator.settings import RunConfig
from meta_animator.stages.workers import closing_workers
from meta_animator.training.signals import leave_signals_to_the_loop, stopping_at_once

Job = tuple[Part, list[View]]
LOSING = "losing parts"
STORED = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def make_cache(
    config: RunConfig, models: Assembly, kept: list[tuple[Clip, list[int]]], tasks: Sequence[str], accelerator: Accelerator
) -> LatentCache:
    """The cache of the frames in `kept` and their images of `tasks`, filled: every process encodes its share."""
    check_cacheable(config)
    drawn = [task for task in tasks if task != FRAME]
    versions = {**{task: code_version(CONDITIONS[task].draw) for task in drawn}, LOSING: code_version(PoseDrop.apply)}
    cache = LatentCache(
        Path(config.data.cache_dir or Path(config.output_dir) / "cache"), cache_key(config, models), kept, drawn,
        functools.partial(view_of, config, versions), number_of_crops(config.data), number_of_drops(config.data),
    )  # fmt: skip
    with stopping_at_once("while latents were encoded; those of whole files are kept"):
        share = cache.share(accelerator.process_index, accelerator.num_processes)
        jobs = [(part, views) for part in share if (views := cache.missing(part))]
        fill(config, models, cache, jobs, show=accelerator.is_main_process)
        accelerator.wait_for_everyone()
    return cache


def cacheable(config: RunConfig) -> bool:
    """Whether a picture is the same whenever it is drawn."""
    new_crops = config.data.random_crop and not config.data.crops
    new_poses = config.data.pose_drop and not config.data.pose_variants
    return not (new_crops or new_poses or config.data.flip or config.model.condition_posterior == "sample")


def check_cacheable(config: RunConfig) -> None:
    """Raises UserError where pictures differ from draw to draw."""
    if config.data.pose_drop and not config.data.pose_variants:
        raise UserError(
            "data.cache_latents: cannot hold poses that lack other parts at every draw; set data.pose_variants to a number of "
            "drawings, or data.cache_latents to false"
        )
    if not cacheable(config):
        raise UserError(
            "data.cache_latents: cannot hold random crops, flips or sampled posteriors; set it to false, "
            "or data.random_crop to 0 (or data.crops to a number of crops), data.flip to 0 and model.condition_posterior to mode"
        )


def cache_key(config: RunConfig, models: Assembly) -> dict[str, Any]:
    """What every latent depends on, beside its clip and view."""
    return {
        "encoder": models.backbone.encoder_fingerprint(),
        "condition": [config.model.condition_range, config.model.condition_posterior],
        "precision": config.data.cache_precision,
        "reading": code_version(VideoSource, read_image, read_map, crop_and_resize),
    }


def view_of(config: RunConfig, versions: Mapping[str, str], clip: Clip, name: str, crop: int, drop: int) -> View:
    """What is encoded of a clip under `name` in one of its crops, with or without parts of its poses; versions: {task: of the
    code that draws it}, and under LOSING that of the code that leaves parts out."""
    data, size = config.data, size_of(clip, config.data)
    what = f"box {[crop, size, data.person_margin, data.random_crop, config.seed]}"
    box = clip.remember(what, lambda: crop_of(clip, crop, data, config.seed))
    version = "" if name in clip.conditions else versions.get(name, "")
    if not drop or name in clip.conditions or not loses_parts(name):
        return View(name, box, size, version)
    lost = drop_of(clip, drop, crop, config.seed, per_frame=config.stage != "motion")
    return View(name, box, size, f"{version} {versions[LOSING]}", lost)


def fill(config: RunConfig, models: Assembly, cache: LatentCache, jobs: list[Job], show: bool = True) -> None:
    """Encode what is missing. A file is written as soon as all of its views are encoded."""
    workers = min(config.data.num_workers, len(jobs))
    loader = iter(DataLoader(
        Drawings(jobs), batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_the_loop, collate_fn=_as_it_is,
    ))  # fmt: skip
    at_once = 1 if next(models.parameters()).device.type == "cpu" else FRAMES_AT_ONCE  # a CPU is faster with one
    images = sum(len(part.frames) * len(views) for part, views in jobs)
    bar = tqdm(total=images, desc="encoding latents", unit="image", dynamic_ncols=True, disable=not (show and images))
    encoded: dict[int, dict[View, list[Tensor]]] = {}
    with closing_workers(loader), bar:
        for number, view, pictures in loader:
            part, views = jobs[number]
            rows = encoded.setdefault(number, {}).setdefault(view, [])
            for some in pictures.split(at_once):
                rows.append(encode(config, models, view, some, part))
                bar.update(len(some))
            if sum(len(row) for column in encoded[number].values() for row in column) == len(part.frames) * len(views):
                cache.add(part, {view: torch.cat(rows) for view, rows in encoded.pop(number).items()})


def encode(config: RunConfig, models: Assembly, view: View, pictures: Tensor, part: Part) -> Tensor:
    """Latents (n c h w), as they are stored, of uint8 pictures (n 3 h w)."""
    pixels = pictures.to(next(models.backbone.vae.parameters()).device).float() / 127.5 - 1
    backbone = models.backbone
    latents = backbone.encode(pixels) if view.name == FRAME else backbone.encode_condition(pixels)
    stored = latents.to(STORED[config.data.cache_precision]).cpu()
    if not stored.isfinite().all():
        largest = float(latents.abs().max())
        raise UserError(
            f"data.cache_precision={config.data.cache_precision}: clip '{part.clip.id}', {view.name}: its latents reach "
            f"{largest:.4g}, which cannot be stored; " + ("is the VAE damaged?" if largest != largest else "use bf16 or fp32")
        )
    return stored


def _as_it_is(item: Any) -> Any:
    return item
