"""What is written of a run's numbers: their means since the last line, task by task."""

import math
from collections.abc import Mapping
from typing import Any

from meta_animator.training.stage import Mean

LATEST = ("learning_rate", "skipped_steps")  # not averaged: as of the last step


class Means:
    """Sums and weights of what steps logged, by task, in the order in which tasks came.

    A `Mean` counts by its weight, any other number once per step. What is not finite (the loss of a step that was skipped) is
    left out, unless there is nothing else.
    """

    def __init__(self, state: Mapping[str, Mapping[str, Any]] | None = None):
        """state: of another, as `state` gave it."""
        self.tasks = {task: {key: [float(n) for n in pair] for key, pair in sums.items()} for task, sums in (state or {}).items()}

    def state(self) -> dict[str, dict[str, list[str]]]:
        """All of it for JSON, which has no words for infinity; "" stands for steps without a task."""
        return {task: {key: [repr(n) for n in pair] for key, pair in sums.items()} for task, sums in self.tasks.items()}

    def add(self, logs: Mapping[str, "float | str | Mean"]) -> None:
        """One step's numbers; its task is the text `task`."""
        sums = self.tasks.setdefault(str(logs.get("task", "")), {})
        for key, value in logs.items():
            number, weight = value if isinstance(value, Mean) else (value, 1.0)
            if isinstance(number, str) or not weight:
                continue
            if key in LATEST:
                sums[key] = [number, 1.0]
                continue
            finite = math.isfinite(number)
            self._add(sums, key, number * weight if finite else 0.0, weight if finite else 0.0)

    def merge(self, other: "Means") -> None:
        """Another process's, or the later part."""
        for task, theirs in other.tasks.items():
            sums = self.tasks.setdefault(task, {})
            for key, (total, weight) in theirs.items():
                if key in LATEST:
                    sums[key] = [total, weight]
                else:
                    self._add(sums, key, total, weight)

    @staticmethod
    def _add(sums: dict[str, list[float]], key: str, total: float, weight: float) -> None:
        pair = sums.setdefault(key, [0.0, 0.0])
        pair[0] += total
        pair[1] += weight

    def lines(self) -> list[dict[str, "float | str"]]:
        """The means of each task, with its name where it has one; nan where nothing was finite."""
        named = [({"task": task} if task else {}, sums) for task, sums in self.tasks.items()]
        return [{**name, **{key: _mean(pair) for key, pair in sums.items()}} for name, sums in named]

    def overall(self) -> dict[str, float]:
        """The means over all tasks together."""
        together = Means()
        for sums in self.tasks.values():
            part = Means()
            part.tasks = {"": sums}
            together.merge(part)
        return {key: _mean(pair) for key, pair in together.tasks.get("", {}).items()}


def _mean(pair: list[float]) -> float:
    return pair[0] / pair[1] if pair[1] else math.nan
