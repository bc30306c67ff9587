"""What a run needs of a GPU's memory: counted on the meta device before it starts, or measured on random weights.

Counting takes a step of the real stage through the real networks without computing (models/counting.py), and adds what is
known by name: weights, the optimizer's states, averages. It does not count the face embedder, nor know how a GPU's memory
falls to pieces.
"""

import copy
import ctypes
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meta_animator.devices import compute_device
from meta_animator.errors import UserError
from meta_animator.losses.hybrid import HybridLoss
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import Backbone, backbone_without_weights
from meta_animator.models.counting import LikeCuda, PeakMemory, bytes_of
from meta_animator.models.precision import HALF, PRECISIONS, autocast
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import RunConfig
from meta_animator.stages.cache import cacheable
from meta_animator.stages.check_settings import trained_tasks
from meta_animator.stages.control import ControlParts
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.motion import MotionParts
from meta_animator.training.optim import make_optimizer

GIB = 2**30
M_MMAP_THRESHOLD = -3  # of glibc's mallopt
CUDA_ITSELF = round(0.7 * GIB)  # an allowance for context, libraries and workspaces, and not counted
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.1}  # of the optimizer's states, per trained weight


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes by part, for one process at its peak."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def table(self) -> str:
        rows = {**self.parts, "peak": self.total}
        return "\n".join(["memory of one process, counted (GiB)", *(f"{n:<32}{v / GIB:>7.2f}" for n, v in rows.items())])


def count(config: RunConfig) -> Memory:
    """The peak of stages 0 to 3 on a CUDA device. Raises UserError where the base's config files are missing."""
    config = copy.deepcopy(config)
    return _count_sampling(config) if config.stage == "sample" else _count_training(config)


def advice(config: RunConfig, free: int) -> list[str]:
    """What would make a run smaller that needs more than `free` bytes: settings with the peak that each would have alone, the
    most effective first, then all together. Empty where the run fits."""
    now = count(config).total
    if now <= free:
        return []
    sizes = {text: count(_with(config, changes)).total for text, changes in knobs(config).items()}
    ranked = sorted((text for text, size in sizes.items() if size < 0.98 * now), key=sizes.get)
    chosen = {key: value for text in ranked for key, value in knobs(config)[text].items()}
    together = count(_with(config, chosen)).total if ranked else now
    for text in (text for text in sizes if text not in ranked):  # some help only once others are done
        if together > free and (with_it := count(_with(config, chosen | knobs(config)[text])).total) < 0.98 * together:
            chosen, together, ranked = chosen | knobs(config)[text], with_it, [*ranked, text]
    verdict = "fits" if together <= free else "does not fit either"
    alone = ((text, sizes[text]) for text in sorted(ranked, key=sizes.get))
    lines = [f"{text}: {size / GIB:.1f} GiB{', fits' if size <= free else ''}" for text, size in alone]
    return [*lines, f"all of these: {together / GIB:.1f} GiB, {verdict}"]


