"""AdamW over named parameter groups, with its state by name so that it can live in safetensors."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from meta_animator.errors import UserError
from meta_animator.settings import TrainConfig
from meta_animator.training.sharding import like
from meta_animator.training.stage import ParamGroup

FUSED_ON = ("cuda", "cpu")  # kinds of devices where one kernel steps all weights


def make_optimizer(groups: list[ParamGroup], config: TrainConfig) -> torch.optim.Optimizer:
    """Parameters without a gradient (inactive LoRAs) are left alone: no momentum, no weight decay.

    Raises UserError where the 8-bit one is asked for and its package is missing.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else _eight_bits()
    fused = {"fused": True} if config.optimizer == "adamw" and _can_be_fused(groups, config) else {}
    return kind(
        [{"params": list(g.parameters.values()), "lr": g.lr, "name": g.name} for g in groups],
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        **fused,
    )


def _can_be_fused(groups: list[ParamGroup], config: TrainConfig) -> bool:
    """Not where weights are shared out, nor beside fp16's scaler, which the average has to ask what it skipped."""
    parameters = [parameter for group in groups for parameter in group.parameters.values()]
    plain = all(parameter.device.type in FUSED_ON and not isinstance(parameter, DTensor) for parameter in parameters)
    return plain and config.mixed_precision != "fp16"


def skips_on_device(optimizer: torch.optim.Optimizer, gradient_norm: Tensor) -> bool:
    """Tell an optimizer that can (the fused one) to leave weights, momenta and step numbers as they are, should the norm not be
    finite, which the device finds out for itself; False where it cannot."""
    if not optimizer.defaults.get("fused"):
        return False
    optimizer.found_inf = (~gradient_norm.isfinite()).float()  # as a GradScaler does it
    return True


def _eight_bits() -> type[torch.optim.Optimizer]:
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise UserError(f"train.optimizer: adamw8bit needs one more package: pip install torchao ({error})") from error
    return AdamW8bit


def named_state(optimizer: torch.optim.Optimizer, groups: list[ParamGroup]) -> dict[str, Tensor]:
    """{"<parameter>/<slot>": tensor}, such as "net.conv_in.weight/exp_avg"; parameters never stepped have no slots.

    An 8-bit momentum is several tensors: "<parameter>/exp_avg.codes", ".scale" and ".qmap", the values of the codes.
    """
    state = {}
    for group in groups:
        for name, parameter in group.parameters.items():
            for slot, value in optimizer.state.get(parameter, {}).items():
                parts = {f".{part}": getattr(value, part) for part in getattr(value, "tensor_attrs", ())}
                state |= {f"{name}/{slot}{part}": tensor for part, tensor in (parts or {"": value}).items()}
    return state


def load_named_state(optimizer: torch.optim.Optimizer, groups: list[ParamGroup], state: dict[str, Tensor]) -> None:
    by_name = {name: parameter for group in groups for name, parameter in group.parameters.items()}
    quantised: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        slot, _, part = slot.partition(".")
        parameter = by_name[name]
        if part:
            quantised.setdefault((name, slot), {})[part] = value.to(parameter.device, copy=True)
        else:
            counts = slot == "step" and not optimizer.defaults.get("fused")  # steps, which are counted in main memory
            optimizer.state[parameter][slot] = value.clone() if counts else like(value, parameter).clone()
    for (name, slot), parts in quantised.items():
        from torchao.optim.subclass_8bit import OptimState8bit

        parameter = by_name[name]
        signed = bool(parts["qmap"].min() < 0)
        optimizer.state[parameter][slot] = OptimState8bit(**parts, signed=signed, dtype=parameter.dtype)
