"""LoRAs as files: out of a training checkpoint into one PEFT folder per task. checkpoints/extracted.py reads them for a run.

<output>/controlnet/{config.json, diffusion_pytorch_model.safetensors, metadata.json}   the shared weights, no hint block
<output>/<task>/{adapter_config.json, adapter_model.safetensors, metadata.json}         what `peft` alone can load
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor

from meta_animator.checkpoints.extracted import ADAPTER, ADAPTER_WEIGHTS, CONTROLNET_WEIGHTS, METADATA, PREFIX
from meta_animator.checkpoints.files import find_checkpoint, read_weights, versions
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint
from meta_animator.json_files import read_json, write_json
from meta_animator.models.control import MetaControlNet, NoHint
from meta_animator.settings import ExtractConfig, ModelConfig
from meta_animator.weights import check_names, save_tensors, under

CONTROLNET = "controlnet"


def extract(config: ExtractConfig, model: ModelConfig, output: Path) -> list[Path]:
    """Write `config.tasks` (all, where empty) of a checkpoint and their ControlNet below `output`; with `config.merge`, the
    ControlNet alone with that task's LoRA folded in.

    Returns the folders. All are written under temporary names before the first takes its place.
    Raises UserError where the checkpoint lacks a task or does not fit the base.
    """
    if not config.checkpoint:
        raise UserError("extract.checkpoint is empty; name a run of stage 0 or 2, or one of its checkpoints")
    where = find_checkpoint(config.checkpoint)
    metadata, weights = read_weights(where)
    check_metadata(metadata, str(where))
    merge = config.merge
    tasks = wanted_tasks([merge] if merge else config.tasks, metadata, weights, where)
    shared = under(weights, "control.")
    network = bare_network(Path(model.architecture or model.base), tasks, metadata["lora_rank"])
    check_fit(network.base_state(), shared, f"{where}, for base {model.base}")
    if merge:
        shared, tasks = merged(network, shared, under(weights, f"lora.{merge}.")), []
    facts = describe_checkpoint(metadata, shared) | ({"merged": merge} if merge else {})
    names = [CONTROLNET, *tasks]
    temporary = {name: _fresh(output / f".{name}.tmp") for name in names}
    try:
        _write_controlnet(temporary[CONTROLNET], network, shared, facts)
        for task in tasks:
            lora = under(weights, f"lora.{task}.")
            check_fit(network.bank.state(task), lora, f"{where}, LoRA '{task}'")
            _write_adapter(temporary[task], lora, facts | {"task": task})
        for name in names:
            shutil.rmtree(output / name, ignore_errors=True)
            os.replace(temporary[name], output / name)
    finally:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
    return [output / name for name in names]


def describe_checkpoint(metadata: Mapping[str, Any], shared: Mapping[str, Tensor]) -> dict[str, Any]:
    """What every extracted folder says of its origin: which base and which ControlNet it belongs to, and whose it is."""
    people = dict(metadata.get("identifiers", {}))
    person = metadata.get("person", "")
    return {
        "base": metadata["base"],
        "control": fingerprint(shared),
        "lora_rank": metadata["lora_rank"],
        "stage": metadata["stage"],
        "step": metadata["step"],
        "person": person,
        "identifier": people.get(person, ""),
        "identifiers": people,
        "prompt": metadata.get("prompt", ""),
        "description": metadata.get("description", ""),
        "condition_range": metadata.get("condition_range", "signed"),
        "versions": versions(),
    }


def wanted_tasks(wanted: list[str], metadata: Mapping[str, Any], weights: Iterable[str], where: Path) -> list[str]:
    """The tasks whose LoRAs are to be taken out: `wanted`, or all. Raises UserError where the checkpoint with weights of these
    names lacks one."""
    have = metadata["tasks"]
    if not have or not any(name.startswith("control.") for name in weights):
        raise UserError(f"{where}: holds no Meta ControlNet with LoRAs; give a stage-0 or stage-2 run")
    check_parts(metadata, weights, str(where))
    for task in wanted:
        if task not in have:
            raise UserError(f"extract.tasks, extract.merge: {where} has no LoRA '{task}'; it has: {', '.join(have)}")
    return list(dict.fromkeys(wanted)) or have


def bare_network(architecture: Path, tasks: list[str], rank: int) -> MetaControlNet:
    """The Meta ControlNet of a base model without its weights: on the meta device.

    architecture   the base model's folder, or one with its config files
    """
    folder = architecture / "unet"
    read_json(folder / "config.json")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    return MetaControlNet.from_unet(unet, tasks, rank)


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raises UserError unless every name and every shape of `state` is that of `own`, whose values do not count."""
    check_names(own, state, what)
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{what}: {name} has shape {tuple(tensor.shape)}, the base asks for {tuple(own[name].shape)}")


def _write_controlnet(folder: Path, network: MetaControlNet, shared: Mapping[str, Tensor], metadata: dict) -> None:
    network.net.save_config(folder)
    save_tensors(shared, folder / CONTROLNET_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, metadata)


def _write_adapter(folder: Path, lora: Mapping[str, Tensor], metadata: dict) -> None:
    config = adapter_config(lora, metadata["lora_rank"]).to_dict()
    write_json(folder / ADAPTER, {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()})
    save_tensors({PREFIX + n: w for n, w in lora.items()}, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    write_json(folder / METADATA, metadata)


def adapter_config(lora: Mapping[str, Tensor], rank: int) -> LoraConfig:
    """What PEFT needs to know of a LoRA of ours: which linear layers it sits on, and that it counts with factor 1."""
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in lora})
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, inference_mode=True)


def merged(network: MetaControlNet, shared: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The shared weights with a LoRA folded in by PEFT: W + up down. `network`, of which only the shape counts, is on the meta
    device."""
    with torch.device("meta"):
        plain = ControlNetModel.from_config(network.net.config)
    plain.controlnet_cond_embedding = NoHint()
    plain.load_state_dict(dict(shared), strict=True, assign=True)
    model = get_peft_model(plain, adapter_config(lora, network.bank.rank), autocast_adapter_dtype=False)
    set_peft_model_state_dict(model, {PREFIX + n: w for n, w in lora.items()})
    return {n: p.detach() for n, p in model.merge_and_unload().named_parameters()}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
