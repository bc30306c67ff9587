"""Seconds and memory of steps, and of those of several contestants in turn."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from meta_animator.errors import UserError
from meta_animator.stages.memory import peak_so_far

Step = Callable[[], Any]


class Meter:
    """What lies between `start` and `stop`, each time.

    seconds   of each; the device's work is waited for
    at_rest, peak   bytes of the process (on a GPU: of its memory) before a step, and at most in it; empty where no one tells
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: list[float] = []
        self.at_rest: list[int] = []
        self.peak: list[int] = []
        self._since = 0.0

    def start(self) -> None:
        if (bytes_now := self._bytes(anew=True)) is not None:
            self.at_rest.append(bytes_now)
        self._since = time.perf_counter()

    def stop(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._since)
        if (most := self._bytes()) is not None:
            self.peak.append(most)

    def forget(self, count: int) -> None:
        """The first ones were for warming up."""
        for values in (self.seconds, self.at_rest, self.peak):
            del values[:count]

    def _bytes(self, anew: bool = False) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        try:
            return peak_so_far(self.device, anew)
        except UserError:
            return None

    def numbers(self, units: float | Sequence[float], unit: str) -> dict[str, Any]:
        """As a report has them; a step does so many `units`, or each its own number."""
        each = [units] * len(self.seconds) if isinstance(units, int | float) else units
        rates = [count / spent for count, spent in zip(each, self.seconds, strict=True)]
        memory = {"peak": max(self.peak), "at_rest": max(self.at_rest)} if self.peak else None
        seconds = dataclasses.asdict(Spread.of(self.seconds))
        return {"seconds": seconds, f"{unit}_per_second": Spread.of(rates).median, "memory": memory}


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles of values, and the values."""

    median: float
    lower_quartile: float
    upper_quartile: float
    values: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        lower, median, upper = (float(value) for value in np.percentile(values, [25, 50, 75]))
        return cls(median, lower, upper, list(values))


def alternate(steps: Mapping[str, Step], device: torch.device, warmup: int, repeats: int) -> dict[str, Meter]:
    """The steps by turns, and each time in the other order; the first `warmup` of each do not count."""
    meters = {name: Meter(device) for name in steps}
    for turn in range(warmup + repeats):
        for name in list(steps)[:: -1 if turn % 2 else 1]:
            meters[name].start()
            steps[name]()
            meters[name].stop()
    for meter in meters.values():
        meter.forget(warmup)
    return meters


def ratio(ours: Meter, theirs: Meter) -> dict[str, Any]:
    """Their seconds over ours, pair by pair: above 1 where ours is faster."""
    pairs = zip(theirs.seconds, ours.seconds, strict=True)
    return dataclasses.asdict(Spread.of([other / own for other, own in pairs]))
