"""Extraction for Stable Diffusion: the Meta ControlNet is a ControlNet of diffusers without hint block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor

from meta_animator.checkpoints.extracted import PREFIX
from meta_animator.conversion.adapters import CONTROLNET, adapter_config, write_control
from meta_animator.conversion.families import Facts, Writer
from meta_animator.json_files import read_json
from meta_animator.models.control import MetaControlNet, NoHint
from meta_animator.settings import ModelConfig


def bare_network(model: ModelConfig, tasks: list[str], rank: int) -> MetaControlNet:
    folder = Path(model.architecture or model.base) / "unet"
    read_json(folder / "config.json")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    return MetaControlNet.from_unet(unet, tasks, rank)


def write_config(network: MetaControlNet, model: ModelConfig, folder: Path) -> None:
    network.net.save_config(folder)


def write_more(lora: Mapping[str, Tensor], folder: Path) -> None:
    """Nothing: no other program knows LoRAs on a ControlNet."""


def merged(
    network: MetaControlNet, model: ModelConfig, control: Mapping[str, Tensor], lora: Mapping[str, Tensor],
    person: Mapping[str, Tensor], metadata: Mapping[str, Any], facts: Facts,
) -> dict[str, Writer]:  # fmt: skip
    """The ControlNet alone, which PEFT folds the LoRA into: W + up down."""
    with torch.device("meta"):
        plain = ControlNetModel.from_config(network.net.config)
    plain.controlnet_cond_embedding = NoHint()
    plain.load_state_dict(dict(control), strict=True, assign=True)
    adapted = get_peft_model(plain, adapter_config(lora), autocast_adapter_dtype=False)
    set_peft_model_state_dict(adapted, {PREFIX + n: w for n, w in lora.items()})
    folded = {n: p.detach() for n, p in adapted.merge_and_unload().named_parameters()}

    def write(folder: Path) -> None:
        write_config(network, model, folder)
        write_control(folder, folded, facts(folded))

    return {CONTROLNET: write}
