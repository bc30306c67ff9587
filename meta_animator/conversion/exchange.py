"""Whole checkpoints in and out of other projects' files: what scripts/convert.py does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from meta_animator.checkpoints.card_facts import origin_of
from meta_animator.checkpoints.card_strip import strip_of
from meta_animator.checkpoints.cards import write_card
from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.conversion import wan
from meta_animator.conversion.adapters import write_adapter
from meta_animator.conversion.cards import motion_card
from meta_animator.conversion.controlnet import bare_network
from meta_animator.conversion.ctrlora import (
    CONVENTIONS,
    ControlNames,
    converted_metadata,
    from_ctrlora,
    to_base_file,
    to_ctrlora,
    to_lora_file,
)
from meta_animator.conversion.families import check_family
from meta_animator.conversion.lora import check_fit
from meta_animator.conversion.motion import ANIMATEDIFF_BETAS, to_animatediff
from meta_animator.data.conditions import CONDITIONS
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.json_files import read_json, write_json
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.ldm import TEXT, UNET, VAE, to_shapes, unet_names, vae_names
from meta_animator.models.control import MetaControlNet
from meta_animator.models.motion import new_motion_adapter
from meta_animator.settings import ModelConfig
from meta_animator.torch_files import TORCH_SUFFIXES, read_state
from meta_animator.weights import ROUNDING, copy_strict, save_tensors, under


def import_ctrlora(
    file: Path, output: Path, model: ModelConfig, tasks: Mapping[str, str], base_control: Path | None = None
) -> dict[str, Any]:
    """Turn a file of CtrLoRA's or the released Meta-Animator's into a checkpoint that `model.control_from` can name; returns
    its metadata.

    model          the base model that the checkpoint will be used with
    tasks          {their task: ours}, one of any name for a LoRA file; empty: all whose names are known
    base_control   for a LoRA file: the base file, or a checkpoint made of one
    Raises UserError where a weight is missing, unknown, or of another shape; then nothing is written. A base UNet in the file
    that is not the base model's is said, no error.
    """
    check_tasks(tasks)
    backbone = load_backbone(model)
    network = backbone.make_control([], 1)
    names, base, state = ControlNames(network), None, read_state(file)
    if base_control is not None:
        base = _control_weights(base_control, names)
    weights = from_ctrlora(state, names, str(file), tasks or None, base)
    metadata = converted_metadata(weights, backbone.fingerprint(), file)
    check_shapes(network, weights, metadata, f"{file}, for {model.base}")
    if differing := other_unet(state, backbone.unet):
        print(
            f"note: {file} carries its own base UNet, which is not that of {model.base} ({differing} is the first to differ); "
            "its LoRAs fit the base that they were trained on, --base names it"
        )
    save_tensors({n: w.float() for n, w in weights.items()}, output / "model.safetensors")
    write_json(output / "manifest.json", metadata)
    return metadata


def check_shapes(network: MetaControlNet, weights: Mapping[str, Tensor], metadata: Mapping[str, Any], what: str) -> None:
    """Of the shared weights and every LoRA. `network` goes to the meta device."""
    network.to("meta")
    check_fit(network.base_state(), under(weights, "control."), what)
    for task in metadata["tasks"]:
        for layer in network.bank.layers.values():
            layer.add(task, metadata["lora_rank"])
        check_fit(network.bank.state(task), under(weights, f"lora.{task}."), f"{what}: LoRA '{task}'")


def other_unet(state: Mapping[str, Tensor], unet: nn.Module) -> str:
    """Their name of the first weight of `unet` that a whole checkpoint has otherwise, up to half precision's rounding; "" where
    all are the same or it carries no UNet."""
    if not any(name.startswith(UNET) for name in state):
        return ""
    names = unet_names(unet.state_dict(), unet.config.layers_per_block)
    own = {UNET + names[n]: w for n, w in unet.state_dict().items()}
    theirs = to_shapes({name: state[name] for name in own if name in state}, own)
    for name, weight in own.items():
        other = theirs.get(name)
        if other is None or other.shape != weight.shape or not torch.allclose(other.float(), weight, rtol=ROUNDING, atol=1e-6):
            return name
    return ""


def _control_weights(path: Path, names: ControlNames) -> dict[str, Tensor]:
    """Our `control.` weights of a base file, or of a checkpoint of ours."""
    if path.is_file():
        return {n: w for n, w in from_ctrlora(read_state(path), names, str(path), {}).items() if n.startswith("control.")}
    return {n: w for n, w in read_weights(path)[1].items() if n.startswith("control.")}


def export_ctrlora(run: Path, file: Path, architecture: Path, kind: str = "whole", task: str = "") -> list[str]:
    """Write a checkpoint of ours in CtrLoRA's layout, and return what was noted.

    architecture   a base model's folder, or one with its config files
    kind           "whole" checkpoint, "base" file, or "lora": one task with its zero convolutions and norms
    Raises UserError where the checkpoint is damaged or of another architecture.
    """
    metadata, weights = read_weights(run)
    check_metadata(metadata, str(run))
    if not any(n.startswith("control.") for n in weights):
        raise UserError(f"{run}: holds no Meta ControlNet; give a run of stage 0 or 2")
    check_parts(metadata, weights, str(run))
    check_family("sd", weights, str(run))
    have = metadata["tasks"]
    if kind == "lora" and task not in have:
        raise UserError(f"--task: expected one of {', '.join(have) or 'none, as it has no LoRA'}, got '{task}'")
    what = f"{run}, for the architecture in {architecture} (--base, --architecture)"
    network = bare_network(ModelConfig(base=str(architecture)), have, metadata["lora_rank"] or 1)
    check_fit(network.base_state(), under(weights, "control."), what)
    for name in have:
        check_fit(network.bank.state(name), under(weights, f"lora.{name}."), f"{what}: LoRA '{name}'")
    names = ControlNames(network)
    state = {
        "whole": lambda: to_ctrlora(weights, names, have), "base": lambda: to_base_file(weights, names),
        "lora": lambda: to_lora_file(weights, names, task),
    }[kind]()  # fmt: skip
    write_state(state, file)
    return _control_notes(metadata, kind)


def _control_notes(metadata: Mapping[str, Any], kind: str) -> list[str]:
    notes, theirs = [], CONVENTIONS["condition_range"]
    if metadata.get("condition_range", "signed") != theirs:
        notes.append(
            f"note: these weights were trained on condition images in [-1, 1]; CtrLoRA feeds its VAE [0, 1]. Feed it "
            f"2 x - 1 there, or train with model.condition_range={theirs}"
        )
    if metadata.get("person_lora_rank"):
        notes.append(
            "note: this run has a person's LoRA on the base, for which that layout has no place; extract_LoRA_weights.sh writes "
            "it into a folder `person`, to be loaded into the base there"
        )
    if kind == "lora" and metadata.get("trained_tensors", {}).get("control"):
        notes.append(
            "note: this run trained the shared weights too: the LoRA belongs with the base file of the same run (--part base), "
            "not with the one that it started from"
        )
    return notes


def export_motion(run: Path, output: Path, architecture: Path) -> list[str]:
    """Write a stage-1 run's motion module: as a file of AnimateDiff's, or, without a suffix, a diffusers MotionAdapter; of a Wan
    run its LoRA, as a folder. A folder gets a model card. Returns what was noted.

    architecture   a base model's folder, or one with its config files
    """
    if output.is_file() and not output.suffix:
        raise UserError(f"{output}: is a file; give a name that ends in {', '.join(TORCH_SUFFIXES)} or .safetensors, or a folder")
    metadata, weights = read_weights(run)
    check_metadata(metadata, str(run))
    motion = under(weights, "motion.")
    if not motion:
        raise UserError(f"{run}: holds no motion module; give a stage-1 run")
    origin = origin_of(run, metadata, str(architecture) if any(architecture.glob("*/*.safetensors")) else "")
    if any(".lora_A." in name for name in motion):
        _export_motion_lora(metadata, motion, output)
        write_card(output, motion_card(origin, "wan", output.name), strip_of(origin))
        return []
    read_json(architecture / "unet" / "config.json")
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(architecture / "unet"))
    adapter = new_motion_adapter(unet, metadata.get("motion_max_seq_length", 32), any("mid_block." in n for n in motion))
    what = f"{run}, for the architecture in {architecture} (--base, --architecture)"
    copy_strict(dict(adapter.named_parameters()), motion, what)
    if output.suffix:
        write_state(to_animatediff(adapter), output)
    else:
        adapter.save_pretrained(output)
        write_card(output, motion_card(origin, "sd", output.name), strip_of(origin))
    return _motion_notes(metadata.get("beta_schedule", ""), architecture / "scheduler" / "scheduler_config.json")


def _export_motion_lora(metadata: Mapping[str, Any], lora: Mapping[str, Tensor], output: Path) -> None:
    """What stage 1 on Wan learns of motion: a LoRA on the base's self-attention."""
    if output.suffix:
        raise UserError(f"{output}: the motion of a Wan run is a LoRA in several files; give a folder")
    facts = {name: metadata[name] for name in ("base", "base_loras", "stage", "step", "fps") if name in metadata}
    write_adapter(output, lora, facts)
    wan.write_more(lora, output)


