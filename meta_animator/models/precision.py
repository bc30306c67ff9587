"""Half precision: frozen networks hold and compute in it from end to end, trained ones keep float32 weights under autocast."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


def rounded(weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Copies in `dtype`, made by one call, as their gradients are brought back: autocast would cast each by itself."""
    return _Rounded.apply(dtype, *weights)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.kept, ctx.strides = weights[0].dtype, [weight.stride() for weight in weights]
        return tuple(_copies(weights, ctx.strides, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [k for k, gradient in enumerate(gradients) if gradient is not None]
        copies = _copies([gradients[k] for k in there], [ctx.strides[k] for k in there], ctx.kept)
        found = dict(zip(there, copies, strict=True))
        return None, *(found.get(k) for k in range(len(gradients)))


ALIGNED = 64  # numbers after which a copy may begin


def _copies(tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """In one block of memory."""
    sizes = [-(-tensor.numel() // ALIGNED) * ALIGNED for tensor in tensors]
    block, copies, start = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device), [], 0
    for tensor, stride, size in zip(tensors, strides, sizes, strict=True):
        copies.append(block.as_strided(tensor.shape, stride, start))
        start += size
    torch._foreach_copy_(copies, list(tensors))
    return copies
