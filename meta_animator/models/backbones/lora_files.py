"""Where people's LoRAs lie."""

from pathlib import Path

from meta_animator.errors import UserError

PEFT_FILE = "adapter_model.safetensors"
FILES = ("pytorch_lora_weights.safetensors", PEFT_FILE)  # of a folder: diffusers' and PEFT's names


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
