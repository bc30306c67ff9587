"""Counting the memory of networks without computing: on the meta device, with the kernels and casts that a GPU has."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from meta_animator.models.precision import HALF

# what autocast computes in half precision and in float32 on CUDA, of what these networks call (torch.amp's op reference)
HALF_OPS = {F.linear, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm, F.scaled_dot_product_attention, Tensor.matmul}
FUSED_ATTENTION = torch.ops.aten._scaled_dot_product_efficient_attention  # it keeps its output and a row statistic
FLOAT_OPS = {F.group_norm, F.layer_norm, F.mse_loss, torch.exp, torch.pow, Tensor.pow, Tensor.square, torch.softmax}


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors made inside that are still alive (`live`), and the most there were (`peak`)."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        self._outside: set[int] = set()  # of tensors that were there before: a view of a weight is no new memory

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._note_outside(tensor.untyped_storage())
        output = func(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return output

    def _note_outside(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known and key not in self._outside:
            self._outside.add(key)
            weakref.finalize(storage, self._outside.discard, key)

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._outside:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class LikeCuda(TorchFunctionMode):
    """Attention keeps no matrix of weights, as the fused kernels do; autocast casts as it does on CUDA, where the CPU's
    is on (the meta device has none). Go backward with
    `backward`."""

    def __init__(self) -> None:
        super().__init__()
        self._casts: dict[int, Tensor] | None = None

    @contextlib.contextmanager
    def remembering_casts(self) -> Iterator[None]:
        """For the outermost autocast region of a step: autocast keeps the half copies of trained weights until it ends."""
        self._casts = {}
        try:
            yield
        finally:
            self._casts = None

    def _cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        kept = self._casts is not None and dtype in HALF and tensor.is_leaf and tensor.requires_grad
        if not kept or tensor.dtype != torch.float32:
            return tensor.to(dtype)
        if id(tensor) not in self._casts:
            self._casts[id(tensor)] = tensor.to(dtype)
        return self._casts[id(tensor)]

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.is_autocast_enabled("cpu"):
            half = torch.get_autocast_dtype("cpu") if func in HALF_OPS else torch.float32 if func in FLOAT_OPS else None
            if half is not None:
                args, kwargs = tree_map_only(Tensor, functools.partial(self._cast, dtype=half), (args, kwargs))
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            return FUSED_ATTENTION(named["query"], named["key"], named["value"], None, True)[0]
        return func(*args, **kwargs)

    @staticmethod
    def backward(loss: Tensor, inputs: Sequence[Tensor] = ()) -> None:
        """torch.autograd.backward takes modes off before it starts, also for what is checkpointed and computed again; its
        engine, asked directly, leaves them on."""
        _engine_run_backward(
            (loss,), (torch.ones_like(loss),), False, False, tuple(inputs), allow_unreachable=True, accumulate_grad=True
        )


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes that `run`, on tensors of the meta device, would need at its peak beyond those that exist before it."""
    with PeakMemory() as memory, LikeCuda():
        run()
    return memory.peak


def bytes_of(tensors: Any) -> int:
    """Of modules' or any tensors' values, each storage once."""
    parameters = [*tensors.parameters(), *tensors.buffers()] if isinstance(tensors, nn.Module) else tensors
    return sum({id(t): t.numel() * t.element_size() for t in parameters}.values())
