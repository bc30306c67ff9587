"""A Meta ControlNet with one task's LoRA folded in, out of the folders that this project writes.

- a run of stage 0 or 2, or one of its checkpoints, holds the control network and every task's LoRA;
- what extract_LoRA_weights.sh wrote has `controlnet/` and a folder for each task, any of which may be named;
- the `controlnet/` of `extract.merge` has its LoRA in it already.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.checkpoints.extracted import (
    ADAPTER_WEIGHTS,
    CONTROLNET_WEIGHTS,
    METADATA,
    PREFIX,
    check_adapter,
    read_metadata,
)
from meta_animator.checkpoints.files import find_checkpoint, read_weights
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.errors import UserError
from meta_animator.fingerprints import short
from meta_animator.json_files import read_json
from meta_animator.models.person import own_loras
from meta_animator.weights import check_names, load_tensors, under

ROOT = Path(__file__).resolve().parents[2]
CONTROLNET = "controlnet"
PERSON = (
    "its person has a LoRA on the base too; give the checkpoint person/comfyui_lora.safetensors of extract_LoRA_weights.sh by "
    "LoraLoaderModelOnly"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A control network for one task.

    weights          under the names of diffusers' ControlNetModel, without hint block
    config           diffusers' config of it; None where the folder has none
    condition_range  "signed": its VAE saw condition pictures in [-1, 1]; "unit": in [0, 1]
    """

    weights: dict[str, Tensor]
    config: dict[str, Any] | None
    condition_range: str


def find_folder(name: str) -> Path:
    """The folder of this name, a relative one below the repository. Raises UserError where there is none."""
    if not name.strip():
        raise UserError("folder is empty; name a run of stage 0 or 2, or a folder that extract_LoRA_weights.sh wrote")
    path = Path(name.strip()).expanduser()
    folder = path if path.is_absolute() else ROOT / path
    if not folder.is_dir():
        raise UserError(f"folder {name}: there is no {folder}; name a run of stage 0 or 2, or what was extracted from one")
    return folder


def stamp(name: str) -> tuple[str, int]:
    """What changes when the folder's weights do: where they are, and when they were written."""
    try:
        folder = find_folder(name)
        holder = folder if _extracted(folder) else find_checkpoint(folder)
        return str(holder), max((file.stat().st_mtime_ns for file in holder.rglob("*.safetensors")), default=0)
    except (UserError, OSError):
        return name, 0  # said when it is loaded


def read_control(name: str, task: str, strength: float = 1.0, control: str = "") -> Control:
    """The control network of a folder (see the head of this file) with `strength` times the LoRA of `task` in its weights.

    control   for the folder of a LoRA alone: that of the control network which it belongs to

    Raises UserError where the folder is none of these, lacks the task, or its parts do not belong together.
    """
    folder, told = find_folder(name), about(name)
    if told.get("person_lora_rank") or own_loras(told.get("base_loras", {})):
        print(f"note: folder {name}: {PERSON}")
    if not _extracted(folder):
        return _of_run(folder, task, strength)
    return _of_extracted(folder, task, strength, find_folder(control) if control.strip() else None)


def about(name: str) -> dict[str, Any]:
    """The metadata of a folder's weights: identifiers, prompt, person. Raises UserError as `read_control` does."""
    folder = find_folder(name)
    if not _extracted(folder):
        metadata = read_json(find_checkpoint(folder) / "manifest.json")
        check_metadata(metadata, str(folder))
        return metadata
    return read_metadata(folder if (folder / METADATA).is_file() else folder / CONTROLNET)


def _extracted(folder: Path) -> bool:
    return (folder / METADATA).is_file() or (folder / CONTROLNET / METADATA).is_file()


def _of_run(folder: Path, task: str, strength: float) -> Control:
    metadata, weights = read_weights(folder)
    check_metadata(metadata, str(folder))
    if any(n.startswith("control.vace_") for n in weights):
        raise UserError(_for_vace(folder))
    if not any(n.startswith("control.") for n in weights):
        raise UserError(f"folder {folder}: holds no Meta ControlNet; give a run of stage 0 or 2")
    check_parts(metadata, weights, str(folder))
    if task not in metadata["tasks"]:
        raise UserError(_no_task(folder, task, metadata["tasks"]))
    folded = fold(under(weights, "control."), under(weights, f"lora.{task}."), strength, str(folder))
    return Control(weights=folded, config=None, condition_range=metadata.get("condition_range", "signed"))


