"""How long the attention of a step takes by each of PyTorch's kernels."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from meta_animator.errors import UserError
from meta_animator.models.attention import KERNELS, attention_by
from meta_animator.models.precision import PRECISIONS
from meta_animator.settings import RunConfig
from meta_animator.stages.memory import TrainingStep, sampling_steps, sampling_without_weights, stage_without_weights

Shapes = tuple[tuple[int, ...], tuple[int, ...], bool]  # of queries and of keys, b heads n c; whether gradients are asked for


def measure(config: RunConfig, device: torch.device, warmup: int, repeats: int) -> dict[str, Any]:
    """{"attention of a step": {"milliseconds": {kernel: ...}}, and the same for each shape of one call}: the medians of
    `repeats` calls on random inputs, with their backward pass where a training step has it. A kernel that cannot do all of it
    is left out of the step's. Needs the base's config files only.
    """
    calls, dtype = _calls(config), PRECISIONS[config.train.mixed_precision]
    each = {shapes: _milliseconds(shapes, dtype, device, warmup, repeats) for shapes in calls}
    able = [kernel for kernel in ("auto", *KERNELS) if all(kernel in times for times in each.values())]
    whole = {kernel: sum(count * each[shapes][kernel] for shapes, count in calls.items()) for kernel in able}
    results = {"attention of a step": {"milliseconds": whole, "calls": calls.total()}}
    for (queries, keys, learns), count in calls.items():
        name = f"{'x'.join(map(str, queries))} on {keys[-2]}, {'forward and backward' if learns else 'forward'}, {count} calls of"
        results[name] = {"milliseconds": each[queries, keys, learns], "calls": count}
    return results


class _Seen(TorchFunctionMode):
    """Counts calls of attention by their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Shapes] = Counter()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            named = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
            query, key = named["query"], named["key"]
            learns = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, named["value"]))
            self.calls[tuple(query.shape), tuple(key.shape), learns] += 1
        return func(*args, **(kwargs or {}))


def _calls(config: RunConfig) -> Counter[Shapes]:
    """The calls of a step's forward pass, on the meta device."""
    if config.stage == "sample":
        step = sampling_steps(config, sampling_without_weights(config))["denoising"]
        with torch.no_grad(), _Seen() as seen:
            step()
    else:
        stage = stage_without_weights(config)
        with _Seen() as seen:
            TrainingStep(stage, config).run(lambda loss: None)
    return seen.calls


def _milliseconds(shapes: Shapes, dtype: torch.dtype, device: torch.device, warmup: int, repeats: int) -> dict[str, float]:
    """{kernel: of a call}, of those that can do it."""
    queries, keys, learns = shapes
    inputs = [torch.randn(shape, dtype=dtype, device=device, requires_grad=learns) for shape in (queries, keys, keys)]
    spent = {}
    for kernel in ("auto", *KERNELS):
        with contextlib.suppress(UserError, torch.OutOfMemoryError), attention_by(kernel):
            times = [_seconds(inputs, device) for _ in range(warmup + repeats)]
            spent[kernel] = 1e3 * float(np.median(times[warmup:]))
    return spent


def _seconds(inputs: list[Tensor], device: torch.device) -> float:
    start = _now(device)
    output = F.scaled_dot_product_attention(*inputs)
    if output.requires_grad:
        torch.autograd.grad(output, inputs, torch.ones_like(output))
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
