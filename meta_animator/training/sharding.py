"""Trained weights in parts: between steps every process keeps its part of them, of their momenta and averages (FSDP2).

Each repeated block is a group: gathered as the forward pass comes to it, its gradients shared out as soon as the backward pass
has left it, while others are computed. What lies between blocks is one more group.
The frozen base stays whole in every process: it needs no gradient, and parts of it (text encoder, VAE, face embedder)
run in some processes only, which a gathering of weights must not.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from meta_animator.errors import UserError
from meta_animator.models.compiling import REPEATED
from meta_animator.models.lora import LoRALinear
from meta_animator.settings import DataConfig, TrainConfig


def take_sharding_request(stage: str, train: TrainConfig, data: DataConfig) -> bool:
    """Whether accelerate's config file asks for FSDP2. The request is taken out of the environment: the engine shards by
    itself, on any device. Raises UserError for what does not go with it."""
    if os.environ.pop("ACCELERATE_USE_FSDP", "").lower() not in ("true", "1"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UserError(f"accelerate's fsdp_version is {version}; only 2 can be used, see configs/accelerate/fsdp2.yaml")
    if "WORLD_SIZE" not in os.environ:
        raise UserError("ACCELERATE_USE_FSDP is set, but nothing launched several processes; unset it")
    if stage.startswith("base_"):
        raise UserError(f"stage '{stage}' does not go with FSDP2; its networks are small")
    if train.mixed_precision == "fp16":
        raise UserError("train.mixed_precision: fp16 does not go with FSDP2; use bf16 or no")
    if train.optimizer != "adamw":
        raise UserError(f"train.optimizer: {train.optimizer} does not go with FSDP2, which shares momenta out; use adamw")
    if train.compile:
        raise UserError("train.compile: leave it empty; it does not go with FSDP2, which puts other weights into compiled blocks")
    if train.ema_device:
        raise UserError("train.ema_device: leave it empty; with FSDP2 averages are shared out as the weights are")
    if data.task_per_rank:
        raise UserError("data.task_per_rank: set it to false; with FSDP2 all processes train the same weights")
    return True


def shard(stage: nn.Module, device: torch.device) -> None:
    """Split what is trained over all processes, in place. `forward`, `preview` and `measure` gather it, and must be called by
    all of them; `param_groups` and the states hold DTensors from now on."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    frozen = {parameter for parameter in stage.parameters() if not parameter.requires_grad}
    for block in [module for module in stage.modules() if isinstance(module, REPEATED)]:
        if not frozen.issuperset(block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=frozen, reshard_after_forward=False)
            block.register_forward_pre_hook(_use_gathered)
    fully_shard(stage, mesh=mesh, ignored_params=frozen, reshard_after_forward=False)
    for name in ("preview", "measure"):
        register_fsdp_forward_method(stage, name)


def _use_gathered(block: nn.Module, *_: Any) -> None:
    """LoRAs were made active before their block was gathered."""
    for layer in block.modules():
        if isinstance(layer, LoRALinear):
            layer.use(layer.used)


def reshard(stage: nn.Module) -> None:
    """Give the gathered weights up, where no backward pass has done so."""
    from torch.distributed.fsdp import FSDPModule

    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_copies(state: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The state in main memory, where `keep` is set, as it is now, whatever is trained meanwhile: copies of what may change,
    DTensors gathered one by one. Otherwise empty ones. To be called by all processes."""
    copies = {}
    for name, value in state.items():
        if isinstance(value, DTensor):
            value = value.full_tensor()
        frozen = isinstance(value, nn.Parameter) and not value.requires_grad and value.device.type == "cpu"
        copies[name] = (value if frozen else value.detach().to("cpu", copy=True)) if keep else torch.empty(0)
    return copies


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value`, whole, on the parameter's device and split as the parameter is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
