"""Checkpoints: `<run>/checkpoints/step-000500/`, written beside and renamed, so that a crash leaves the last one whole."""

import dataclasses
import importlib.metadata
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.checkpoints.best import best_checkpoint, note_best, step_folder, write_best
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.media.timeline import check_fps
from meta_animator.weights import load_tensors, save_tensors

STEP = re.compile(r"step-\d+")  # name of a checkpoint's folder
EMA_UPDATES = "ema_updates"  # a slot beside the optimizer's


@dataclasses.dataclass(kw_only=True)
class Checkpoint:
    """step, metadata (what the weights are), model weights, and for resuming the optimizer's and EMA's tensors, and how often
    each weight was averaged."""

    step: int
    metadata: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    ema: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    ema_updates: dict[str, int] = dataclasses.field(default_factory=dict)


def versions() -> dict[str, str]:
    """What a checkpoint was made with."""
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "accelerate", "peft")}


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int, best: Mapping[str, Any] | None = None) -> Path:
    """Write one checkpoint and delete all but the newest `keep` and the run's best. Hidden folders are what a crash has left
    behind.

    best   what best.json is to say: of a checkpoint that is there, or of this one
    """
    folder = run / "checkpoints"
    for left in folder.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)
    final = step_folder(run, checkpoint.step)
    temporary = folder / f".{final.name}.new"
    temporary.mkdir(parents=True)
    save_tensors(checkpoint.model, temporary / "model.safetensors")
    counts = {f"{name}/{EMA_UPDATES}": torch.tensor(n) for name, n in checkpoint.ema_updates.items() if n}
    save_tensors(checkpoint.optimizer | counts, temporary / "optimizer.safetensors")
    if checkpoint.ema:
        save_tensors(checkpoint.ema, temporary / "ema.safetensors")
    write_json(temporary / "manifest.json", {"step": checkpoint.step, **checkpoint.metadata})
    for path in (*temporary.iterdir(), temporary):
        _to_disk(path)
    if final.exists():
        _remove(final)
    os.replace(temporary, final)
    _to_disk(folder)
    write_best(run, best)
    kept = step_folder(run, best["step"]) if best else None
    for old in list_checkpoints(run)[:-keep]:
        if old != kept:
            _remove(old)
    return final


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's entries would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Out of sight in one step, then deleted: no half-deleted checkpoint is ever found."""
    hidden = folder.with_name(f".{folder.name}.old")
    os.replace(folder, hidden)
    shutil.rmtree(hidden)


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run folder, oldest first. Copies of them under other names are none."""
    found = [p for p in (run / "checkpoints").glob("step-*") if STEP.fullmatch(p.name) and (p / "manifest.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that `path` names: itself, or of a run folder the best where one was chosen (see best.py), else the
    newest. UserError where there is none."""
    path = Path(path)
    if (path / "manifest.json").is_file():
        return path
    found = list_checkpoints(path)
    if not found:
        raise UserError(f"checkpoint {path}: neither a checkpoint nor a run folder with one; train that stage first")
    return best_checkpoint(path) or found[-1]


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(metadata, weights) to use a checkpoint: averaged weights stand in for trained ones where they were kept. Says where
    it is the best of a run that is taken."""
    folder = find_checkpoint(path)
    if folder != Path(path):
        note_best(path, list_checkpoints(Path(path))[-1])
    weights = load_tensors(folder / "model.safetensors")
    if (folder / "ema.safetensors").exists():
        weights.update(load_tensors(folder / "ema.safetensors"))
    return read_json(folder / "manifest.json"), weights


def trained_fps(path: str) -> float:
    """Frames per second that the motion module of a run was trained at; 0 where it does not say, is no run or is absent."""
    if not path or not Path(path).exists() or Path(path).is_file() or (Path(path) / "config.json").is_file():
        return 0.0
    folder = find_checkpoint(path)
    value = read_json(folder / "manifest.json").get("fps", 0)
    return check_fps(value, f"{folder / 'manifest.json'}: fps") if value != 0 else 0.0


def read_checkpoint(folder: Path) -> Checkpoint:
    """Everything, to resume."""
    metadata = read_json(folder / "manifest.json")
    ema, optimizer = folder / "ema.safetensors", load_tensors(folder / "optimizer.safetensors")
    counts = [key for key in optimizer if key.endswith(f"/{EMA_UPDATES}")]
    return Checkpoint(
        step=metadata["step"],
        metadata=metadata,
        model=load_tensors(folder / "model.safetensors"),
        ema_updates={key.removesuffix(f"/{EMA_UPDATES}"): int(optimizer.pop(key)) for key in counts},
        optimizer=optimizer,
        ema=load_tensors(ema) if ema.exists() else {},
    )
