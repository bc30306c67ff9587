"""Gradients over processes; that two of them train as one is in tests/test_distributed.py."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from meta_animator.training import gradients
from meta_animator.training.gradients import GradientMeans


@pytest.fixture
def sent(monkeypatch) -> list[int]:
    """How many numbers are sent at a time, to a second process that has gradients of 3 wherever there is room, and none of its
    own where it is asked."""
    counts = []

    class Done:
        def wait(self):
            pass

    def all_reduce(values, op=dist.ReduceOp.SUM, async_op=False):
        if op != dist.ReduceOp.MAX:
            counts.append(values.numel())
            values += 3 / 2
        return Done()

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "broadcast", lambda values, src: None)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(gradients, "BUCKET", 10)
    return counts


@pytest.mark.parametrize("alike", [True, False])
def test_only_what_has_a_gradient_is_sent_in_buckets(sent, alike):
    shapes = [(2, 3), (4,), (3,), (25,), (2,), (2,)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    means = GradientMeans(parameters, alike)
    for k in (0, 1, 2, 3, 5):
        parameters[k].grad = torch.full(shapes[k], float(k))
    means.take()
    assert sent == [10, 3, 25, 2], "at most ten numbers, or one parameter"
    assert parameters[4].grad is None
    for k in (0, 1, 2, 3, 5):
        assert torch.equal(parameters[k].grad, torch.full(shapes[k], (k + 3) / 2))


def test_what_another_process_has_a_gradient_of_is_sent_by_all(sent, monkeypatch):
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.ones(2)
    original = dist.all_reduce

    def all_reduce(values, op=dist.ReduceOp.SUM, async_op=False):
        if op == dist.ReduceOp.MAX:
            values[1] = 1
        return original(values, op, async_op)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    GradientMeans(parameters, alike=False).take()
    assert [p.grad is None for p in parameters] == [False, False, True]
    assert torch.equal(parameters[0].grad, torch.full((2,), 2.0)) and torch.equal(parameters[1].grad, torch.full((2,), 1.5))
