"""Exponential moving average of trained weights."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from meta_animator.training.sharding import like


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, with the warm-up min(decay, (1 + n) / (10 + n)) of the n-th update.

    Every weight has an n of its own: only what an optimizer step has moved is averaged, not the LoRAs of other tasks.

    device   where the averages are kept; empty: with the weights
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, device: str = ""):
        self.decay, self.device = decay, device
        self.parameters = dict(parameters)
        self.updates = dict.fromkeys(self.parameters, 0)
        self.shadow = {name: self._copy(p) for name, p in self.parameters.items()}

    def _copy(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to(self.device, copy=True) if self.device else parameter.detach().clone()

    def _near(self, parameter: Tensor) -> Tensor:
        return parameter.to(self.device) if self.device else parameter

    @torch.no_grad()
    def update(self, names: Iterable[str]) -> None:
        """To be called after an optimizer step, with the names of what it moved."""
        alike: dict[int, list[str]] = {}  # by n
        for name in names:
            alike.setdefault(self.updates[name], []).append(name)
            self.updates[name] += 1
        for n, group in alike.items():
            weights = [self._near(self.parameters[name]) for name in group]
            torch._foreach_lerp_([self.shadow[name] for name in group], weights, 1 - min(self.decay, (1 + n) / (10 + n)))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights stand in for the trained ones inside the block."""
        kept = {name: self._copy(p) for name, p in self.parameters.items()}
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
    def load(self, shadow: Mapping[str, Tensor], updates: Mapping[str, int] | int) -> None:
        """updates: of every weight that has any, or one number for all, which is what older checkpoints hold."""
        for name, value in self.shadow.items():
            self.updates[name] = updates if isinstance(updates, int) else updates.get(name, 0)
            value.copy_(like(shadow[name], value))