def _motion_notes(schedule: str, scheduler: Path) -> list[str]:
    """`schedule` is '' for the base's own, which `scheduler` names where it is there."""
    whose = "" if schedule else ", its base's own"
    if not schedule and scheduler.is_file():
        schedule = read_json(scheduler).get("beta_schedule", "")
    if schedule == ANIMATEDIFF_BETAS:
        return []
    return [
        f"note: this module was trained with beta_schedule '{schedule or 'unknown'}'{whose}; AnimateDiff's tools take "
        f"'{ANIMATEDIFF_BETAS}' unless told otherwise"
    ]


def write_state(state: Mapping[str, Tensor], file: Path) -> None:
    """As safetensors or, for .ckpt, .pt, .pth and .bin, as PyTorch writes it."""
    if file.suffix == ".safetensors":
        save_tensors({n: w.clone() for n, w in state.items()}, file)  # aliases may not share storage there
        return
    if file.suffix not in TORCH_SUFFIXES:
        raise UserError(f"{file}: expected a name that ends in .safetensors, {', '.join(TORCH_SUFFIXES)}")
    with whole_file(file) as part:
        torch.save({n: w.detach().cpu() for n, w in state.items()}, part)


def to_single_file(unet: nn.Module, vae: nn.Module, text_encoder: nn.Module) -> dict[str, Tensor]:
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
    if unknown := [ours for ours in tasks.values() if ours not in CONDITIONS]:
        raise UserError(f"--tasks: '{unknown[0]}' is no task of ours; they are {', '.join(CONDITIONS)}")


def parse_tasks(given: list[str]) -> dict[str, str]:
    """["openpose=dwpose", "canny", ...] to {their task: ours}; a name alone is theirs and ours. Raises UserError where one is
    given twice, on either side."""
    pairs = [(theirs, ours if found else theirs) for theirs, found, ours in (t.partition("=") for t in given)]
    for side in zip(*pairs, strict=True):
        if twice := [name for name in side if side.count(name) > 1]:
            raise UserError(f"--tasks {' '.join(given)}: '{twice[0]}' is named twice; expected each task once, THEIRS=OURS")
    return dict(pairs)
