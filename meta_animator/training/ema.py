"""Exponential moving average of trained weights."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from meta_animator.training.sharding import like


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, with the warm-up min(decay, (1 + n) / (10 + n)) of the n-th update."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.decay, self.updates = decay, 0
        self.parameters = dict(parameters)
        self.shadow = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in self.parameters.items():
            self.shadow[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights stand in for the trained ones inside the block."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._fill(self.shadow)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @torch.no_grad()
    def load(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, value in self.shadow.items():
            value.copy_(like(shadow[name], value))
