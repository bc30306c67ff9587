"""What the engine knows of a stage."""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


@dataclasses.dataclass(kw_only=True)
class ParamGroup:
    """Parameters that share a learning rate, by name; the names are those of `Stage.trainable_state`."""

    name: str
    parameters: dict[str, nn.Parameter]
    lr: float


class Stage(Protocol):
    """A trainable nn.Module: `stage(batch, step) -> (loss, logs)`; every stage is trained by the one loop."""

    def __call__(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar loss and plain numbers to log."""

    def param_groups(self) -> list[ParamGroup]: ...

    def trainable_state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint of this stage stores, by name."""

    def load_trainable_state(self, state: dict[str, Tensor], what: str) -> None: ...

    def manifest(self) -> dict[str, Any]:
        """What a checkpoint says of itself: base, tasks, rank, identifiers."""

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures or short videos of the present state."""
