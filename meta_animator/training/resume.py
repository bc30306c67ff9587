"""Whether a run folder's checkpoint is of this run: what must be the same, and what may change but is said."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meta_animator.errors import UserError
from meta_animator.settings import RunConfig

SECTIONS = ("loss", "train", "data", "model")  # of a config, what training depends on
WITHOUT_EFFECT = {  # on what is learned, or checked apart (the optimizer, samples per step)
    "train.optimizer", "train.batch_size", "train.gradient_accumulation_steps", "train.max_skipped_steps",
    "train.gradient_checkpointing", "train.compile", "train.ema_device", "train.checkpoint_every", "train.keep_checkpoints",
    "train.preview_every", "train.measure_every", "train.early_stop", "train.best_step",
    "train.log_every", "train.wandb_project",
    "data.cache_latents", "data.cache_dir", "data.num_workers", "data.puppets", "model.base", "model.base_from",
    "model.architecture", "model.control_from", "model.motion_from", "model.text_cache",
    "model.tiny_vae",
}  # fmt: skip
OPEN = ("constant", "constant_with_warmup")  # learning-rate schedules that do not depend on the last step


def training_settings(config: RunConfig) -> dict[str, Any]:
    """{"loss.face_weight": 0.1, ...}: what a checkpoint keeps of the settings that it was trained with."""
    return {
        key: value for key, value in _values(config)
        if key not in WITHOUT_EFFECT and (key != "train.max_steps" or config.train.lr_scheduler not in OPEN)
    }  # fmt: skip


def _values(config: RunConfig) -> Iterator[tuple[str, Any]]:
    for section in SECTIONS:
        for key, value in dataclasses.asdict(getattr(config, section)).items():
            yield f"{section}.{key}", value


def changed_settings(config: RunConfig, metadata: Mapping[str, Any]) -> list[str]:
    """A line for each setting that is not what it was when the checkpoint of this metadata was made; none where that does
    not say."""
    before = metadata.get("settings", {})
    return [
        f"{key} was {_shown(before[key])} up to step {metadata['step']}, it is {_shown(value)} from here on"
        for key, value in training_settings(config).items()
        if key in before and before[key] != value
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "''"


def check_same_run(own: Mapping[str, Any], saved: Mapping[str, Any], where: Path) -> None:
    """Raises UserError where what must stay the same, `own`, is not what a checkpoint's metadata says; of its base
    `checkpoints.loading.go_on` has asked, while that was whole. Data may change, which `changed_settings` says."""
    for key, value in own.items():
        if key in ("base", "identifiers", "data", "auxiliary") or saved.get(key, value) == value:
            continue
        if key == "samples_per_step":
            raise UserError(
                f"{where}: was trained with {saved.get(key)} samples per step, now there are {value}; change train.batch_size "
                f"or train.gradient_accumulation_steps so that they, times the processes, make {saved.get(key)} again"
            )
        raise UserError(
            f"{where}: its {key} is {saved.get(key)}, this run's is {value}; use another output_dir or the old settings"
        )
