"""Folders that extraction writes: shared weights, and a LoRA as PEFT has it. checkpoints/extracted.py reads both for a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor

from meta_animator.checkpoints.extracted import ADAPTER, ADAPTER_WEIGHTS, CONTROLNET_WEIGHTS, METADATA, PREFIX
from meta_animator.json_files import write_json
from meta_animator.weights import save_tensors

CONTROLNET = "controlnet"


def write_control(folder: Path, shared: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    save_tensors(shared, folder / CONTROLNET_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, dict(metadata))


def write_adapter(folder: Path, lora: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    config = adapter_config(lora).to_dict()
    write_json(folder / ADAPTER, {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()})
    save_tensors({PREFIX + n: w for n, w in lora.items()}, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, dict(metadata))


def adapter_config(lora: Mapping[str, Tensor]) -> LoraConfig:
    """What PEFT needs to know of a LoRA of ours: its rank, which linear layers it sits on, and that it counts with factor 1."""
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in lora})
    rank = len(lora[f"{layers[0]}.lora_A.weight"])
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, inference_mode=True)
