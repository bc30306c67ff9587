"""How long a job of several steps has taken, and about how long it still takes, by what the machine took the last time."""

import time
from collections.abc import Callable
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json

MOSTLY_DONE = 0.4  # a step that takes a smaller share of what it took before had done most of its work before


class Clock:
    """Seconds of each step. `expect` says how many units a step has; what a unit took earlier is kept in `record`.

    record   JSON file: {kind: {step: seconds per unit}}; kind: jobs that are alike
    """

    def __init__(self, record: Path, kind: str, now: Callable[[], float] = time.monotonic):
        self.record, self.kind, self._now = record, kind, now
        self.units: dict[str, float] = {}
        self._known = self._read().get(kind, {})
        self._begun = now()
        self._step, self._since, self._skipped = "", self._begun, False

    def expect(self, step: str, units: float) -> None:
        self.units[step] = units

    def start(self, step: str, sentence: str) -> None:
        """End the step before, and say what comes and, where that is known, about how long all takes from here."""
        self._finish()
        self._step, self._since, self._skipped = step, self._now(), False
        left = self.left()
        print(f"\n== {sentence}{f' (about {words(left)} left)' if left else ''}", flush=True)

    def skip(self) -> None:
        """The current step was done already: its time tells nothing."""
        self._skipped = True

    def stop(self) -> None:
        self._finish()
        if self._known:
            write_json(self.record, self._read() | {self.kind: self._known})

    def left(self) -> float | None:
        """Seconds from the start of the current step to the end; None where a step's cost is not known."""
        steps = list(self.units)
        coming = steps[steps.index(self._step) :] if self._step in steps else []
        if any(step not in self._known for step in coming if self.units[step]):
            return None
        return sum(self.units[step] * self._known.get(step, 0.0) for step in coming)

    def words(self) -> str:
        """How long it has taken so far."""
        return words(self._now() - self._begun)

    def _finish(self) -> None:
        units = self.units.get(self._step, 0)
        if not units or self._skipped:
            return
        took = (self._now() - self._since) / units
        if took > MOSTLY_DONE * self._known.get(self._step, 0.0):
            self._known[self._step] = took

    def _read(self) -> dict:
        try:
            return read_json(self.record)
        except UserError:
            return {}


def words(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
