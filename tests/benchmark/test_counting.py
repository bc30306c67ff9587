"""Counts of steps whose calls, casts and FLOPs are known by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from meta_animator.benchmark.counting import counting


def test_a_step_of_a_linear_layer():
    """y = W x + b of 5 samples, 4 -> 3: 2 * 5 * 4 * 3 FLOPs forward, as many for W's gradient, none for x's."""
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with counting() as counts:
        layer(x).sum().backward()
        optimizer.step()
    forward, backward, step = counts.phases.values()
    assert (forward.flops, backward.flops, step.flops) == (120, 120, 0)
    assert (forward.calls, forward.views) == (4, 1), "t, addmm, sum, and the 1 that the backward pass begins with"
    assert counts.operators["mm"] == 1 and step.calls == 2, "one addition for each of two parameters"
    assert (counts.total.flops, counts.total.calls) == (240, forward.calls + backward.calls + step.calls)


def test_casts_and_what_the_host_waits_for():
    x = torch.randn(3, requires_grad=True)
    with counting() as counts:
        y = x.to(torch.bfloat16)
        y.to(torch.bfloat16), torch.arange(3).to(torch.float32), x.clone()  # no casts of floating-point numbers
        loss = y.float().sum()
        loss.item()
        loss.backward()
    assert (counts.phases["forward"].casts, counts.phases["backward"].casts, counts.total.host_reads) == (2, 2, 1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_and_convolutions(device):
    """Two products of (l d)(d l) and (l l)(l d) for each head; five in the backward pass, one of which is the first again."""
    b, h, n, d = 2, 3, 16, 8
    query = torch.randn(b, h, n, d, device=device, requires_grad=True)
    if device == "cpu":
        with counting() as counts:
            F.scaled_dot_product_attention(query, query, query).sum().backward()
        assert counts.phases["forward"].flops == 4 * b * h * n * n * d
        assert counts.phases["backward"].flops == 10 * b * h * n * n * d
    convolution = nn.Conv2d(4, 6, 3, padding=1, device=device)
    with counting() as counts, torch.no_grad():
        convolution(torch.empty(2, 4, 10, 10, device=device))
    assert counts.total.flops == 2 * 2 * 6 * 4 * 9 * 100


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_kernel_is_one_call_though_torch_could_take_it_apart(device):
    x = torch.ones(3, device=device, requires_grad=True)
    with counting() as counts:
        torch.autograd.backward(F.silu(x), torch.ones_like(x))
    assert counts.operators == {"ones_like": 1, "silu": 1, "silu_backward": 1, "detach": 1}


@torch.inference_mode()
def test_what_has_no_kernel_is_counted_by_its_parts():
    """Where nothing is recorded for a gradient, such operators come whole."""
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    with counting() as counts:
        layer(x)
    assert counts.total.flops == 120 and counts.operators["addmm"] == 1


def test_what_is_checkpointed_counts_again_in_the_backward_pass():
    """Of two layers the first one: once the second has its input again, no more is needed."""
    layers = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with counting() as counts:
        torch.utils.checkpoint.checkpoint(layers, torch.randn(5, 4, requires_grad=True), use_reentrant=False).sum().backward()
    once = 2 * 5 * 4 * 4
    assert (counts.phases["forward"].flops, counts.phases["backward"].flops) == (2 * once, 4 * once + once)
