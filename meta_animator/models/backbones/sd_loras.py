"""People's LoRAs folded into a Stable Diffusion base, in the forms that diffusers reads: kohya's, diffusers' and PEFT's names."""

import re
from collections.abc import Mapping
from pathlib import Path

from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint, short
from meta_animator.models.backbones.lora_files import lora_file, scale_of
from meta_animator.torch_files import read_state

ADAPTER = "folded"
PARTS = ("unet", "text_encoder")
PEFT_PREFIX = "base_model.model."
UP = re.compile(r"\.(lora_up|lora_B|lora\.up|lora_linear_layer\.up)\b")
OTHER = re.compile(r"dora_scale|lora_magnitude_vector|hada_|lokr_|\.diff(_b)?$")


class _Parts(StableDiffusionLoraLoaderMixin):
    """What diffusers' loader asks of a pipeline."""

    hf_device_map = None

    def __init__(self, unet: UNet2DConditionModel, text_encoder: nn.Module):
        self.unet, self.text_encoder, self.components = unet, text_encoder, {"unet": unet, "text_encoder": text_encoder}


def fold_loras(unet: UNet2DConditionModel, text_encoder: nn.Module, files: Mapping[str, float], base: str) -> dict[str, float]:
    """Add LoRAs to the weights of a base, and say how many of them each changes.

    files   {file or folder: weight}
    Returns {name and fingerprint: weight}. Raises UserError for a LoRA that fits no layer or has other shapes; what was loaded
    is then of no use.
    """
    parts, named = _Parts(unet, text_encoder), {}
    for file, weight in files.items():
        path = Path(file)
        what, file = f"model.base_loras: {path}", lora_file(path)
        state = read_state(file)
        _check(state, what)
        named[f"{path.name} {short(fingerprint(state))}"] = weight
        layers = len({name for name in state if UP.search(name)})
        of_unet, of_text = _fold(parts, _scaled(_of_a_pipeline(state, unet), file, what), weight, what, base)
        if not of_unet + of_text:
            raise UserError(f"{what}: fits no layer of base {base}, its first is '{min(state)}'; expected a LoRA for its UNet")
        print(f"note: {path} ({weight:g}): of its {layers} layers, {of_unet} change the UNet, {of_text} the text encoder")
    return named


def _check(state: Mapping[str, Tensor], what: str) -> None:
    if not any(UP.search(name) for name in state):
        raise UserError(f"{what}: holds no LoRA; expected weights such as lora_unet_..._to_q.lora_up.weight")
    if other := sorted(name for name in state if OTHER.search(name)):
        raise UserError(f"{what}: holds '{other[0]}'; expected a plain LoRA (no DoRA, LoHa or LoKr)")
    if not all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point()):
        raise UserError(f"{what}: holds values that are not finite; is it damaged?")


def _of_a_pipeline(state: Mapping[str, Tensor], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Under the names of a pipeline's LoRA, where they are those of a UNet's: PEFT's own, or bare ones."""
    own = tuple(f"{name}." for name, _ in unet.named_children())
    bare = {name.removeprefix(PEFT_PREFIX): weight for name, weight in state.items()}
    return {f"unet.{n}": w for n, w in bare.items()} if all(n.startswith(own) for n in bare) else dict(state)


def _scaled(state: dict[str, Tensor], file: Path, what: str) -> dict[str, Tensor]:
    """With the factor alpha / rank in the matrices, where PEFT's config tells it: diffusers would take it for 1, reading from
    memory. Alphas in the file itself are left to diffusers."""
    if any(name.endswith(".alpha") for name in state):
        return state
    scales = {part: scale_of(file, what, part) for part in PARTS}
    for name in [name for name in state if UP.search(name)]:
        part = next((part for part in PARTS if name.startswith(f"{part}.")), PARTS[0])
        state[name] = state[name] * scales[part](state[name].shape[1])
    return state


def _fold(parts: _Parts, state: Mapping[str, Tensor], weight: float, what: str, base: str) -> list[int]:
    """Returns how many layers of each part change."""
    try:
        parts.load_lora_weights(dict(state), adapter_name=ADAPTER)
        changed = [sum(isinstance(m, BaseTunerLayer) for m in getattr(parts, part).modules()) for part in PARTS]
        parts.fuse_lora(components=list(PARTS), lora_scale=weight, adapter_names=[ADAPTER])
        parts.unload_lora_weights()
    except (ValueError, RuntimeError, KeyError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        said = next((line for line in lines if line.startswith("size mismatch")), lines[0])
        raise UserError(f"{what}: does not fit base {base}: {said}") from error
    return changed
