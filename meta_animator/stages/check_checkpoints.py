"""Whether the checkpoints that a run names have what it takes from them: from their metadata and the names of their weights."""

from pathlib import Path
from typing import Any

from meta_animator.checkpoints.files import find_checkpoint
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.conversion.lora import METADATA, read_metadata, wanted_tasks
from meta_animator.conversion.quickstart import CHECKPOINT
from meta_animator.errors import UserError
from meta_animator.models.motion import check_length
from meta_animator.published import asked_by
from meta_animator.sampling.animate import prompt_for
from meta_animator.settings import RunConfig
from meta_animator.weights import read_json, tensor_names

MADE_BY = {  # (stage, key): the script that writes what the key names
    ("motion", "control_from"): "Step0_train_BaseCtrl_LoRA.sh",
    ("reference", "control_from"): "Step0_train_BaseCtrl_LoRA.sh",
    ("sample", "control_from"): "Step2_finetune_BaseCtrl_LoRA.sh",
    ("sample", "motion_from"): "Step1_train_Motion_Module.sh",
    ("extract", "checkpoint"): "Step2_finetune_BaseCtrl_LoRA.sh",
}


class Absent(UserError):
    """Something that a run needs and that is not there yet: for `--dry-run`, which may come before it, only a note."""


def _checkpoint(config: RunConfig, section: str, key: str) -> tuple[Path, dict[str, Any], list[str]]:
    """(folder, metadata, names of its weights) of the checkpoint that a key names."""
    path = getattr(getattr(config, section), key)
    try:
        folder = find_checkpoint(path)
    except UserError as error:
        kind = UserError if list(Path(path).glob("*")) else Absent
        raise kind(f"{section}.{key}: {error}{_how(config.stage, key, Path(path))}") from None
    metadata = read_json(folder / "manifest.json")
    check_metadata(metadata, path)
    return folder, metadata, tensor_names(folder / "model.safetensors")


def _how(stage: str, key: str, path: Path) -> str:
    """The command that makes what is missing, to come after "train that stage first"."""
    if path.parts[-2:] == CHECKPOINT.parts or path.name in {entry.place for entry in asked_by("sd15")}:
        return ", or take what is published (python scripts/get_weights.py sd15)"
    script = MADE_BY.get((stage, key), "")
    return f" (bash {script})" if script else ""


def check_control(config: RunConfig) -> None:
    """Raises UserError where `model.control_from` does not have what this run takes from it."""
    source, stage = config.model.control_from, config.stage
    if not source:
        if stage in ("motion", "reference"):
            raise UserError(f"model.control_from is empty: stage '{stage}' starts from a stage-0 run; name its folder")
        return
    tasks = list(config.sample.tasks) if stage == "sample" else config.model.tasks
    if (Path(source) / METADATA).is_file():
        check_control_folder(config)
        return
    _, metadata, names = _checkpoint(config, "model", "control_from")
    if not any(name.startswith("control.") for name in names):
        raise UserError(f"{source}: holds no Meta ControlNet; give a stage-0 or stage-2 run")
    check_parts(metadata, names, source)
    fixed = stage in ("motion", "sample")  # those that can train no LoRA from nothing
    if missing := [task for task in tasks if task not in metadata["tasks"] and fixed]:
        raise UserError(
            f"{source}: has no LoRA for {', '.join(missing)} (it has {', '.join(metadata['tasks']) or 'none'}); "
            f"set {'sample' if stage == 'sample' else 'model'}.tasks to a subset"
        )
    if metadata["tasks"] and metadata["lora_rank"] != config.model.lora_rank:
        raise UserError(f"{source}: LoRA rank {metadata['lora_rank']}, this run's model.lora_rank is {config.model.lora_rank}")


def check_control_folder(config: RunConfig) -> None:
    """Raises UserError where a folder that `extract` wrote, or the LoRAs beside it, do not go with the tasks."""
    source, sample = config.model.control_from, config.sample
    merged = read_metadata(source).get("merged")
    if merged and (sample.loras or list(sample.tasks) != [merged]):
        raise UserError(
            f"model.control_from: {source} has the LoRA of '{merged}' folded in; it takes sample.tasks={{{merged}: 1.0}} "
            "and no sample.loras"
        )
    if not merged and not sample.loras:
        raise UserError(f"model.control_from: {source} is a ControlNet without LoRAs; name some in sample.loras")


def check_motion(config: RunConfig) -> None:
    """Raises UserError where `model.motion_from` is a run without a motion module, or one that was trained otherwise."""
    source, stage = config.model.motion_from, config.stage
    if not source or stage not in ("motion", "sample") or Path(source).is_file() or (Path(source) / "config.json").is_file():
        return
    _, metadata, names = _checkpoint(config, "model", "motion_from")
    if not any(name.startswith("motion.") for name in names):
        raise UserError(f"{source}: holds no motion module; give a stage-1 run")
    check_length(metadata.get("motion_max_seq_length"), config.model.motion_max_seq_length, source)


def check_words(config: RunConfig) -> None:
    """Raises UserError for an identity that the checkpoint does not know."""
    source = Path(config.model.control_from)
    known = read_metadata(source) if (source / METADATA).is_file() else _checkpoint(config, "model", "control_from")[1]
    prompt_for(config.sample, known.get("identifiers", {}), known.get("prompt", ""), known.get("person", ""))


def check_extraction(config: RunConfig) -> None:
    """Raises UserError where a checkpoint lacks the LoRAs to take out."""
    if not config.extract.checkpoint:
        raise UserError("extract.checkpoint is empty; name a run of stage 0 or 2, or one of its checkpoints")
    folder, metadata, names = _checkpoint(config, "extract", "checkpoint")
    wanted_tasks([config.extract.merge] if config.extract.merge else config.extract.tasks, metadata, names, folder)
