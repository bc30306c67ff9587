"""Weights of checkpoints into the networks of a run: first whether they were trained on what the run has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.checkpoints.metadata import check_control_state, check_metadata, check_motion_state
from meta_animator.checkpoints.origin import check_origin
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.models.identifiers import keep_own
from meta_animator.models.person import NAME, fold_person, own_loras
from meta_animator.weights import under


def load_control(
    models: Assembly, metadata: Mapping[str, Any], state: Mapping[str, Tensor], what: str, fresh_loras: bool = False
) -> None:
    """Shared weights and the LoRAs of this run's tasks, which may be a subset of the checkpoint's. A person's LoRA on the base
    goes on learning where the run has one too, and otherwise into the base's weights.

    fresh_loras   LoRAs of tasks that the checkpoint does not have stay as they were made, which is said
    """
    check_metadata(metadata, what)
    check_base(models, metadata, what)
    tasks, rank = models.config.tasks, models.config.lora_rank
    said = check_control_state(metadata, state, what, tasks, rank, fresh_loras=fresh_loras)
    check_conventions(models, metadata, what)
    if said:
        print(f"note: {said}")
    wanted = {"control", *(f"lora.{task}" for task in tasks if task in metadata["tasks"])}
    if person := under(state, f"{NAME}."):
        if models.person is None:
            fold_person(models.backbone, person, what)
        else:
            wanted.add(NAME)
    models.load({n: p for n, p in state.items() if part_of(n) in wanted}, what, wanted)
    models.identifiers.update(metadata.get("identifiers", {}))


def load_motion(models: Assembly, metadata: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> None:
    """The motion module of a stage-1 run. Raises UserError where it was trained on another base, with another noise schedule
    or on fewer frames."""
    check_metadata(metadata, what)
    check_base(models, metadata, what)
    check_motion_state(metadata, state, what, models.config)
    models.load({n: p for n, p in state.items() if n.startswith("motion.")}, what, {"motion"})
    models.shared_noise = metadata.get("shared_noise")
    models.trained_frames = metadata.get("settings", {}).get("data.num_frames")


def go_on(models: Assembly, run: Path) -> None:
    """What a run that is resumed takes from its newest checkpoint before training loads the rest: its people's identifiers.

    Raises UserError where it was trained on another base.
    """
    if not (found := list_checkpoints(run)):
        return
    folder = found[-1]
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
    note_base_loras(models, metadata, what)


def note_base_loras(models: Assembly, metadata: Mapping[str, Any], what: str) -> None:
    """Say where weights were trained with other LoRAs in the base than this run has (`model.base_loras`)."""
    theirs, own = metadata.get("base_loras", {}), dict(getattr(models.backbone, "base_loras", {}))
    own = {name: weight for name, weight in own.items() if name in theirs or name not in own_loras(own)}
    if theirs != own:
        told = [", ".join(f"{name} ({weight})" for name, weight in loras.items()) or "none" for loras in (theirs, own)]
        print(f"note: {what} was trained with model.base_loras {told[0]}; this run has {told[1]}")


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
