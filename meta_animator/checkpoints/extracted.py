"""What extract_LoRA_weights.sh has taken out of a checkpoint, read for a run: a Meta ControlNet's folder, and folders of LoRAs
for it. conversion/lora.py writes them, and says what is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from meta_animator.checkpoints.loading import check_conventions, note_base_loras
from meta_animator.checkpoints.metadata import check_fields
from meta_animator.checkpoints.origin import State, check_fingerprint, check_origin
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.assembly import Assembly
from meta_animator.weights import copy_strict, load_tensors, under

PREFIX = "base_model.model."  # how PEFT names the wrapped network
CONTROLNET_WEIGHTS = "diffusion_pytorch_model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER, METADATA = "adapter_config.json", "metadata.json"


def load_control_folder(models: Assembly, folder: str | Path) -> dict[str, Any]:
    """Fill the Meta ControlNet's shared weights from an extracted `controlnet` folder; returns its metadata.

    Raises UserError for another base.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if (folder / "model_index.json").is_file():
        raise UserError(
            f"model.control_from: {folder} is a whole pipeline with a LoRA folded in, for diffusers or as the model.base of a "
            "training; stage 3 takes the run that it was made of, or a folder controlnet/"
        )
    _expect_base(models, metadata, folder)
    check_conventions(models, metadata, str(folder))
    note_base_loras(models, metadata, str(folder))
    copy_strict(models.control.base_state(), load_tensors(folder / CONTROLNET_WEIGHTS), str(folder))
    models.identifiers.update(metadata["identifiers"])
    return metadata


def load_loras(models: Assembly, folders: Mapping[str | Path, float]) -> dict[str, float]:
    """Add extracted LoRAs to the bank; returns the names that `bank.use` knows them by, each with its folder's weight.

    Raises UserError for a LoRA of another base, ControlNet or rank: what it belongs to, and what is there.
    """
    control = models.fingerprint("control") if folders else ""
    return {_load_lora(models, Path(folder), control): weight for folder, weight in folders.items()}


def _load_lora(models: Assembly, folder: Path, control: str) -> str:
    """control: the fingerprint of the ControlNet that is there."""
    bank, metadata = models.control.bank, read_metadata(folder)
    if "task" not in metadata:
        raise UserError(f"{folder}: is not the folder of a LoRA; expected one of its neighbours, such as 'dwpose'")
    _expect_base(models, metadata, folder)
    _expect_weights(folder, "ControlNet", metadata["control"], control, models.control.base_state)
    if metadata["lora_rank"] != bank.rank:
        raise UserError(f"{folder}: has LoRA rank {metadata['lora_rank']}, this run's model.lora_rank is {bank.rank}")
    state = under(load_tensors(folder / ADAPTER_WEIGHTS), PREFIX)
    check_adapter(folder, state, metadata["lora_rank"])
    name = f"{metadata['task']}_extracted{len(bank.tasks)}"
    bank.load(name, state, str(folder))
    return name


def check_adapter(folder: Path, state: Mapping[str, Tensor], rank: int) -> None:
    """Raises UserError unless weights, metadata and PEFT's config agree, and the LoRA counts with factor alpha / rank = 1."""
    adapter = read_json(folder / ADAPTER)
    check_fields(adapter, {"r": int}, str(folder / ADAPTER))
    factor = adapter.get("lora_alpha", rank)
    if adapter["r"] != rank or factor != rank or adapter.get("use_rslora"):
        raise UserError(
            f"{folder / ADAPTER}: has r={adapter['r']}, lora_alpha={factor}, use_rslora={adapter.get('use_rslora', False)}; "
            f"expected r={rank}, lora_alpha={rank}, use_rslora=False as extraction writes them (sample.loras takes a weight)"
        )
    for name, tensor in state.items():
        if name.endswith(".lora_A.weight") and tensor.shape[:1] != (rank,):
            raise UserError(f"{folder}: {name} has shape {tuple(tensor.shape)}, {METADATA} says lora_rank {rank}; is it damaged?")


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Raises UserError where `folder` was not written by `extract`."""
    folder = Path(folder)
    if not (folder / METADATA).is_file():
        raise UserError(f"LoRA {folder}: no {METADATA}; expected a folder written by extract_LoRA_weights.sh")
    metadata, what = read_json(folder / METADATA), str(folder / METADATA)
    required = {"base": str, "control": str, "lora_rank": int, "identifiers": dict}
    check_fields(metadata, required, what, {"task": str, "merged": str, "base_loras": dict})
    for key in ("base", "control"):
        check_fingerprint(metadata[key], f"{what}: '{key}'")
    return metadata


def _expect_base(models: Assembly, metadata: Mapping[str, Any], folder: Path) -> None:
    _expect_weights(folder, "base", metadata["base"], models.backbone.fingerprint(), models.backbone.named_weights)


def _expect_weights(folder: Path, what: str, found: str, own: str, state: State) -> None:
    check_origin(
        found, own, state,
        lambda theirs, ours: f"{folder}: belongs to {what} {theirs}, this run has {what} {ours}; use what was extracted together",
    )  # fmt: skip