def _of_extracted(folder: Path, task: str, strength: float, control: Path | None) -> Control:
    lora, shared = _pair(folder, task, control)
    if lora is None and strength != 1.0:
        raise UserError(f"folder {shared}: has its LoRA folded in, so lora_strength is 1; got {strength:g}")
    about_control = read_metadata(shared)
    if not (shared / CONTROLNET_WEIGHTS).is_file():
        raise UserError(f"folder {shared}: no {CONTROLNET_WEIGHTS}; expected the {CONTROLNET} folder that was extracted")
    weights = load_tensors(shared / CONTROLNET_WEIGHTS)
    if any(n.startswith("vace_") for n in weights):
        raise UserError(_for_vace(folder))
    if lora is not None:
        about_lora = read_metadata(lora)
        if (theirs := about_lora["control"]) != about_control["control"]:
            raise UserError(
                f"folder {lora}: belongs to ControlNet {short(theirs)}, {shared} is {short(about_control['control'])}; use what "
                "was extracted together"
            )
        weights = fold(weights, _adapter(lora, about_lora), strength, str(lora))
    return Control(
        weights=weights, config=read_json(shared / "config.json"), condition_range=about_control.get("condition_range", "signed")
    )


def _pair(folder: Path, task: str, control: Path | None) -> tuple[Path | None, Path]:
    """(the LoRA's folder, the control network's); no LoRA where that network has it in it."""
    metadata = read_json(folder / METADATA) if (folder / METADATA).is_file() else {}
    if "task" in metadata:
        lora, shared = folder, control or folder.parent / CONTROLNET
    else:
        shared = control or (folder if metadata else folder / CONTROLNET)
        lora = (folder.parent if metadata else folder) / task
    if not (shared / METADATA).is_file():
        raise UserError(f"folder {folder}: no {CONTROLNET} folder beside it; name it as control_folder")
    if "task" in metadata and metadata["task"] != task:
        raise UserError(_no_task(folder, task, [metadata["task"]]))
    if merged := read_metadata(shared).get("merged"):
        if merged != task:
            raise UserError(_no_task(shared, task, [merged]))
        return None, shared
    if not (lora / METADATA).is_file():
        have = sorted(place.name for place in lora.parent.iterdir() if (place / ADAPTER_WEIGHTS).is_file())
        raise UserError(_no_task(lora.parent, task, have))
    return lora, shared


def _adapter(folder: Path, metadata: Mapping[str, Any]) -> dict[str, Tensor]:
    state = under(load_tensors(folder / ADAPTER_WEIGHTS), PREFIX)
    check_adapter(folder, state, metadata["lora_rank"])
    return state


def fold(weights: Mapping[str, Tensor], lora: Mapping[str, Tensor], strength: float, what: str) -> dict[str, Tensor]:
    """{name: W + strength up down} for the layers that the LoRA is on, W for the others: float32. Raises UserError unless both
    halves are there for every layer, and fit it."""
    folded = {name: weight.float() for name, weight in weights.items()}
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in lora})
    check_names([f"{layer}.lora_{half}.weight" for layer in layers for half in "AB"], lora, what)
    for layer in layers:
        down, up = (lora[f"{layer}.lora_{half}.weight"].float() for half in "AB")
        weight = folded.get(f"{layer}.weight")
        if weight is None or weight.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
            found = "is not in the ControlNet" if weight is None else f"has shape {tuple(weight.shape)} in the ControlNet"
            raise UserError(f"{what}: {layer} {found}, which does not fit a LoRA {tuple(up.shape)} x {tuple(down.shape)}")
        folded[f"{layer}.weight"] = weight.addmm(up, down, alpha=strength)
    return folded


def _no_task(folder: Path, task: str, have: list[str]) -> str:
    return f"folder {folder}: has no LoRA '{task}'; it has: {', '.join(have) or 'none'}"


def _for_vace(folder: Path) -> str:
    return (
        f"folder {folder}: was trained on Wan; load its comfyui_lora.safetensors, which extract_LoRA_weights.sh writes, with "
        "ComfyUI's own LoRA loader"
    )
