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
from meta_animator.data.latents import FRAME, LatentCache, Part, Unit, View, Wanted
from meta_animator.data.pose_drop import PoseDrop, drop_of, loses_parts, number_of_drops
from meta_animator.data.samples import crop_of, number_of_crops
from meta_animator.data.transforms import crop_and_resize
from meta_animator.data.versions import code_version
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, read_map
from meta_animator.media.video import VideoSource
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import Backbone
from meta_animator.settings import DataConfig, ModelConfig
from meta_animator.stages.workers import LOADING_SECONDS, closing_workers
from meta_animator.training.signals import leave_signals_to_the_loop, stopping_at_once

Job = tuple[Part, dict[View, list[int]]]  # of a part, of which views the units at which places
LOSING = "losing parts"
STORED = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def make_cache(
    data: DataConfig, networks: Assembly, kept: list[tuple[Clip, list[Unit]]], tasks: Sequence[str], accelerator: Accelerator,
    *, folder: Path, seed: int, clips: bool = False, wanted: Wanted | None = None,
) -> LatentCache:  # fmt: skip
    """The cache of what is `kept` of each clip and of its images of `tasks`, filled with what is `wanted` of it (None: all):
    every process encodes its share.

    folder   where it lives, unless `data.cache_dir` says so
    clips    poses lack the same parts in a whole clip
    """
    check_cacheable(data, networks.config)
    drawn = [task for task in tasks if task != FRAME]
    versions = {**{task: code_version(CONDITIONS[task].draw) for task in drawn}, LOSING: code_version(PoseDrop.apply)}
    cache = LatentCache(
        Path(data.cache_dir or folder), cache_key(data, networks), kept, drawn,
        functools.partial(view_of, data, seed, clips, versions), number_of_crops(data), number_of_drops(data), wanted,
    )  # fmt: skip
    with stopping_at_once("while latents were encoded; those of whole files are kept"):
        share = cache.share(accelerator.process_index, accelerator.num_processes)
        jobs = [(part, missing) for part in share if (missing := cache.missing(part))]
        fill(data, networks.backbone, cache, jobs, show=accelerator.is_main_process)
        accelerator.wait_for_everyone()
    return cache


def cacheable(data: DataConfig, model: ModelConfig) -> bool:
    """Whether a picture is the same whenever it is drawn."""
    new_crops = data.random_crop and not data.crops
    new_poses = data.pose_drop and not data.pose_variants
    return not (new_crops or new_poses or data.flip or model.condition_posterior == "sample")


def check_cacheable(data: DataConfig, model: ModelConfig) -> None:
    """Raises UserError where pictures differ from draw to draw."""
    if data.pose_drop and not data.pose_variants:
        raise UserError(
            "data.cache_latents: cannot hold poses that lack other parts at every draw; set data.pose_variants to a number of "
            "drawings, or data.cache_latents to false"
        )
    if not cacheable(data, model):
        raise UserError(
            "data.cache_latents: cannot hold random crops, flips or sampled posteriors; set it to false, "
            "or data.random_crop to 0 (or data.crops to a number of crops), data.flip to 0 and model.condition_posterior to mode"
        )


def cache_key(data: DataConfig, networks: Assembly) -> dict[str, Any]:
    """What every latent depends on, beside its clip and view."""
    return {
        "encoder": networks.backbone.encoder_fingerprint(),
        "condition": [networks.config.condition_range, networks.config.condition_posterior],
        "precision": data.cache_precision,
        "reading": code_version(VideoSource, read_image, read_map, crop_and_resize),
    }


def view_of(
    data: DataConfig, seed: int, clips: bool, versions: Mapping[str, str], clip: Clip, name: str, crop: int, drop: int
) -> View:  # fmt: skip
    """What is encoded of a clip under `name` in one of its crops, with or without parts of its poses; versions: {task: of the
    code that draws it}, and under LOSING that of the code that leaves parts out."""
    size = size_of(clip, data)
    what = f"box {[crop, size, data.person_margin, data.random_crop, seed]}"
    box = clip.remember(what, lambda: crop_of(clip, crop, data, seed))
    version = "" if name in clip.conditions else versions.get(name, "")
    if not drop or name in clip.conditions or not loses_parts(name):
        return View(name, box, size, version)
    lost = drop_of(clip, drop, crop, seed, per_frame=not clips)
    return View(name, box, size, f"{version} {versions[LOSING]}", lost)


def fill(data: DataConfig, backbone: Backbone, cache: LatentCache, jobs: list[Job], show: bool = True) -> None:
    """Encode what is missing. A file is written as soon as all of its views are encoded."""
    workers = min(data.num_workers, len(jobs))
    loader = iter(DataLoader(
        Drawings(jobs), batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_the_loop, collate_fn=_as_it_is,
        timeout=LOADING_SECONDS if workers else 0,
    ))  # fmt: skip
    at_once = 1 if next(backbone.vae.parameters()).device.type == "cpu" else FRAMES_AT_ONCE  # a CPU is faster with one
    images = sum(len(part.units[place]) for part, missing in jobs for places in missing.values() for place in places)
    bar = tqdm(total=images, desc="encoding latents", unit="image", dynamic_ncols=True, disable=not (show and images))
    encoded: dict[int, dict[View, list[Tensor]]] = {}
    with closing_workers(loader), bar:
        for number, view, pictures in loader:
            part, missing = jobs[number]
            rows = encoded.setdefault(number, {}).setdefault(view, [])
            for some in pictures.split(at_once):
                rows.append(encode(data.cache_precision, backbone, view, some, part))
                bar.update(some.shape[0] * some.shape[1])
            if sum(len(row) for column in encoded[number].values() for row in column) == sum(map(len, missing.values())):
                done = encoded.pop(number).items()
                cache.add(part, {view: (missing[view], torch.cat(rows).flatten(0, 1)) for view, rows in done})


def encode(precision: str, backbone: Backbone, view: View, pictures: Tensor, part: Part) -> Tensor:
    """Latents (u f' c h w), as they are stored, of uint8 pictures (u f 3 h w)."""
    pixels = pictures.to(next(backbone.vae.parameters()).device).float() / 127.5 - 1
    latents = backbone.encode(pixels) if view.name == FRAME else backbone.encode_condition(pixels)
    stored = latents.to(STORED[precision]).cpu()
    if not stored.isfinite().all():
        largest = float(latents.abs().max())
        raise UserError(
            f"data.cache_precision={precision}: clip '{part.clip.id}', {view.name}: its latents reach "
            f"{largest:.4g}, which cannot be stored; " + ("is the VAE damaged?" if largest != largest else "use bf16 or fp32")
        )
    return stored


def _as_it_is(item: Any) -> Any:
    return item
