"""What a run's meters say from measurement to measurement: which step is the best, when to stop, and what is wrong."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from meta_animator.checkpoints.best import CHOSEN
from meta_animator.errors import UserError
from meta_animator.settings import TrainConfig

GUARD = "held_out_error"  # what the best step has least of
RISING = 3  # measurements without a better one, after which that is said


def measure_every(train: TrainConfig) -> int:
    """Steps between two measurements; 0: there are none."""
    return train.preview_every if train.measure_every < 0 else train.measure_every


class Fault(NamedTuple):
    """A meter whose value may be bad, and what there is to say of it then."""

    is_bad: Callable[[float], bool]
    said: str


FAULTS = {
    "obedience": Fault(
        lambda value: value < 0.02,
        "control is ignored: under a wrong condition the prediction is as good as under the right one (obedience {value:.3f}); "
        "it may come yet, or the learning rate is too low, or conditions and pictures do not belong together",
    ),
    "copying": Fault(
        lambda value: value > 1.0,
        "training photos are copied: what is generated for the held-out photo is nearer to one of them than to the truth "
        "(by {value:.1f} dB); fewer steps, or more photos, help",
    ),
}


class Watch:
    """Sees every measurement of a run, the same in all processes.

    early_stop   measurements without a better one after which the run is over; 0: none are
    state        of the checkpoint that a run continues from, as `state` gave it
    best_step    which step is the best, where that is known; 0: the one at which what is held out comes out best
    """

    def __init__(self, early_stop: int = 0, state: Mapping[str, Any] | None = None, best_step: int = 0):
        state = state or {}
        self.early_stop, self.best_step = early_stop, best_step
        self.measured: int = state.get("measured", 0)  # the last step that was
        self.best: dict[str, Any] | None = state.get("best")
        if self.best is not None and (self.best["meter"] == CHOSEN or best_step) and self.best["step"] != best_step:
            self.best = None  # another one is wanted by now
        self.worse: int = state.get("worse", 0)  # measurements since the best
        self.faulty: set[str] = set(state.get("faulty", ()))

    def state(self) -> dict[str, Any]:
        """For JSON; empty where nothing was measured or chosen."""
        if not self.measured and self.best is None:
            return {}
        return {"measured": self.measured, "best": self.best, "worse": self.worse, "faulty": sorted(self.faulty)}

    @property
    def over(self) -> bool:
        """Whether the run is to stop early."""
        return 0 < self.early_stop <= self.worse

    def pass_by(self, step: int) -> None:
        """Take note of a step that is trained."""
        if step == self.best_step:
            self.best = {"step": step, "meter": CHOSEN, "value": float(step)}

    def look_back(self, saved: Sequence[int]) -> None:
        """Take note of the checkpoints that a run continues from, the newest last. Raises UserError where the wanted step is past
        and was not kept."""
        if not (0 < self.best_step <= max(saved, default=0)) or self.best is not None:
            return
        if self.best_step not in saved:
            kept = ", ".join(map(str, saved))
            raise UserError(
                f"train.best_step: this run was trained before and did not keep step {self.best_step}; name another output_dir, "
                f"or one of {kept}"
            )
        self.pass_by(self.best_step)

    def is_best(self, step: int) -> bool:
        return self.best is not None and self.best["step"] == step

    def add(self, step: int, numbers: Mapping[str, float], last: bool = False) -> list[str]:
        """Take note of a measurement; returns what there is to say: of what has become bad, and at the run's last step of what
        still is."""
        self.measured, before = step, self.faulty
        bad = {name for name, fault in FAULTS.items() if name in numbers and fault.is_bad(numbers[name])}
        said = [FAULTS[name].said.format(value=numbers[name]) for name in FAULTS if name in bad and (last or name not in before)]
        self.faulty = bad
        value = numbers.get(GUARD, math.nan)
        if math.isfinite(value):
            said += self._guard(step, value)
        return said

    def _guard(self, step: int, value: float) -> list[str]:
        if self.best is None or value < self.best["value"]:
            self.best, self.worse = {"step": step, "meter": GUARD, "value": value}, 0
            return []
        self.worse += 1
        since = f"the error on what is held out was least at step {self.best['step']}, {self.worse} measurements ago"
        if self.over:
            return [f"{since}: the run ends here (train.early_stop)"]
        return [f"{since}: what is learned since then is the training photos by heart"] if self.worse == RISING else []
