"""Half precision: frozen networks hold and compute in it from end to end, trained ones keep float32 weights under autocast."""

import contextlib
from collections.abc import Iterator, Sequence
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


class RoundedCopies:
    """Copies in half precision, which take the place of trained weights for one forward and one backward pass: all are made
    by a few calls, as their gradients are brought back, where autocast would cast each by itself.

    To be entered for both passes, and left before weights are looked at: then everything is in its place again.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._own: list[tuple[dict[str, Any], str, Any]] = []

    def __enter__(self) -> None:
        self.wanted = True

    def __exit__(self, *_: Any) -> None:
        self.wanted = False
        while self._own:
            place, name, own = self._own.pop()
            place[name] = own

    @property
    def made(self) -> bool:
        return bool(self._own)

    def put(self, place: dict[str, Any], name: str, value: Any) -> None:
        """place[name] is `value` from now on."""
        self._own.append((place, name, place[name]))
        place[name] = value


TOGETHER = 2**25  # numbers that are rounded by one call: their gradients are all there before the first is brought back


def rounded(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies in `dtype`, through which gradients flow."""
    copies, together, count = [], [], 0
    for weight in weights:
        if together and count + weight.numel() > TOGETHER:
            copies += _Rounded.apply(dtype, *together)
            together, count = [], 0
        together.append(weight)
        count += weight.numel()
    return copies + (list(_Rounded.apply(dtype, *together)) if together else [])


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


ALIGNED = 64  # numbers; every copy begins at a multiple


def _copies(tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """In one block of memory."""
    if not tensors:
        return []
    sizes = [-(-tensor.numel() // ALIGNED) * ALIGNED for tensor in tensors]
    block, copies, start = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device), [], 0
    for tensor, stride, size in zip(tensors, strides, sizes, strict=True):
        copies.append(block.as_strided(tensor.shape, stride, start))
        start += size
    torch._foreach_copy_(copies, list(tensors))
    return copies


def trained_weights(network: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(module, name in it, weight) of what is trained in float32, without lists and dictionaries of weights."""
    for module in network.modules():
        if not isinstance(module, nn.ParameterDict | nn.ParameterList):
            for name, weight in module._parameters.items():
                if weight is not None and weight.requires_grad and weight.dtype not in HALF:
                    yield module, name, weight


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on here."""
    return torch.is_autocast_enabled("cpu" if device.type == "meta" else device.type)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast rounds to here; None where it is off."""
    return torch.get_autocast_dtype("cpu" if device.type == "meta" else device.type) if autocasts(device) else None
