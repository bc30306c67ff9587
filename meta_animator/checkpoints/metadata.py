"""What a checkpoint says of itself, its metadata: whether it can be read, and whether the weights agree.

A checkpoint keeps it in `manifest.json` (the name of the first version, so that old code reads new runs), an extracted folder
in `metadata.json`. A manifest is something else: the list of a data set's clips (data/manifest.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meta_animator.checkpoints.origin import check_fingerprint
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.models.motion import check_length
from meta_animator.settings import ModelConfig

KINDS = {str: "a string", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
REQUIRED = {"stage": str, "step": int, "base": str, "tasks": list, "lora_rank": int}
OPTIONAL = {
    "identifiers": dict, "prompt": str, "person": str, "beta_schedule": str, "condition_range": str, "condition_posterior": str,
    "motion_max_seq_length": int, "person_lora_rank": int, "trained_tensors": dict, "shared_noise": float,
    "base_loras": dict, "data": dict, "auxiliary": dict,
}  # fmt: skip


def metadata_of(models: Assembly) -> dict[str, Any]:
    """What a checkpoint with weights of `models` says of them."""
    config, loras = models.config, dict(getattr(models.backbone, "base_loras", {}))
    return {
        "base": models.backbone.fingerprint(),
        **({"base_loras": loras} if loras else {}),
        "tasks": list(config.tasks),
        "lora_rank": config.lora_rank,
        "beta_schedule": config.beta_schedule,
        "condition_range": config.condition_range,
        "condition_posterior": config.condition_posterior,
        **({} if models.motion is None else {"motion_max_seq_length": config.motion_max_seq_length}),
        **({} if models.person is None else {"person_lora_rank": config.person_lora_rank}),
        "identifiers": dict(models.identifiers),
    }


def check_metadata(metadata: Any, what: str) -> None:
    """Raises UserError unless `metadata` says what that of a stage 0, 1 or 2 says, each value of its kind."""
    if isinstance(metadata, Mapping) and str(metadata.get("stage", "")).startswith("base_"):
        raise UserError(f"{what}: is a '{metadata['stage']}' run; give one of stages 0 to 2")
    check_fields(metadata, REQUIRED, f"{what}: manifest.json", OPTIONAL)
    if strange := [task for task in metadata["tasks"] if not isinstance(task, str)]:
        raise UserError(f"{what}: manifest.json: 'tasks' holds {strange[0]!r}; expected names")
    check_fingerprint(metadata["base"], f"{what}: manifest.json: 'base'")


def check_fields(values: Any, required: Mapping[str, type], what: str, optional: Mapping[str, type] | None = None) -> None:
    """Raises UserError unless `values` is a mapping with the required keys, and values of these kinds."""
    if not isinstance(values, Mapping):
        raise UserError(f"{what}: is {_shown(values)}; expected a mapping")
    if missing := [key for key in required if key not in values]:
        raise UserError(f"{what}: '{missing[0]}' is missing")
    for key, kind in {**required, **(optional or {})}.items():
        accepted = (int, float) if kind is float else kind
        if key in values and (not isinstance(values[key], accepted) or isinstance(values[key], bool)):
            raise UserError(f"{what}: '{key}' is {_shown(values[key])}; expected {KINDS[kind]}")


def check_parts(metadata: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    """Raises UserError unless weights with these names have the LoRAs that the metadata of their Meta ControlNet lists, and
    no part that is unknown."""
    parts, tasks = {part_of(name) for name in names}, metadata["tasks"]
    if missing := [task for task in tasks if f"lora.{task}" not in parts]:
        raise UserError(f"{what}: its metadata lists LoRA '{missing[0]}', but its weights hold none of that name; is it damaged?")
    if metadata.get("person_lora_rank") and "person" not in parts:
        raise UserError(f"{what}: its metadata tells of a person's LoRA on the base, but its weights hold none; is it damaged?")
    known = {"control", "motion", *(f"lora.{task}" for task in tasks), *(["person"] if metadata.get("person_lora_rank") else [])}
    if unknown := sorted(parts - known):
        raise UserError(f"{what}: its weights hold '{unknown[0]}', which its metadata does not list; is it damaged?")


def check_control_state(
    metadata: Mapping[str, Any], names: Iterable[str], what: str, tasks: Sequence[str], rank: int, *, fresh_loras: bool,
    key: str = "model.tasks",
) -> str:  # fmt: skip
    """Raises UserError unless a checkpoint has what a run takes: a Meta ControlNet, and LoRAs of `rank` for its `tasks`.

    names         of the checkpoint's weights
    fresh_loras   LoRAs of tasks that the checkpoint does not have may start fresh: returned is what to say of them, else ''
    key           of the config that names the tasks
    """
    names = list(names)
    if not any(name.startswith("control.") for name in names):
        raise UserError(f"{what}: holds no Meta ControlNet; give a stage-0 or stage-2 run")
    check_parts(metadata, names, what)
    missing, said = [task for task in tasks if task not in metadata["tasks"]], ""
    if missing:
        said = f"{what}: has no LoRA for {', '.join(missing)} (it has {', '.join(metadata['tasks']) or 'none'})"
        if not fresh_loras:
            raise UserError(f"{said}; set {key} to a subset")
        said += f"; {'it starts' if len(missing) == 1 else 'they start'} fresh"
    if metadata["lora_rank"] != rank and len(missing) < len(tasks):
        raise UserError(f"{what}: LoRA rank {metadata['lora_rank']}, this run's model.lora_rank is {rank}")
    return said


def check_motion_state(metadata: Mapping[str, Any], names: Iterable[str], what: str, model: ModelConfig) -> None:
    """Raises UserError unless a checkpoint with weights of these names has a motion module, trained with the noise schedule of
    `model` and on as many frames."""
    if not any(name.startswith("motion.") for name in names):
        raise UserError(f"{what}: holds no motion module; give a stage-1 run")
    trained_with, own = metadata.get("beta_schedule", ""), model.beta_schedule
    if trained_with != own:
        raise UserError(
            f"{what}: was trained with model.beta_schedule '{trained_with}', this run has '{own}' ('' is the base's own); "
            "set the same"
        )
    check_length(metadata.get("motion_max_seq_length"), model.motion_max_seq_length, what)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
