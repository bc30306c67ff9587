"""Whether the checkpoints that a run names have what it takes from them: from their metadata and the names of their weights."""

from pathlib import Path
from typing import Any

from meta_animator.checkpoints.extracted import METADATA, read_metadata
from meta_animator.checkpoints.files import find_checkpoint
from meta_animator.checkpoints.metadata import check_control_state, check_metadata, check_motion_state
from meta_animator.conversion.families import check_family
from meta_animator.conversion.lora import wanted_tasks
from meta_animator.conversion.quickstart import CHECKPOINT
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.backbones import family
from meta_animator.published import asked_by
from meta_animator.sampling.animate import prompt_for
from meta_animator.settings import ExtractConfig, ModelConfig, SampleConfig
from meta_animator.weights import tensor_names

MADE_BY = {  # (stage, key): the script that writes what the key names
    ("motion", "model.control_from"): "Step0_train_BaseCtrl_LoRA.sh",
    ("reference", "model.control_from"): "Step0_train_BaseCtrl_LoRA.sh",
    ("sample", "model.control_from"): "Step2_finetune_BaseCtrl_LoRA.sh",
    ("sample", "model.motion_from"): "Step1_train_Motion_Module.sh",
    ("extract", "extract.checkpoint"): "Step2_finetune_BaseCtrl_LoRA.sh",
}


class Absent(UserError):
    """Something that a run needs and that is not there yet: for `--dry-run`, which may come before it, only a note."""


def _checkpoint(stage: str, key: str, path: str) -> tuple[Path, dict[str, Any], list[str]]:
    """(folder, metadata, names of its weights) of the checkpoint that a key names."""
    try:
        folder = find_checkpoint(path)
    except UserError as error:
        kind = UserError if list(Path(path).glob("*")) else Absent
        raise kind(f"{key}: {error}{_how(stage, key, Path(path))}") from None
    metadata = read_json(folder / "manifest.json")
    check_metadata(metadata, path)
    return folder, metadata, tensor_names(folder / "model.safetensors")


def _how(stage: str, key: str, path: Path) -> str:
    """The command that makes what is missing, to come after "train that stage first"."""
    if path.parts[-2:] == CHECKPOINT.parts or path.name in {entry.place for entry in asked_by("sd15")}:
        return ", or take what is published (python scripts/get_weights.py sd15)"
    script = MADE_BY.get((stage, key), "")
    return f" (bash {script})" if script else ""


def check_control(stage: str, model: ModelConfig, sample: SampleConfig) -> None:
    """Raises UserError where `model.control_from` does not have what this run takes from it."""
    source = model.control_from
    if not source:
        if stage in ("motion", "reference"):
            _check_start(stage, model)
        return
    if (Path(source) / METADATA).is_file():
        check_control_folder(source, sample)
        return
    _, metadata, names = _checkpoint(stage, "model.control_from", source)
    key, tasks = ("sample.tasks", list(sample.tasks)) if stage == "sample" else ("model.tasks", model.tasks)
    fresh = stage not in ("motion", "sample")  # those can train no LoRA from nothing
    check_control_state(metadata, names, source, tasks, model.lora_rank, fresh_loras=fresh, key=key)
    rank = metadata.get("person_lora_rank", 0)
    if rank and stage == "control":
        raise UserError(f"model.control_from: {source} is of stage 2, with one person's LoRA on the base; name a run of stage 0")
    if rank and stage == "reference" and rank != model.person_lora_rank:
        raise UserError(f"model.control_from: {source} has a LoRA of rank {rank} on the base; set model.person_lora_rank={rank}")


def _check_start(stage: str, model: ModelConfig) -> None:
    """Raises UserError where a stage that goes on with a control network has none to go on with: no run is named, and the base
    brings none."""
    bases = family(model.backbone)
    brought = bases.brings_control(Path(model.base))
    if brought is None:  # not here, or a name on the hub
        brought = bases.brings_control(Path(model.architecture)) if model.architecture else None
    if brought:
        return
    said = f"model.control_from is empty: stage '{stage}' starts from a stage-0 run; name its folder"
    if model.backbone == "wan":
        known = "brings no control branch" if brought is False else "is not here, and model.architecture does not say what it is"
        said += f" (model.base {model.base} {known}; a VACE base needs no stage 0)"
    raise UserError(said)


def check_control_folder(source: str, sample: SampleConfig) -> None:
    """Raises UserError where a folder that `extract` wrote, or the LoRAs beside it, do not go with the tasks."""
    merged = read_metadata(source).get("merged")
    if merged and (sample.loras or list(sample.tasks) != [merged]):
        raise UserError(
            f"model.control_from: {source} has the LoRA of '{merged}' folded in; it takes sample.tasks={{{merged}: 1.0}} "
            "and no sample.loras"
        )
    if not merged and not sample.loras:
        raise UserError(f"model.control_from: {source} is a ControlNet without LoRAs; name some in sample.loras")


def check_motion(stage: str, model: ModelConfig) -> None:
    """Raises UserError where `model.motion_from` is a run without a motion module, or one that was trained otherwise."""
    source = model.motion_from
    others = Path(source).is_file() or (Path(source) / "config.json").is_file()
    if others and model.backbone == "wan":
        raise UserError(
            f"model.motion_from: {source} is no run of stage 1; LoRAs of others for this base go into model.base_loras"
        )
    if not source or others:
        return
    _, metadata, names = _checkpoint(stage, "model.motion_from", source)
    check_motion_state(metadata, names, source, model)


def check_words(stage: str, model: ModelConfig, sample: SampleConfig) -> None:
    """Raises UserError for an identity that the checkpoint does not know."""
    source = model.control_from
    extracted = (Path(source) / METADATA).is_file()
    known = read_metadata(source) if extracted else _checkpoint(stage, "model.control_from", source)[1]
    prompt_for(sample, known.get("identifiers", {}), known.get("prompt", ""), known.get("person", ""))


def check_extraction(stage: str, model: ModelConfig, extract: ExtractConfig) -> None:
    """Raises UserError where a checkpoint lacks the LoRAs to take out."""
    if not extract.checkpoint:
        raise UserError("extract.checkpoint is empty; name a run of stage 0 or 2, or one of its checkpoints")
    folder, metadata, names = _checkpoint(stage, "extract.checkpoint", extract.checkpoint)
    wanted_tasks([extract.merge] if extract.merge else extract.tasks, metadata, names, folder)
    check_family(model.backbone, names, str(folder))
