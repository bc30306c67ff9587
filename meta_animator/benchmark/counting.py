"""What a step asks of a machine: operator calls, casts between precisions, FLOPs; on CUDA also the kernels that it launches."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
PHASES = ("forward", "backward", "optimizer")
CASTS = (aten._to_copy.default, aten.copy_.default)
FLOPS = {  # per call; torch's own, and the CPU's attention kernels, which it does not know
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[aten._scaled_dot_product_flash_attention_backward],
}


@dataclasses.dataclass
class Counts:
    """calls   operators called, below autograd; `views` of them compute nothing
    casts      of them, between two precisions of floating-point numbers
    host_reads of them, values that the host waits for
    flops      of matrix products, convolutions and attention; a multiplication and an addition are two
    """

    calls: int = 0
    views: int = 0
    casts: int = 0
    host_reads: int = 0
    flops: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


class Counting(TorchDispatchMode):
    """Counts what is called inside, by phase: "optimizer" inside an optimizer's step, "backward" where gradients are computed
    (with what is computed again for them), otherwise "forward". To be entered by `counting`."""

    def __init__(self) -> None:
        super().__init__()
        self.phases = {phase: Counts() for phase in PHASES}
        self.operators: Counter[str] = Counter()
        self._in_optimizer = False

    @property
    def total(self) -> Counts:
        return sum(self.phases.values(), Counts())

    def enter_optimizer(self, *_: Any) -> None:
        self._in_optimizer = True

    def leave_optimizer(self, *_: Any) -> None:
        self._in_optimizer = False

    @property
    def _phase(self) -> str:
        if self._in_optimizer:
            return "optimizer"
        return "backward" if torch._C._current_graph_task_id() != -1 else "forward"

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        kwargs = dict(kwargs or {})
        formula = FLOPS.get(func._overloadpacket)
        if formula is None and not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CPU"):
            with self:  # what has no kernel of its own is counted by its parts
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if func.namespace == "profiler":  # marks that an optimizer sets, and that cost nothing
            return output
        counts = self.phases[self._phase]
        counts.calls += 1
        counts.views += func.is_view
        counts.casts += func in CASTS and _casts(func, args, output)
        counts.host_reads += func is aten._local_scalar_dense.default
        counts.flops += 0 if formula is None else formula(*args, **kwargs, out_val=output)
        self.operators[str(func._overloadpacket).removeprefix("aten.")] += 1
        return output


@contextlib.contextmanager
def counting() -> Iterator[Counting]:
    """What is called inside."""
    counts = Counting()
    before = register_optimizer_step_pre_hook(counts.enter_optimizer)
    with before, register_optimizer_step_post_hook(counts.leave_optimizer), counts:
        yield counts


def _casts(func: Callable, args: tuple, output: Tensor) -> bool:
    source = args[1] if func is aten.copy_.default else args[0]
    return source.dtype != output.dtype and source.is_floating_point() and output.is_floating_point()


@contextlib.contextmanager
def launches(device: torch.device) -> Iterator[dict[str, int]]:
    """Fills a dictionary, at the end, with how often kernels and graphs were launched inside; on a CPU it stays empty."""
    found: dict[str, int] = {}
    if device.type != "cuda":
        yield found
        return
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        yield found
        torch.cuda.synchronize(device)
    names = {event.key: event.count for event in profile.key_averages()}
    found["kernels"] = sum(count for name, count in names.items() if name.startswith(("cudaLaunchKernel", "cuLaunchKernel")))
    found["graphs"] = names.get("cudaGraphLaunch", 0)
