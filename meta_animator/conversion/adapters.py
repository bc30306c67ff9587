"""Folders that extraction writes: shared weights, and a LoRA as PEFT has it, which checkpoints/extracted.py reads for a run; and
a person's LoRA on the base as other programs have LoRAs, which `model.base_loras` takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from meta_animator.checkpoints.extracted import ADAPTER, ADAPTER_WEIGHTS, CONTROLNET_WEIGHTS, METADATA, PREFIX
from meta_animator.json_files import write_json
from meta_animator.models.backbones.wan_names import original_lora
from meta_animator.models.person import DOWN, UP, for_diffusers
from meta_animator.weights import save_tensors

CONTROLNET = "controlnet"
PERSON_FILE, COMFYUI_FILE = "pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"


def write_control(folder: Path, shared: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    save_tensors(shared, folder / CONTROLNET_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, dict(metadata))


def write_adapter(folder: Path, lora: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    config = adapter_config(lora).to_dict()
    write_json(folder / ADAPTER, {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()})
    save_tensors({PREFIX + n: w for n, w in lora.items()}, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, dict(metadata))


def write_person(folder: Path, lora: Mapping[str, Tensor], network_name: str, metadata: Mapping[str, Any]) -> None:
    """A person's LoRA on a base's `network_name`: for diffusers' `load_lora_weights`, and under the names that ComfyUI knows,
    kohya's of a UNet, the original ones of a Wan."""
    save_tensors(for_diffusers(lora, network_name), folder / PERSON_FILE, {"format": "pt"})
    others = original_lora(lora) if network_name == "transformer" else _under_kohyas_names(lora, network_name)
    save_tensors(others, folder / COMFYUI_FILE, {"format": "pt"})
    write_json(folder / METADATA, dict(metadata))


def _under_kohyas_names(lora: Mapping[str, Tensor], network_name: str) -> dict[str, Tensor]:
    kohya = {}
    for module in dict.fromkeys(name.rsplit(".lora_", 1)[0] for name in lora):
        name, down = f"lora_{network_name}_{module.replace('.', '_')}", lora[module + DOWN]
        kohya |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": lora[module + UP]}
        kohya[f"{name}.alpha"] = torch.tensor(float(len(down)))
    return kohya


def adapter_config(lora: Mapping[str, Tensor]) -> LoraConfig:
    """What PEFT needs to know of a LoRA of ours: its rank, which linear layers it sits on, and that it counts with factor 1."""
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in lora})
    rank = len(lora[f"{layers[0]}.lora_A.weight"])
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, inference_mode=True)
