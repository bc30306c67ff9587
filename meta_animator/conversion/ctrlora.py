"""Checkpoints of CtrLoRA and of the released Meta-Animator, which share a layout, in and out.

A whole checkpoint holds `control_model.<ldm name>` (the shared ControlNet), `control_model.loras_dict.<task>.<k>.{down,up}
.weight` with k counting the nn.Linear layers in module order, and once more the LoRA that was active last, as
`control_model.<linear>.lora_layer.{down,up}.weight`. A base file holds the shared ControlNet, and may hold such a `lora_layer`
besides; a LoRA file holds one `lora_layer` per linear layer with the zero convolutions and transformer norms that were tuned
along with it.

Their conventions: conditions reach the VAE in [0, 1], its posterior is sampled, LoRAs count with factor 1.
Layout read from github.com/xyfJASON/ctrlora (cldm/cldm_ctrlora_{pretrain,finetune,inference}.py, Apache-2.0).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.checkpoints.files import versions
from meta_animator.data.conditions import CONDITIONS
from meta_animator.errors import UserError
from meta_animator.models.backbones.ldm import CONTROL, in_module_order, reversed_names, unet_names
from meta_animator.models.control import MetaControlNet
from meta_animator.weights import check_names

CONVENTIONS = {"condition_range": "unit", "condition_posterior": "sample"}
TASK_NAMES = {"DWpose": "dwpose", "pose_HaMeR": "pose_hamer", "sapiens_seg": "seg"}  # Meta-Animator's names for ours
HALVES = {"lora_A": "down", "lora_B": "up"}
TUNED = ("zero_convs", "middle_block_out", "norm")  # what a LoRA file holds beside its LoRA


class ControlNames:
    """Our names of a Meta ControlNet's weights and linear layers, and theirs, without `control_model.`."""

    def __init__(self, network: MetaControlNet):
        layers = network.net.config.layers_per_block
        self.weights = unet_names(network.base_state(), layers)
        self.linears = unet_names(network.bank.layers, layers)
        self.order = in_module_order(self.linears.values())

    def tuned(self) -> list[str]:
        """Their names of the weights that a LoRA file brings along."""
        return [name for name in self.weights.values() if any(part in name for part in TUNED)]


