"""AdamW over named parameter groups, with its state by name so that it can live in safetensors."""

import torch
from torch import Tensor

from meta_animator.settings import TrainConfig
from meta_animator.training.sharding import like
from meta_animator.training.stage import ParamGroup


def make_optimizer(groups: list[ParamGroup], config: TrainConfig) -> torch.optim.AdamW:
    """Parameters without a gradient (inactive LoRAs) are left alone: no momentum, no weight decay."""
    return torch.optim.AdamW(
        [{"params": list(g.parameters.values()), "lr": g.lr, "name": g.name} for g in groups],
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )


def named_state(optimizer: torch.optim.Optimizer, groups: list[ParamGroup]) -> dict[str, Tensor]:
    """{"<parameter>/<slot>": tensor}, such as "net.conv_in.weight/exp_avg"; parameters never stepped have no slots."""
    state = {}
    for group in groups:
        for name, parameter in group.parameters.items():
            for slot, value in optimizer.state.get(parameter, {}).items():
                state[f"{name}/{slot}"] = value
    return state


def load_named_state(optimizer: torch.optim.Optimizer, groups: list[ParamGroup], state: dict[str, Tensor]) -> None:
    by_name = {name: parameter for group in groups for name, parameter in group.parameters.items()}
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        parameter = by_name[name]
        optimizer.state[parameter][slot] = value.clone() if slot == "step" else like(value, parameter).clone()