def knobs(config: RunConfig) -> dict[str, dict[str, Any]]:
    """{settings as one writes them: {key: value}} that cost time or a little quality and save memory, where not yet so."""
    train, sample, data = config.train, config.sample, config.data
    backbone = backbone_without_weights(config.model)
    step, half = backbone.size_multiple, lambda frames: _at_most(frames // 2, backbone)
    smaller = {f"data.{name}": max(step, getattr(data, name) // 2 // step * step) for name in ("height", "width")}
    if config.stage == "sample":
        found = [{"train.mixed_precision": "bf16"}, smaller]
        shorter = {"sample.window": half(sample.window), "sample.overlap": _at_most(sample.overlap // 2 + 1, backbone) - 1}
        found.insert(1, shorter if config.model.motion_from or not backbone.frames_apart else {"sample.frame_batch_size": 1})
    else:
        samples = train.batch_size * train.gradient_accumulation_steps
        found = [
            {"train.gradient_checkpointing": True}, {"train.mixed_precision": "bf16"},
            {"data.cache_latents": True} if cacheable(config.data, config.model) else {},
            {"train.batch_size": 1, "train.gradient_accumulation_steps": samples}, {"train.optimizer": "adamw8bit"},
            {"train.ema_device": "cpu"} if train.ema_decay else {},
            {"data.num_frames": half(data.num_frames)} if config.stage == "motion" else {"train.trainable": "lora"},
            {"data.clip_frames": half(data.clip_frames)} if config.stage != "motion" else {},
            {"loss.image_latent_frames": 1} if config.loss.image_weight and not backbone.frames_apart else {},
            smaller,
        ]  # fmt: skip
    texts = (" ".join(f"{key}={str(value).lower()}" for key, value in changes.items()) for changes in found)
    return {text: changes for text, changes in zip(texts, found, strict=True) if changes and _with(config, changes) != config}


def _at_most(frames: int, backbone: Backbone) -> int:
    """The largest number of frames up to `frames`, and at least 1, that a base can encode."""
    return next(count for count in range(max(1, frames), 0, -1) if backbone.next_clip(count) == count)


def _with(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    config = copy.deepcopy(config)
    for key, value in changes.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    return config


def measure(config: RunConfig) -> int:
    """Bytes that one step of a training stage takes at its peak on this machine, GPU or CPU, on random weights.

    On a CPU that is what the process grows by, a little more than what is in use. Raises UserError for other stages.
    """
    if config.stage == "sample":
        raise UserError("--measure: takes a step of a training; stage 3 shows what it needs in the first seconds of a run")
    device = compute_device()
    config = copy.deepcopy(config)
    stage = stage_without_weights(config)
    keep_no_freed_memory()
    before = peak_so_far(device, anew=True)
    gone = {module for part in _encoders(stage.models, config) for module in part.modules()}
    give_weights([module for module in stage.modules() if module not in gone], device)
    optimizer = make_optimizer(stage.param_groups(), config.train)
    TrainingStep(stage, config).run(torch.autograd.backward)
    optimizer.step()
    return peak_so_far(device) - before


def give_weights(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Random ones in the place of those on the meta device; what is registered in several modules stays one."""
    made: dict[int, Tensor] = {}
    for module in modules:
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    made[id(value)] = values[name] = made[id(value)] if id(value) in made else _random(value, device)


def _random(value: Tensor, device: torch.device) -> Tensor:
    made = torch.empty_like(value, device=device)
    made = made.normal_(std=0.02) if made.is_floating_point() else made.zero_()
    return nn.Parameter(made, value.requires_grad) if isinstance(value, nn.Parameter) else made


def keep_no_freed_memory() -> None:
    """What is freed in this process goes back to the system at once, so that its size tells what is in use: glibc keeps it
    otherwise, and scripts/env.sh tells it to. Elsewhere nothing happens."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**17)


def peak_so_far(device: torch.device, anew: bool = False) -> int:
    """Bytes of the device that this process has used at most, or with `anew` uses now, from where the peak counts anew. Raises
    UserError where neither a GPU nor Linux tells."""
    if device.type == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("a CPU's memory is read as Linux tells it; expected Linux, or a GPU")
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def _count_training(config: RunConfig) -> Memory:
    stage = stage_without_weights(config)
    trained = [p for group in stage.param_groups() for p in group.parameters.values()]
    with PeakMemory() as memory, LikeCuda() as cuda:
        for _ in range(min(2, config.train.gradient_accumulation_steps)):  # the second finds the gradients of the first
            TrainingStep(stage, config).run(cuda.backward, cuda.remembering_casts())
    gradients = bytes_of([p.grad for p in trained if p.grad is not None])
    peak = max(memory.peak, 2 * gradients)  # AdamW makes as much again for a moment
    processes = int(os.environ.get("NUM_PROCESSES") or max(1, torch.cuda.device_count()))
    kept_on = {"": 1, "cpu": 0}[config.train.ema_device] if config.train.ema_decay else 0
    parts = {
        "frozen weights": _frozen_bytes(stage.models, config),
        "trained weights": bytes_of(trained),
        "optimizer": round(STATE_BYTES[config.train.optimizer] * sum(p.numel() for p in trained)),
        "moving average": kept_on * bytes_of(trained),
        "gradients": gradients,
        "gradients on their way": gradients if processes > 1 else 0,
        "activations": peak - gradients,
        "CUDA itself (allowance)": CUDA_ITSELF,
    }
    return Memory({name: size for name, size in parts.items() if size})


def _count_sampling(config: RunConfig) -> Memory:
    models = sampling_without_weights(config)
    phases = {}
    for name, run in sampling_steps(config, models).items():
        with torch.no_grad(), PeakMemory() as memory, LikeCuda():
            run()
        phases[name] = {"weights": bytes_of(models), f"activations ({name})": memory.peak}
        if name == "encoding":
            models.backbone.release(text=True, encoder=True)
    most = max(phases.values(), key=lambda parts: sum(parts.values()))
    return Memory({**most, "CUDA itself (allowance)": CUDA_ITSELF})


def sampling_without_weights(config: RunConfig) -> Assembly:
    """The networks of stage 3 on the meta device, with LoRAs of the tasks that it samples with."""
    model = dataclasses.replace(config.model, tasks=list(config.sample.tasks))
    models = Assembly(model, backbone_without_weights(model), with_motion=bool(model.motion_from))
    if (precision := PRECISIONS[config.train.mixed_precision]) in HALF:
        models.requires_grad_(False).hold_frozen_in(precision)
    return models


def sampling_steps(config: RunConfig, models: Assembly) -> dict[str, Callable[[], Any]]:
    """What stage 3 does, by name."""
    sample, backbone = config.sample, models.backbone
    frames = backbone.latent_frames(sample.window if backbone.has_time else sample.frame_batch_size) + sample.references
    latents = _empty(models, (1, frames), config)
    shown = _empty(models, (1, frames), config, backbone.control_channels)
    context = torch.empty(1, *backbone.text_shape, device="meta")
    t = torch.zeros(1, dtype=torch.int64, device="meta")
    at_once = sample.frame_batch_size if backbone.frames_apart else sample.window
    images = torch.empty(1, at_once, 3, config.data.height, config.data.width, device="meta")
    denoiser = Denoiser(
        backbone=backbone, control=models.control, tasks=dict(sample.tasks), guidance_scale=sample.guidance_scale,
        control_latents=dict.fromkeys(sample.tasks, shown), context=context, null_context=context,
    )  # fmt: skip
    return {
        "encoding": lambda: backbone.encode(images),
        "denoising": lambda: denoiser(latents, t),
        "decoding": lambda: list(backbone.show_in_turn(_empty(models, (1, backbone.latent_frames(at_once)), config), at_once)),
    }


def stage_without_weights(config: RunConfig) -> DenoisingStage:
    """Stage 0, 1 or 2 on the meta device."""
    moving = config.stage == "motion"
    person = config.stage == "reference"
    models = Assembly(config.model, backbone_without_weights(config.model), with_motion=moving, with_person=person)
    backbone, parts = models.backbone, (MotionParts if moving else ControlParts)(config, models, {})
    return DenoisingStage(config, models, HybridLoss(process=backbone.process, decode=backbone.decode), parts)


def _encoders(models: Assembly, config: RunConfig) -> list[nn.Module]:
    """What has nothing to do any more once latents and texts (those of up to MAX_PROMPTS) are cached, and is gone by the time of
    the first step."""
    return models.backbone.encoders if config.data.cache_latents else []


def _frozen_bytes(models: Assembly, config: RunConfig) -> int:
    gone = {id(p) for part in _encoders(models, config) for p in part.parameters()}
    return bytes_of([p for p in [*models.parameters(), *models.buffers()] if not p.requires_grad and id(p) not in gone])


def _empty(models: Assembly, count: Sequence[int], config: RunConfig, channels: int = 0) -> Tensor:
    """Latents of images or clips of the run's size, or what else has their places, on the networks' device."""
    backbone = models.backbone
    sides = (config.data.height // backbone.vae_scale_factor, config.data.width // backbone.vae_scale_factor)
    device = next(models.control.parameters()).device  # an encoder that is gone stays without weights
    return torch.zeros(*count, channels or backbone.latent_channels, *sides, device=device)


class TrainingStep:
    """Forward and backward of a stage on inputs that say nothing, with one gated image where the loss has image terms: more
    are decoded one after another."""

    def __init__(self, stage: nn.Module, config: RunConfig):
        self.stage, self.config = stage, config

    def run(self, backward: Callable[[Tensor], None], region: AbstractContextManager | None = None) -> None:
        """region: what is entered along with autocast."""
        config, models = self.config, self.stage.models
        frames = models.backbone.latent_frames(config.data.num_frames if config.stage == "motion" else config.data.clip_frames)
        shown = _empty(models, (config.train.batch_size, frames), config, models.backbone.control_channels)
        latents = _empty(models, (config.train.batch_size, frames), config)
        context = torch.zeros(config.train.batch_size, *models.backbone.text_shape, device=latents.device)
        t = torch.zeros(config.train.batch_size, dtype=torch.int64, device=latents.device)
        precision = PRECISIONS[config.train.mixed_precision]
        half = precision in HALF
        task = trained_tasks(config.stage, config.model, config.train)[0]
        with self.stage.rounding_once():
            with region or nullcontext(), autocast(latents.device, precision if half else None, enabled=half):
                residuals = self.stage.parts.residuals(task, torch.zeros(0), shown, t, context)
                prediction = models.backbone.predict(latents, t, context, residuals)
                del residuals
                loss = (prediction.float() - latents).square().mean()
                if config.loss.image_weight > 0:
                    self._decode(prediction.float()[:1], backward)
            backward(loss)

    def _decode(self, latents: Tensor, backward: Callable[[Tensor], None]) -> None:
        """One image, or the part of a clip that the image loss sees."""
        backbone, frames = self.stage.models.backbone, latents.shape[1]
        seen = 1 if backbone.frames_apart else min(frames, self.config.loss.image_latent_frames or frames)
        one = (latents[:, :1] if backbone.frames_apart else latents).detach().requires_grad_(True)
        decoded = backbone.decode(one) if backbone.frames_apart else backbone.decode(one, slice(frames - seen, frames))
        backward(decoded.float().square().mean())
