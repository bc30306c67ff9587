"""What a Meta-Task is."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from meta_animator.data.layers import Layers


@dataclasses.dataclass(frozen=True)
class Condition:
    """A Meta-Task. `draw` gives uint8 (h, w, 3) RGB from layers in which all of `needs` are present.

    sided   its colours tell left from right, so that an image drawn elsewhere cannot be mirrored (`data.flip`)

    Where a task needs keypoints alone, `data.pose_drop` leaves parts of them out.
    """

    name: str
    group: Literal["foreground", "background", "global"]
    needs: tuple[str, ...]
    draw: Callable[[Layers], np.ndarray]
    sided: bool = False
