"""People's LoRAs folded into a Wan base, in every form of names that they come in.

A module is called as diffusers calls it or by its original name, with a prefix (transformer., diffusion_model.,
base_model.model., ...) or none, or with underscores (lora_unet_blocks_0_self_attn_q). A LoRA is a pair of matrices and may have
an alpha; beside it there may be plain differences of weights (diff) and biases (diff_b).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint, short
from meta_animator.models.backbones.lora_files import Scale, lora_file, product, scale_of
from meta_animator.models.backbones.wan_names import original_name
from meta_animator.torch_files import read_state

PREFIX = re.compile(r"^(?:base_model\.model\.|model\.|transformer\.|diffusion_model\.)*(?:lora_unet_|lora_transformer_)?")
DOWN = ("lora_A", "lora_down", "lora.down")
MATRIX = re.compile(r"(.+)\.(lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)(?:\.default)?\.(weight|bias)")
OTHER = re.compile(r"(.+)\.(alpha|diff|diff_b)")


def fold_loras(
    networks: list[nn.Module], files: Mapping[str, float], base: str, control_from: str = ""
) -> dict[str, float]:
    """Add LoRAs to the weights of the networks that a base is made of, and say how many layers each changes.

    files          {file or folder: weight}
    control_from   where the control branch will be read from, if it does not stay the base's own: what a LoRA changes in it is
                   lost, and that is said
    Returns {name and fingerprint: weight}. Raises UserError, before any weight is changed, for a LoRA that fits no layer, has
    other shapes or holds what cannot be folded in.
    """
    own = {name: weight for network in networks for name, weight in network.named_parameters()}
    modules = _spellings(own)
    added = [_added(own, modules, Path(file), weight, base, control_from) for file, weight in files.items()]
    for changes in added:
        for name, change in changes.by_name.items():
            own[name].data += change.make().view(own[name].shape).to(own[name].dtype)
    return {name: weight for changes in added for name, weight in changes.named.items()}


class Change(NamedTuple):
    """What is added to a weight: its shape, and what makes it in float64, one at a time: all of them would be larger than a
    base."""

    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    def plus(self, other: "Change | None") -> "Change":
        return self if other is None else Change(self.shape, lambda: self.make() + other.make().view(self.shape))

    def times(self, factor: float) -> "Change":
        return Change(self.shape, lambda: factor * self.make())


class Changes(NamedTuple):
    """What a LoRA adds, by the base's names of weights, and what it is called in metadata, with its weight."""

    by_name: dict[str, Change]
    named: dict[str, float]


def _added(
    own: Mapping[str, Tensor], modules: Mapping[str, str], path: Path, weight: float, base: str, control_from: str
) -> Changes:
    what, file = f"model.base_loras: {path}", lora_file(path)
    state, scale = read_state(file), scale_of(file, what, "transformer")
    found = _by_module(state, what)
    unknown = sorted(set(found) - set(modules))
    if not found:
        raise UserError(f"{what}: holds no LoRA; expected weights such as blocks.0.self_attn.q.lora_A.weight")
    if not all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point()):
        raise UserError(f"{what}: holds values that are not finite; is it damaged?")
    if len(unknown) == len(found):
        raise UserError(f"{what}: fits no layer of base {base}, its first is '{unknown[0]}'; expected a LoRA for Wan 2.1")
    known = {modules[name]: parts for name, parts in found.items() if name in modules}
    changes: dict[str, Change] = {}
    for module, parts in known.items():
        for kind, change in _changes(module, parts, scale, what).items():
            name = f"{module}.{kind}" if f"{module}.{kind}" in own else module
            if name not in own or _shape(change.shape) != _shape(own[name].shape):
                there = f"{list(own[name].shape)}" if name in own else "none"
                raise UserError(
                    f"{what}: changes a {kind} {list(change.shape)} of {module}, base {base} has {there}; it is for another size "
                    "of Wan, or for image-to-video"
                )
            changes[name] = change.times(weight)
    branch = sum(module.startswith("vace_") for module in known)
    left = f"; {len(unknown)} of its layers are not in this base, the first is '{unknown[0]}'" if unknown else ""
    lost = f", which are not used: the branch is that of {control_from}" if branch and control_from else ""
    layers = f"{len(known) - branch} layers of the base, {branch} of its control branch{lost}{left}"
    print(f"note: {path} ({weight:g}) changes {layers}")
    return Changes(changes, {f"{path.name} {short(fingerprint(state))}": weight})


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    """As a matrix has it: of a convolution, all that one output sees is one side."""
    return shape[0], math.prod(shape[1:])


def _spellings(own: Mapping[str, Tensor]) -> dict[str, str]:
    """{every name that a module may have in a LoRA, without prefix: diffusers' name}"""
    modules = dict.fromkeys(name.removesuffix(".weight").removesuffix(".bias") for name in own)
    names = {}
    for module in modules:
        original = original_name(module.replace("scale_shift_table", "modulation") if "blocks." in module else module)
        original = "head.modulation" if module == "scale_shift_table" else original
        names |= {spelled: module for name in (original, module) for spelled in (name, name.replace(".", "_"))}
    return names


def _by_module(state: Mapping[str, Tensor], what: str) -> dict[str, dict[str, Tensor]]:
    """{module: {down, up, up bias, alpha, diff, diff_b: tensor}}. Raises UserError for names that are none of these."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if (part := MATRIX.fullmatch(name)) is not None:
            kind = ("down" if part[2] in DOWN else "up") + (" bias" if part[3] == "bias" else "")
        elif (part := OTHER.fullmatch(name)) is not None:
            kind = part[2]
        else:
            raise UserError(f"{what}: holds '{name}', which cannot be folded in; expected a LoRA's matrices, alpha, diff, diff_b")
        found.setdefault(PREFIX.sub("", part[1], count=1), {})[kind] = tensor
    return found


def _changes(module: str, parts: Mapping[str, Tensor], scale: Scale, what: str) -> dict[str, Change]:
    """{weight, bias: what is added}"""
    changes: dict[str, Change] = {}
    if ("down" in parts) != ("up" in parts):
        raise UserError(f"{what}: has one of {module}'s two matrices only; is it damaged?")
    if "down" in parts:
        down, up = (parts[half].flatten(1) for half in ("down", "up"))
        if up.shape[1] != len(down):
            raise UserError(f"{what}: {module}'s matrices have ranks {len(down)} and {up.shape[1]}; is it damaged?")
        factor = float(parts["alpha"]) / len(down) if "alpha" in parts else scale(len(down))
        changes["weight"] = Change((len(up), down.shape[1]), lambda: product(up, down)).times(factor)
        if "up bias" in parts:
            changes["bias"] = _as_it_is(parts["up bias"]).times(factor)
    for kind, name in (("diff", "weight"), ("diff_b", "bias")):
        if kind in parts:
            changes[name] = _as_it_is(parts[kind]).plus(changes.get(name))
    return changes


def _as_it_is(difference: Tensor) -> Change:
    return Change(tuple(difference.shape), difference.double)
