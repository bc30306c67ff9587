"""What tests of parity with other projects share: their answers (tests/fixtures/parity) and their weights."""

import importlib.util
import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open

from meta_animator.models.backbones.ldm import UNET, unet_names

FOLDER = Path(__file__).parents[1] / "fixtures" / "parity"
SCRIPT = Path(__file__).parents[2] / "scripts" / "dev" / "make_parity_fixtures.py"

_spec = importlib.util.spec_from_file_location("make_parity_fixtures", SCRIPT)
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)


def read(name: str):
    """(tensors, {their name: shape}, facts) of a fixture."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    return tensors, metadata.pop("weights"), metadata


def weights(layout: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Their state dict, float64. `lora_layer` keys and position tables repeat other values: see the tests."""
    return {name: maker.filled(name, shape) for name, shape in layout.items()}


def small_unet(**changes) -> UNet2DConditionModel:
    both = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
    config = {
        "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16,
        "attention_head_dim": 2, "down_block_types": both[0], "up_block_types": both[1], **changes,
    }  # fmt: skip
    return UNet2DConditionModel(**config).double().eval()


def fill_unet(unet: UNet2DConditionModel, state: dict[str, torch.Tensor]) -> None:
    own = unet.state_dict()
    names = unet_names(own, unet.config.layers_per_block)
    unet.load_state_dict({name: state[UNET + names[name]] for name in own})
