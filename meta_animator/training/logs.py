"""What steps log: numbers on the device, which come to main memory while the next step is computed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from meta_animator.training.stage import Mean

Logs = Mapping[str, "Tensor | float | str | Mean"]


class Later:
    """Numbers (n,) on their way from a device to main memory: nothing waits for them before they are read."""

    def __init__(self, numbers: Tensor):
        self.values, self.arrived = numbers, None
        if numbers.is_cuda:
            self.values = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.tolist()


class _Place(NamedTuple):
    """Stands in for a number that is not read yet: which one of the step's it is."""

    number: int


class StepLogs:
    """What the micro-batches of one optimizer step logged, and what the step says of itself.

    step            its number, from 1
    of_micro_batches, of_step   numbers as scalars on any device, or as they are; the same names in both are the step's
    """

    def __init__(self, step: int, of_micro_batches: Sequence[Logs], of_step: Logs):
        self.step, tensors = step, []

        def place(value: Any) -> Any:
            if isinstance(value, Mean):
                return Mean(place(value.value), place(value.weight))
            if not isinstance(value, Tensor):
                return value
            tensors.append(value.detach())
            return _Place(len(tensors) - 1)

        *self.micro, self.own = [{key: place(value) for key, value in logs.items()} for logs in (*of_micro_batches, of_step)]
        device = tensors[0].device if tensors else torch.device("cpu")
        self.numbers = Later(torch.stack([one.to(device, non_blocking=True) for one in tensors] or [torch.zeros(())]))

    def read(self) -> dict[str, "float | str | Mean"]:
        """The means over the micro-batches, and the step's own."""
        numbers = self.numbers.read()

        def fill(value: Any) -> Any:
            if isinstance(value, Mean):
                return Mean(fill(value.value), fill(value.weight))
            return numbers[value.number] if isinstance(value, _Place) else value

        *micro, own = [{key: fill(value) for key, value in logs.items()} for logs in (*self.micro, self.own)]
        return {**_mean_logs(micro), **own}


def _mean_logs(all_logs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over micro-batches; texts (the task) are the same in all of them."""
    mean = {}
    for key in dict.fromkeys(key for logs in all_logs for key in logs):
        values = [logs[key] for logs in all_logs if key in logs]
        if isinstance(values[0], Mean):
            weight = sum(each.weight for each in values)
            mean[key] = Mean(sum(each.value * each.weight for each in values) / max(weight, 1), weight)
        else:
            mean[key] = values[0] if isinstance(values[0], str) else sum(values) / len(values)
    return mean
