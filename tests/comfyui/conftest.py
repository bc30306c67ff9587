"""ComfyUI where COMFYUI_PATH says that it is, else small stand-ins for what the nodes touch of it."""

import importlib
import os
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel

from meta_animator.checkpoints.files import Checkpoint, save_checkpoint
from meta_animator.models.control import MetaControlNet
from tests import tiny
from tests.comfyui import stand_in

COMFYUI = os.environ.get("COMFYUI_PATH", "")
TASKS = ["dwpose", "depth"]
ABOUT = {
    "stage": "reference", "base": f"sha256:{'0' * 64}", "tasks": TASKS, "lora_rank": 4, "beta_schedule": "", "person": "anna",
    "prompt": "Person looks like {identifier}, {description}", "description": "a red coat",
    "identifiers": {"anna": "sks", "bert": "ohwx"},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def comfy():
    """`comfy` and `comfy_api` can be imported while these tests run."""
    if COMFYUI:
        sys.path.append(COMFYUI)
        importlib.import_module("utils.install_util")  # first: ComfyUI's `nodes` puts another `utils` before it
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        yield
        return
    modules = stand_in.comfy_modules() | stand_in.api_modules()
    sys.modules.update(modules)
    yield
    for name in (*modules, "meta_animator.comfyui.control"):
        sys.modules.pop(name, None)


def make_network(seed=0, tasks=TASKS, **changes):
    """A random Meta ControlNet, one level of Stable Diffusion 1.5's, so that a run without config is known by its widths."""
    torch.manual_seed(seed)
    shape = {
        "block_out_channels": (320,), "layers_per_block": 2, "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",), "cross_attention_dim": 768, "attention_head_dim": 8, "norm_num_groups": 32,
        "sample_size": 8,
    }  # fmt: skip
    unet = UNet2DConditionModel(**(shape | changes))
    return tiny.randomise_zeros(MetaControlNet.from_unet(unet, tasks, 4), 0.02).eval().requires_grad_(False), unet


def save_run(folder, network, **about):
    weights = {f"control.{n}": w for n, w in network.base_state().items()}
    for task in network.bank.tasks:
        weights |= {f"lora.{task}.{n}": w for n, w in network.bank.state(task).items()}
    save_checkpoint(folder, Checkpoint(step=7, metadata=ABOUT | about, model=weights), keep=1)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """(the network of a run, {kind of folder: its path}); `loras` is what extraction wrote, `merged` with dwpose folded in."""
    folder = tmp_path_factory.mktemp("comfyui")
    network, unet = make_network()
    save_run(folder / "run", network)
    unet.save_config(folder / "base" / "unet")
    for name, merge in (("loras", ""), ("merged", "dwpose")):
        asked = {"extract__checkpoint": folder / "run", "extract__merge": merge, "model__architecture": folder / "base"}
        tiny.extract(tiny.make_config(folder / name, folder / "base", folder, "extract", **asked))
    return network, folder
