"""Weights of checkpoints into the networks of a run: first whether they were trained on what the run has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.checkpoints.files import find_checkpoint, list_checkpoints
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.checkpoints.origin import check_origin
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.models.identifiers import keep_own
from meta_animator.models.motion import check_length
from meta_animator.weights import read_json


def load_control(
    models: Assembly, metadata: Mapping[str, Any], state: Mapping[str, Tensor], what: str, fresh_loras: bool = False
) -> None:
    """Shared weights and the LoRAs of this run's tasks, which may be a subset of the checkpoint's.

    fresh_loras   LoRAs of tasks that the checkpoint does not have stay as they were made, which is said
    """
    check_metadata(metadata, what)
    check_base(models, metadata, what)
    if not any(n.startswith("control.") for n in state):
        raise UserError(f"{what}: holds no Meta ControlNet; give a stage-0 or stage-2 run")
    check_conventions(models, metadata, what)
    check_parts(metadata, state, what)
    known = [task for task in models.config.tasks if task in metadata["tasks"]]
    if missing := [task for task in models.config.tasks if task not in known]:
        said = f"{what}: has no LoRA for {', '.join(missing)} (it has {', '.join(metadata['tasks']) or 'none'})"
        if not fresh_loras:
            raise UserError(f"{said}; set model.tasks to a subset")
        print(f"note: {said}; {'it starts' if len(missing) == 1 else 'they start'} fresh")
    if metadata["lora_rank"] != models.config.lora_rank and known:
        raise UserError(f"{what}: LoRA rank {metadata['lora_rank']}, this run's model.lora_rank is {models.config.lora_rank}")
    wanted = {"control", *(f"lora.{task}" for task in known)}
    models.load({n: p for n, p in state.items() if part_of(n) in wanted}, what, wanted)
    models.identifiers.update(metadata.get("identifiers", {}))


def load_motion(models: Assembly, metadata: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> None:
    """The motion module of a stage-1 run. Raises UserError where it was trained on another base, with another noise schedule
    or on fewer frames."""
    check_metadata(metadata, what)
    check_base(models, metadata, what)
    motion = {n: p for n, p in state.items() if n.startswith("motion.")}
    if not motion:
        raise UserError(f"{what}: holds no motion module; give a stage-1 run")
    trained_with, own = metadata.get("beta_schedule", ""), models.config.beta_schedule
    if trained_with != own:
        raise UserError(
            f"{what}: was trained with model.beta_schedule '{trained_with}', this run has '{own}' ('' is the base's own); "
            "set the same"
        )
    check_length(metadata.get("motion_max_seq_length"), models.config.motion_max_seq_length, what)
    models.load(motion, what, {"motion"})
    models.shared_noise = metadata.get("shared_noise")


def go_on(models: Assembly, run: Path) -> None:
    """What a run that is resumed takes from its newest checkpoint before training loads the rest: its people's identifiers.

    Raises UserError where it was trained on another base.
    """
    if not list_checkpoints(run):
        return
    folder = find_checkpoint(run)
    metadata = read_json(folder / "manifest.json")
    if "base" in metadata:
        check_base(models, metadata, str(folder))
    models.identifiers = keep_own(metadata.get("identifiers", {}), models.identifiers)


def check_base(models: Assembly, metadata: Mapping[str, Any], what: str) -> None:
    """Raises UserError where weights were trained on another base. To be asked while the base is whole and as it was loaded."""
    backbone, base = models.backbone, models.config.base
    check_origin(
        metadata["base"], backbone.fingerprint(), backbone.named_weights,
        lambda theirs, own: f"{what}: was trained on base {theirs}, {base} is base {own}",
    )  # fmt: skip


def check_conventions(models: Assembly, metadata: Mapping[str, Any], what: str) -> None:
    """Raises UserError where the control network was trained on condition images of another range."""
    own = models.config.condition_range
    if (theirs := metadata.get("condition_range", own)) != own:
        raise UserError(
            f"{what}: was trained with model.condition_range '{theirs}', this run has '{own}'; set model.condition_range={theirs}"
        )


def note_posterior(models: Assembly, metadata: Mapping[str, Any], what: str) -> None:
    """Say where training goes on with other latents of the condition images; sampling takes the mode in either case."""
    own = models.config.condition_posterior
    if (theirs := metadata.get("condition_posterior", own)) != own:
        without_cache = " data.cache_latents=false (a cache cannot hold draws)" if theirs == "sample" else ""
        print(
            f"note: {what} was trained with model.condition_posterior '{theirs}', this run has '{own}'; to train as it was, "
            f"set model.condition_posterior={theirs}{without_cache}"
        )
