"""Checkpoints: `<run>/checkpoints/step-000500/`, written beside and renamed, so that a crash leaves the last one whole."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.weights import load_tensors, read_json, save_tensors, write_json


@dataclasses.dataclass(kw_only=True)
class Checkpoint:
    """step, manifest (what the weights are), model weights, and for resuming the optimizer's and EMA's tensors."""

    step: int
    manifest: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    ema: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write one checkpoint and delete all but the newest `keep`."""
    folder = run / "checkpoints"
    final = folder / f"step-{checkpoint.step:06d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_tensors(checkpoint.model, temporary / "model.safetensors")
    save_tensors(checkpoint.optimizer, temporary / "optimizer.safetensors")
    if checkpoint.ema:
        save_tensors(checkpoint.ema, temporary / "ema.safetensors")
    write_json(temporary / "manifest.json", {"step": checkpoint.step, **checkpoint.manifest})
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run folder, oldest first."""
    found = [p for p in (run / "checkpoints").glob("step-*") if (p / "manifest.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that `path` names: itself, or the newest of a run folder. UserError where there is none."""
    path = Path(path)
    if (path / "manifest.json").is_file():
        return path
    found = list_checkpoints(path)
    if not found:
        raise UserError(f"checkpoint {path}: neither a checkpoint nor a run folder with one; train that stage first")
    return found[-1]


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(manifest, weights) to use a checkpoint: averaged weights stand in for trained ones where they were kept."""
    folder = find_checkpoint(path)
    weights = load_tensors(folder / "model.safetensors")
    if (folder / "ema.safetensors").exists():
        weights.update(load_tensors(folder / "ema.safetensors"))
    return read_json(folder / "manifest.json"), weights


def read_checkpoint(folder: Path) -> Checkpoint:
    """Everything, to resume."""
    manifest = read_json(folder / "manifest.json")
    ema = folder / "ema.safetensors"
    return Checkpoint(
        step=manifest["step"],
        manifest=manifest,
        model=load_tensors(folder / "model.safetensors"),
        optimizer=load_tensors(folder / "optimizer.safetensors"),
        ema=load_tensors(ema) if ema.exists() else {},
    )
