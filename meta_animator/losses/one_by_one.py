"""A sum over samples whose graphs are never in memory together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FIRST_SCALE, SCALE_STEP = 2.0**16, 2.0**4  # of gradients in float16, which lose their smallest values below 6e-8


def sum_one_by_one(terms: Callable[[int, Tensor], Tensor], x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted sum over samples and terms, a scalar; the terms' own sums (m,), without a gradient).

    Each sample's gradient with respect to x is computed at once and its graph freed, before the next one's is made. Only x
    receives a gradient: none reaches weights that `terms` uses.

    terms    (k, x[k : k + 1]) -> (m,), the terms of sample k
    x        (n, ...), n may be 0
    weights  (m,)
    """
    sums, gradients, wanted = torch.zeros_like(weights), [], torch.is_grad_enabled() and x.requires_grad
    for k in range(len(x)):
        one = x[k : k + 1].detach().requires_grad_(wanted)
        values = terms(k, one)
        if wanted:
            gradients.append(_gradient((weights * values).sum(), one))
        sums = sums + values.detach()
        del values  # and with it the graph
    total = (weights * sums).sum()
    return (_Known.apply(x, total, torch.cat(gradients)) if gradients else total), sums


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """d value / d x. Under float16 autocast it goes back through half precision: times a power of two, as a GradScaler does
    it, which falls until the result is finite."""
    kind = x.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    scale = FIRST_SCALE if half else 1.0
    with torch.autocast(kind, enabled=False):
        while True:
            (gradient,) = torch.autograd.grad(value * scale, x, retain_graph=scale > 1)
            gradient = gradient / scale
            if scale <= 1 or bool(gradient.isfinite().all()):
                return gradient
            scale /= SCALE_STEP


class _Known(torch.autograd.Function):
    """A scalar whose gradient with respect to x is known already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return above * gradient, None, None
