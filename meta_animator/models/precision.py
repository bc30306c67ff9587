"""Half precision: frozen networks hold and compute in it from end to end, trained ones keep float32 weights under autocast."""

import contextlib
from collections.abc import Sequence

import torch
from torch import nn

HALF = (torch.float16, torch.bfloat16)
PRECISIONS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}  # by the names of train.mixed_precision


def autocast(device: torch.device, dtype: torch.dtype | None = None, enabled: bool = True) -> contextlib.AbstractContextManager:
    """torch.autocast, on the meta device too, where nothing is computed: there it leaves its mark on the CPU's."""
    return torch.autocast("cpu" if device.type == "meta" else device.type, dtype, enabled=enabled)


def own_precision(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager:
    """For a network whose weights have this dtype: no autocast inside where it is a half."""
    return autocast(device, enabled=False) if dtype in HALF else contextlib.nullcontext()


def halve(module: nn.Module, dtype: torch.dtype, precise: Sequence[str] = ()) -> None:
    """Weights and buffers in `dtype`, except those that are trained, the buffers of a network of which any weight is, and those
    whose names have one of `precise` in them. In place: each parameter stays the same object."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not parameter.requires_grad and not any(part in name for part in precise):
            parameter.data = parameter.data.to(dtype)
    if any(parameter.requires_grad for parameter in module.parameters()):
        return
    for path, child in module.named_modules():
        for name, buffer in child.named_buffers(recurse=False):
            if buffer.is_floating_point() and not any(part in f"{path}.{name}" for part in precise):
                setattr(child, name, buffer.to(dtype))
