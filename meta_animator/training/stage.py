"""What the engine knows of a stage."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from meta_animator.settings import RunConfig


@dataclasses.dataclass(kw_only=True)
class ParamGroup:
    """Parameters that share a learning rate, by name; the names are those of `Stage.trainable_state`."""

    name: str
    parameters: dict[str, nn.Parameter]
    lr: float


class Mean(NamedTuple):
    """A number to log that is a mean over `weight` things, possibly none; means of such means are weighted."""

    value: "Tensor | float"
    weight: "Tensor | float"


class Stage(Protocol):
    """A trainable nn.Module: `stage(batch, step) -> (loss, logs)`; every stage is trained by the one loop.

    config            what it trains by: the run's, without what is not there (a face embedder)
    gradients_alike   whether a step gives the same parameters a gradient in all processes; so that they need not ask each other.
                      May be left out where it does not
    measures          whether it has `measure`, may be left out where it has not
    early_stop, best_step   of `train`, may be left out where that has no meaning
    rounding_once     a context to be entered for forward and backward of a micro-batch, may be left out where there is none
    """

    config: RunConfig
    gradients_alike: bool
    measures: bool
    early_stop: int
    best_step: int

    def __call__(self, batch: Any, step: int) -> tuple[Tensor, dict[str, "Tensor | float | str | Mean"]]:
        """The scalar loss and what to log of the batch: numbers as scalars on the device, where they are, are read later."""

    def begin_step(self, batches: Sequence[Any], step: int, mean: Callable[[Tensor], Tensor]) -> None:
        """See all micro-batches of an optimizer step before the first of them; `mean` averages over processes. What is
        computed here is the same in every process, and may be a mean over all of the step's samples."""

    def param_groups(self) -> list[ParamGroup]: ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint of this stage stores, by name."""

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None: ...

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint says of itself: base, tasks, rank, identifiers."""

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures or short videos of the present state."""

    def measure(self) -> dict[str, float]:
        """{meter: value} of the present state, to be logged; see watch.py for what is made of them."""