def from_ctrlora(
    state: Mapping[str, Tensor],
    names: ControlNames,
    what: str,
    tasks: Mapping[str, str] | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Our weights, `control.<name>` and `lora.<task>.<name>`, of a checkpoint in their layout.

    tasks   {their task: ours} of those to take; by default every one whose name is known, and {} for a base file, which has
            none. A LoRA file holds one task without a name: give one, whatever it is called there
    base    for a LoRA file: our `control.` weights of the base file that it was trained on
    Raises UserError where a weight is missing, unknown, or ambiguous.
    """
    state = {name.removeprefix(CONTROL): tensor for name, tensor in _control_part(state, what).items()}
    banks, aliases, shared = _sort(state)
    whole = shared.keys() >= set(names.weights.values())
    if banks and tasks == {}:
        raise UserError(f"{what}: is a whole checkpoint with LoRAs; expected the base file (import it with import-control)")
    if banks:
        _check_aliases(aliases, banks, names, what)
        chosen = _choose(list(banks), tasks, what)
        loras = {ours: _in_order(banks[theirs], names, f"{what}: LoRA '{theirs}'") for theirs, ours in chosen.items()}
    elif aliases and whole and not tasks:  # as the published base file: extracted while one task was active
        print(f"note: {what}: left aside the one LoRA in it, which has no name; name it with --tasks to take it")
        loras = {}
    elif aliases:
        if len(tasks or {}) != 1:
            raise UserError(f"{what}: holds one LoRA without a name; say which one task it is, such as --tasks dwpose")
        loras = {next(iter(tasks.values())): aliases}
    elif tasks:
        raise UserError(f"{what}: is a base file without a LoRA; leave --tasks out")
    else:
        loras = {}
    taken = {f"control.{n}": shared[theirs] for n, theirs in names.weights.items() if theirs in shared}
    if not whole:
        if base is None:
            check_names(names.weights.values(), shared, f"{what} (a LoRA file needs its base file, --base-control)")
        check_names(names.tuned(), shared, what)
        taken = {**base, **taken}
    elif unknown := sorted(shared.keys() - set(names.weights.values())):
        raise UserError(f"{what}: {len(unknown)} weights are unknown to a Meta ControlNet, the first is {CONTROL}{unknown[0]}")
    for task, lora in loras.items():
        taken |= _our_lora(task, lora, names, f"{what}: LoRA '{task}'")
    return taken


def to_ctrlora(weights: Mapping[str, Tensor], names: ControlNames, tasks: Sequence[str]) -> dict[str, Tensor]:
    """A whole checkpoint in their layout from ours; the last task is the one in `lora_layer` keys."""
    state = {f"{CONTROL}{theirs}": weights[f"control.{ours}"] for ours, theirs in names.weights.items()}
    back = reversed_names(names.linears)
    for task in tasks:
        for k, theirs in enumerate(names.order):
            for half, their_half in HALVES.items():
                tensor = weights[f"lora.{task}.{back[theirs]}.{half}.weight"]
                state[f"{CONTROL}loras_dict.{task}.{k}.{their_half}.weight"] = tensor
                state[f"{CONTROL}{theirs}.lora_layer.{their_half}.weight"] = tensor
    return state


def to_base_file(weights: Mapping[str, Tensor], names: ControlNames) -> dict[str, Tensor]:
    """The shared ControlNet alone."""
    return {f"{CONTROL}{theirs}": weights[f"control.{ours}"] for ours, theirs in names.weights.items()}


def to_lora_file(weights: Mapping[str, Tensor], names: ControlNames, task: str) -> dict[str, Tensor]:
    """One task's LoRA with the zero convolutions and norms, as ComfyUI's CtrLoRA node reads it."""
    whole = to_ctrlora(weights, names, [task])
    kept = {f"{CONTROL}{name}" for name in names.tuned()}
    return {name: tensor for name, tensor in whole.items() if name in kept or ".lora_layer." in name}


def _control_part(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The weights of the control model; a base file may come without the prefix."""
    found = {name: tensor for name, tensor in state.items() if name.startswith(CONTROL)}
    if not found and "zero_convs.0.0.weight" in state:
        return dict(state)
    if not found:
        raise UserError(f"{what}: no weight is named {CONTROL}...; expected a checkpoint of CtrLoRA or Meta-Animator")
    if any(".input_hint_block." in name for name in found):
        raise UserError(f"{what}: is a plain ControlNet with a hint block; a Meta ControlNet has none")
    return found


def _sort(state: Mapping[str, Tensor]) -> tuple[dict[str, dict], dict[str, Tensor], dict[str, Tensor]]:
    """({task: {"<k>.down": ...}}, {"<linear>.down": ...}, the shared weights)."""
    banks: dict[str, dict[str, Tensor]] = {}
    aliases, shared = {}, {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"loras_dict\.([^.]+)\.(\d+\.(?:down|up))\.weight", name):
            banks.setdefault(match[1], {})[match[2]] = tensor
        elif match := re.fullmatch(r"(.+)\.lora_layer\.(down|up)\.weight", name):
            aliases[f"{match[1]}.{match[2]}"] = tensor
        else:
            shared[name] = tensor
    return banks, aliases, shared


def _in_order(bank: Mapping[str, Tensor], names: ControlNames, what: str) -> dict[str, Tensor]:
    """{"<linear>.down": ...} of a numbered LoRA."""
    expected = [f"{k}.{half}" for k in range(len(names.order)) for half in HALVES.values()]
    check_names(expected, bank, what)
    return {f"{names.order[int(key.split('.')[0])]}.{key.split('.')[1]}": tensor for key, tensor in bank.items()}


def _check_aliases(aliases: Mapping[str, Tensor], banks: Mapping[str, dict], names: ControlNames, what: str) -> None:
    """The `lora_layer` keys of a whole checkpoint repeat one of its LoRAs; they must be the whole of it."""
    for theirs, bank in banks.items():
        numbered = _in_order(bank, names, f"{what}: LoRA '{theirs}'")
        if not aliases or (aliases.keys() == numbered.keys() and all(torch.equal(aliases[k], numbered[k]) for k in aliases)):
            return
    raise UserError(f"{what}: its lora_layer weights are not those of any of its LoRAs ({', '.join(banks)}); is it damaged?")


def _choose(have: Sequence[str], wanted: Mapping[str, str] | None, what: str) -> dict[str, str]:
    if wanted:
        if missing := [task for task in wanted if task not in have]:
            raise UserError(f"{what}: has no LoRA '{missing[0]}'; it has: {', '.join(have)}")
        return dict(wanted)
    known = {task: TASK_NAMES.get(task, task) for task in have if TASK_NAMES.get(task, task) in CONDITIONS}
    if len(known) < len(have):
        strange = [task for task in have if task not in known]
        raise UserError(
            f"{what}: its tasks {', '.join(strange)} are none of ours; choose with --tasks THEIRS=OURS ..., ours are "
            f"{', '.join(CONDITIONS)}"
        )
    return known


def _our_lora(task: str, lora: Mapping[str, Tensor], names: ControlNames, what: str) -> dict[str, Tensor]:
    wanted = {f"{theirs}.{down}": (ours, half) for ours, theirs in names.linears.items() for half, down in HALVES.items()}
    check_names(wanted, lora, what)
    return {f"lora.{task}.{ours}.{half}.weight": lora[key] for key, (ours, half) in wanted.items()}


def lora_rank(weights: Mapping[str, Tensor]) -> int:
    """The rank that all LoRAs share, 0 without any. Raises UserError where they differ or one is no matrix."""
    downs = {name: tensor for name, tensor in weights.items() if name.endswith(".lora_A.weight")}
    if flat := [name for name, tensor in downs.items() if tensor.ndim != 2 or not tensor.shape[0]]:
        raise UserError(f"{flat[0]} has shape {tuple(downs[flat[0]].shape)}; expected (rank, channels)")
    ranks = {tensor.shape[0] for tensor in downs.values()}
    if len(ranks) > 1:
        raise UserError(f"LoRAs of different ranks ({', '.join(map(str, sorted(ranks)))}); convert them one by one")
    return ranks.pop() if ranks else 0


def converted_metadata(weights: Mapping[str, Tensor], fingerprint: str, source: Path, step: int = 0) -> dict[str, Any]:
    """The metadata of a converted checkpoint, with their conventions."""
    tasks = list(dict.fromkeys(name.split(".")[1] for name in weights if name.startswith("lora.")))
    return {
        "step": step, "stage": "control", "base": fingerprint, "tasks": tasks, "lora_rank": lora_rank(weights),
        "beta_schedule": "", "identifiers": {}, "prompt": "", "source": source.name, "versions": versions(), **CONVENTIONS,
    }  # fmt: skip
