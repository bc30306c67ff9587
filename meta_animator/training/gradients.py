"""Several processes: their gradients become means, of what has one in this step and of nothing else.

DistributedDataParallel, which has to be told that some parameters take no part, looks for those at every step and sends zeros for
them: for the LoRAs of all tasks but one.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

BUCKET = 2**23  # numbers that are sent together


class GradientMeans:
    """Of these parameters, which are the first process's from the start.

    alike   whether all processes have gradients of the same parameters, at every step; otherwise they ask each other
    """

    def __init__(self, parameters: Iterable[nn.Parameter], alike: bool):
        self.parameters, self.alike = list(parameters), alike
        for parameter in self.parameters:
            dist.broadcast(parameter.detach(), src=0)

    def take(self) -> None:
        """After the backward pass: every gradient becomes the mean over all processes, where one without it counts as zero."""
        sent = []
        for bucket in _buckets(self._with_gradient()):
            parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in bucket]
            flat = torch.cat(parts).div_(dist.get_world_size())
            sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            for parameter, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = mean.view_as(parameter)

    def _with_gradient(self) -> list[nn.Parameter]:
        """Parameters that have a gradient in some process."""
        own = [parameter.grad is not None for parameter in self.parameters]
        if self.alike:
            return [p for p, has in zip(self.parameters, own, strict=True) if has]
        there = torch.tensor(own, dtype=torch.uint8, device=self.parameters[0].device)
        dist.all_reduce(there, op=dist.ReduceOp.MAX)
        return [p for p, has in zip(self.parameters, there.tolist(), strict=True) if has]


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """In order, at most `BUCKET` numbers of one kind in each that is not a single parameter."""
    bucket: list[nn.Parameter] = []
    count = 0
    for parameter in parameters:
        if bucket and (count + parameter.numel() > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, count = [], 0
        bucket.append(parameter)
        count += parameter.numel()
    if bucket:
        yield bucket
