"""Where people's LoRAs lie, and what they count."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import safe_open
from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.torch_files import kind_of

ADAPTER = "adapter_config.json"
PEFT_FILE = "adapter_model.safetensors"
FILES = ("pytorch_lora_weights.safetensors", PEFT_FILE)  # of a folder: diffusers' and PEFT's names
Scale: TypeAlias = Callable[[int], float]  # alpha / rank of a layer without an alpha of its own, by its rank


def lora_file(path: Path) -> Path:
    """The file that an entry of `model.base_loras` means. Raises UserError where a folder has no LoRA, or several under names
    that nobody knows."""
    if not path.is_dir():
        return path
    known = [path / name for name in FILES if (path / name).is_file()]
    found = known[:1] or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise UserError(f"model.base_loras: {path}: has {len(found)} .safetensors files; name the one that is meant")
    return found[0]


def scale_of(file: Path, what: str, part: str) -> Scale:
    """Of the LoRA on a pipeline's `part`, by PEFT's config beside a file, or within it as diffusers writes it; 1 where neither
    says. Raises UserError for one that has several alphas, or DoRA."""
    config: dict[str, Any] = {}
    if file.name == PEFT_FILE and (file.parent / ADAPTER).is_file():
        config = read_json(file.parent / ADAPTER)
    elif kind_of(file) == "safetensors":
        with safe_open(file, "pt") as opened:
            told = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
        config = {name.removeprefix(f"{part}."): value for name, value in told.items()}
    if config.get("alpha_pattern") or config.get("use_dora"):
        raise UserError(f"{what}: has alpha_pattern or use_dora; expected a LoRA with one alpha for all layers")
    if (alpha := config.get("lora_alpha")) is None:
        return lambda rank: 1.0
    return lambda rank: alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def product(up: Tensor, down: Tensor) -> Tensor:
    """What a pair of matrices adds to a layer's, in float64."""
    return up.double() @ down.double()
