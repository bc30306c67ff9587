"""Whole checkpoints in and out of other projects' files: what scripts/convert.py does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from meta_animator.conversion.ctrlora import (
    CONVENTIONS,
    ControlNames,
    from_ctrlora,
    manifest_of,
    to_base_file,
    to_ctrlora,
    to_lora_file,
)
from meta_animator.conversion.motion import to_animatediff
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.ldm import TEXT, UNET, VAE, unet_names, vae_names
from meta_animator.models.control import MetaControlNet
from meta_animator.models.motion import new_motion_adapter
from meta_animator.settings import TASKS, ModelConfig
from meta_animator.torch_files import TORCH_SUFFIXES, read_state
from meta_animator.training.checkpoint import read_weights
from meta_animator.weights import copy_strict, read_json, save_tensors, write_json


def import_ctrlora(
    file: Path, output: Path, model: ModelConfig, tasks: Mapping[str, str], base_control: Path | None = None
) -> dict[str, Any]:
    """Turn a file of CtrLoRA's or the released Meta-Animator's into a checkpoint that `model.control_from` can name; returns
    its manifest.

    model          the base model that the checkpoint will be used with
    tasks          {their task: ours}; {"": ours} for a LoRA file; empty: all whose names are known
    base_control   for a LoRA file: the base file, or a checkpoint made of one
    """
    check_tasks(tasks)
    backbone = load_backbone(model)
    network = backbone.make_control([], 1)
    names, base = ControlNames(network), None
    if base_control is not None:
        base = _control_weights(base_control, names)
    weights = from_ctrlora(read_state(file), names, str(file), tasks, base)
    for name, tensor in network.base_state().items():
        if weights[f"control.{name}"].shape != tensor.shape:
            theirs, own = tuple(weights[f"control.{name}"].shape), tuple(tensor.shape)
            raise UserError(f"{file}: {name} has shape {theirs}, a control network for {model.base} has {own}")
    manifest = manifest_of(weights, backbone.fingerprint(), file)
    save_tensors({n: w.float() for n, w in weights.items()}, output / "model.safetensors")
    write_json(output / "manifest.json", manifest)
    return manifest


def _control_weights(path: Path, names: ControlNames) -> dict[str, torch.Tensor]:
    """Our `control.` weights of a base file, or of a checkpoint of ours."""
    if path.is_file():
        return {n: w for n, w in from_ctrlora(read_state(path), names, str(path), {}).items() if n.startswith("control.")}
    return {n: w for n, w in read_weights(path)[1].items() if n.startswith("control.")}


def export_ctrlora(run: Path, file: Path, architecture: Path, part: str = "whole", task: str = "") -> list[str]:
    """Write a checkpoint of ours in CtrLoRA's layout, and return what was noted.

    architecture   a base model's folder, or one with its config files
    part           "whole" checkpoint, "base" file, or "lora": one task with its zero convolutions and norms
    """
    manifest, weights = read_weights(run)
    have = [t for t in manifest.get("tasks", []) if any(n.startswith(f"lora.{t}.") for n in weights)]
    if not any(n.startswith("control.") for n in weights):
        raise UserError(f"{run}: holds no Meta ControlNet; give a run of stage 0 or 2")
    if part == "lora" and task not in have:
        raise UserError(f"--task: expected one of {', '.join(have)}, got '{task}'")
    names = control_names(architecture)
    state = {
        "whole": lambda: to_ctrlora(weights, names, have), "base": lambda: to_base_file(weights, names),
        "lora": lambda: to_lora_file(weights, names, task),
    }[part]()  # fmt: skip
    write_state(state, file)
    theirs = CONVENTIONS["condition_range"]
    if manifest.get("condition_range", "signed") != theirs:
        return [
            f"note: these weights were trained on condition images in [-1, 1]; CtrLoRA feeds its VAE [0, 1]. Feed it "
            f"2 x - 1 there, or train with model.condition_range={theirs}"
        ]
    return []


def export_motion(run: Path, output: Path, architecture: Path) -> None:
    """Write a stage-1 run's motion module: as a file of AnimateDiff's, or, without a suffix, a diffusers MotionAdapter."""
    manifest, weights = read_weights(run)
    motion = {n.removeprefix("motion."): w for n, w in weights.items() if n.startswith("motion.")}
    if not motion:
        raise UserError(f"{run}: holds no motion module; give a stage-1 run")
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(architecture / "unet"))
    adapter = new_motion_adapter(unet, manifest.get("motion_max_seq_length", 32), any("mid_block." in n for n in motion))
    copy_strict(dict(adapter.named_parameters()), motion, f"{run}, for {architecture}")
    if output.suffix:
        write_state(to_animatediff(adapter), output)
    else:
        adapter.save_pretrained(output)


def control_names(architecture: Path) -> ControlNames:
    """Of the Meta ControlNet of a base model, without its weights."""
    read_json(architecture / "unet" / "config.json")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(architecture / "unet"))
        return ControlNames(MetaControlNet.from_unet(unet, [], 1))


def write_state(state: Mapping[str, torch.Tensor], file: Path) -> None:
    """As safetensors or, for .ckpt, .pt, .pth and .bin, as PyTorch writes it."""
    if file.suffix == ".safetensors":
        save_tensors({n: w.clone() for n, w in state.items()}, file)  # aliases may not share storage there
        return
    if file.suffix not in TORCH_SUFFIXES:
        raise UserError(f"{file}: expected a name that ends in .safetensors, {', '.join(TORCH_SUFFIXES)}")
    with whole_file(file) as part:
        torch.save({n: w.detach().cpu() for n, w in state.items()}, part)


def to_single_file(unet: nn.Module, vae: nn.Module, text_encoder: nn.Module) -> dict[str, torch.Tensor]:
    """A base model's weights in the original Stable Diffusion 1.x layout."""
    names = unet_names(unet.state_dict(), unet.config.layers_per_block)
    state = {UNET + names[n]: w for n, w in unet.state_dict().items()}
    names = vae_names(vae.state_dict())
    for name, weight in vae.state_dict().items():
        convolved = ".attentions." in name and weight.ndim == 2
        state[VAE + names[name]] = weight[..., None, None] if convolved else weight
    text = {n.removeprefix("text_model."): w for n, w in text_encoder.state_dict().items()}
    return state | {f"{TEXT}text_model.{n}": w for n, w in text.items()}


def check_tasks(tasks: Mapping[str, str]) -> None:
    if unknown := [ours for ours in tasks.values() if ours not in TASKS]:
        raise UserError(f"--tasks: '{unknown[0]}' is no task of ours; they are {', '.join(TASKS)}")


def parse_tasks(given: list[str]) -> dict[str, str]:
    """["openpose=dwpose", ...] or ["dwpose"] to {their task: ours}."""
    return {theirs if found else "": ours if found else theirs for theirs, found, ours in (t.partition("=") for t in given)}
