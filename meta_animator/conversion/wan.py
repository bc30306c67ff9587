"""Extraction for Wan: VACE's control branch and LoRAs on it under diffusers' names and the original ones, and a whole pipeline.

<output>/<task>/pytorch_lora_weights.safetensors   for `load_lora_weights` of diffusers' WanVACEPipeline
<output>/<task>/comfyui_lora.safetensors           the same under the original names, as ComfyUI and most programs have them
<output>/pipeline/                                 with `extract.merge`: what WanVACEPipeline.from_pretrained takes
"""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import WanVACETransformer3DModel
from torch import Tensor

from meta_animator.checkpoints.extracted import METADATA
from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.metadata import check_metadata
from meta_animator.checkpoints.origin import check_origin
from meta_animator.conversion.families import Facts, Writer
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.models.backbones import backbone_without_weights, load_backbone
from meta_animator.models.backbones.parts import download
from meta_animator.models.backbones.wan import Wan
from meta_animator.models.backbones.wan_names import original_lora
from meta_animator.models.lora import shared_state
from meta_animator.models.person import added, fold_person
from meta_animator.models.vace import VaceControl
from meta_animator.settings import ModelConfig
from meta_animator.weights import save_tensors, under

PIPELINE = "pipeline"
DIFFUSERS_LORA = "pytorch_lora_weights.safetensors"
ORIGINAL_LORA = "comfyui_lora.safetensors"
KEPT = ("scheduler", "text_encoder", "tokenizer", "vae")  # parts of the base that a pipeline has as they are


def bare_network(model: ModelConfig, tasks: list[str], rank: int) -> VaceControl:
    return _bare(model).make_control(tasks, rank)


def _bare(model: ModelConfig) -> Wan:
    here = model.architecture or Path(model.base).exists()
    return backbone_without_weights(model if here else dataclasses.replace(model, architecture=str(download(model.base))))


def write_config(network: VaceControl, model: ModelConfig, folder: Path) -> None:
    """Of the transformer that the branch belongs to."""
    write_json(folder / "config.json", vace_config(_bare(model)))


def vace_config(base: Wan) -> dict[str, Any]:
    """config.json of a WanVACETransformer3DModel: the base's transformer with its branch, or the one that it is given here."""
    config = {name: value for name, value in base.transformer.config.items() if not name.startswith("_")}
    branch = {"vace_layers": base.layers, "vace_in_channels": base.control_channels}
    return {"_class_name": WanVACETransformer3DModel.__name__, **config, **branch}


def write_more(lora: Mapping[str, Tensor], folder: Path) -> None:
    save_tensors({f"transformer.{n}": w for n, w in lora.items()}, folder / DIFFUSERS_LORA, {"format": "pt"})
    save_tensors(original_lora(lora), folder / ORIGINAL_LORA, {"format": "pt"})


def merged(
    network: VaceControl, model: ModelConfig, control: Mapping[str, Tensor], lora: Mapping[str, Tensor],
    person: Mapping[str, Tensor], metadata: Mapping[str, Any], facts: Facts,
) -> dict[str, Writer]:  # fmt: skip
    """A whole pipeline: the base's parts, and its transformer with the branch that has the LoRA folded in, in float32, with the
    person's LoRA, and where `model.motion_from` names one with its motion's.

    Raises UserError where the base's weights are not here, or are not those that the checkpoint was trained on.
    """
    folder, base = base_folder(model), load_backbone(model)
    check_origin(
        metadata["base"], base.fingerprint(), base.named_weights,
        lambda theirs, own: f"extract.checkpoint: was trained on base {theirs}, {model.base} is base {own}",
    )  # fmt: skip
    if person:
        fold_person(base, person, "extract.checkpoint")
    if (there := metadata.get("base_loras", {})) != (own := dict(base.base_loras)):
        print(f"note: extract.checkpoint was trained with model.base_loras {there or 'none'}; the pipeline has {own or 'none'}")
    branch = folded(control, lora)
    transformer = whole_transformer(base, branch, _motion(model, base) if model.motion_from else {})

    def write(output: Path) -> None:
        transformer.save_pretrained(output / "transformer")
        _write_parts(folder, model, output)
        write_json(output / METADATA, facts(branch))

    return {PIPELINE: write}


def base_folder(model: ModelConfig) -> Path:
    """Raises UserError where it is not the folder of a whole pipeline."""
    folder = Path(model.base) if Path(model.base).exists() else download(model.base)
    if missing := [name for name in ("model_index.json", *KEPT) if not (folder / name).exists()]:
        raise UserError(f"base model {folder}: no {missing[0]}; a pipeline is made of a whole model in diffusers format")
    return folder


def _motion(model: ModelConfig, base: Wan) -> dict[str, Tensor]:
    """A stage-1 run's LoRA on the base's self-attention. Raises UserError where it has none, or was trained on another base."""
    what = f"model.motion_from: {model.motion_from}"
    metadata, weights = read_weights(model.motion_from)
    check_metadata(metadata, what)
    motion = under(weights, "motion.")
    if not motion or not {name.rsplit(".lora_", 1)[0] + ".weight" for name in motion} <= set(base.transformer.state_dict()):
        raise UserError(f"{what}: holds no LoRA on the base's self-attention; give a stage-1 run with model.motion_lora_rank")
    check_origin(
        metadata["base"], base.fingerprint(), base.named_weights,
        lambda theirs, own: f"{what}: was trained on base {theirs}, {model.base} is base {own}",
    )  # fmt: skip
    return motion


def folded(weights: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W + up down of every layer that the LoRA sits on, in W's precision."""
    changed = dict(weights)
    for down in (name for name in lora if name.endswith(".lora_A.weight")):
        module = down.removesuffix(".lora_A.weight")
        weight = changed[f"{module}.weight"]
        change = added(lora[down], lora[f"{module}.lora_B.weight"])
        changed[f"{module}.weight"] = (weight.double() + change).to(weight.dtype)
    return changed


def whole_transformer(base: Wan, branch: Mapping[str, Tensor], motion: Mapping[str, Tensor]) -> WanVACETransformer3DModel:
    """diffusers' own, of a base with a LoRA folded in and a branch's weights; what no LoRA changes it shares with both."""
    with torch.device("meta"):
        transformer = WanVACETransformer3DModel.from_config(vace_config(base))
    state = {name: weight.detach() for name, weight in shared_state(base.transformer).items()}
    transformer.load_state_dict(folded(state, motion) | {n: w.detach() for n, w in branch.items()}, strict=True, assign=True)
    return transformer


def _write_parts(base: Path, model: ModelConfig, output: Path) -> None:
    """model_index.json and all but the transformer: linked, where the disk can, else copied."""
    index = read_json(base / "model_index.json")
    parts = {name: index[name] for name in KEPT if name in index}
    parts["transformer"] = ["diffusers", WanVACETransformer3DModel.__name__]
    about = {"_class_name": "WanVACEPipeline", "_diffusers_version": index.get("_diffusers_version", "")}
    write_json(output / "model_index.json", about | parts)
    for part in KEPT:
        source = Path(model.vae) if part == "vae" and model.vae else base / part
        shutil.copytree(source, output / part, copy_function=link_or_copy)
    if model.flow_shift:
        _set_shift(output / "scheduler" / "scheduler_config.json", model.flow_shift)


def _set_shift(file: Path, shift: float) -> None:
    config = read_json(file)
    key = "shift" if "shift" in config else "flow_shift"
    file.unlink()  # it may be a link to the base's own
    write_json(file, config | {key: shift})


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, target)
