"""The Meta-Tasks: each draws one kind of condition image from the stored layers of a frame.

To add one, write its drawing function in a file of its own and add a line to CONDITIONS.
"""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Literal

import numpy as np

from meta_animator.data.conditions.image import draw_bg_outpainting, draw_blurred, draw_canny, draw_fg_inpainting
from meta_animator.data.conditions.maps import draw_depth, draw_normal, draw_seg
from meta_animator.data.conditions.pose import draw_dwpose, draw_pose_hamer
from meta_animator.data.layers import Layers
from meta_animator.errors import UserError


@dataclasses.dataclass(frozen=True)
class Condition:
    """A Meta-Task. `draw` gives uint8 (h, w, 3) RGB from layers in which all of `needs` are present."""

    name: str
    group: Literal["foreground", "background", "global"]
    needs: tuple[str, ...]
    draw: Callable[[Layers], np.ndarray]


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition("dwpose", "foreground", ("keypoints",), draw_dwpose),
        Condition("pose_hamer", "foreground", ("keypoints",), draw_pose_hamer),
        Condition("depth", "foreground", ("depth", "mask"), draw_depth),
        Condition("normal", "foreground", ("normal",), draw_normal),
        Condition("seg", "foreground", ("parts",), draw_seg),
        Condition("fg_inpainting", "foreground", ("frame", "mask"), draw_fg_inpainting),
        Condition("bg_outpainting", "background", ("frame", "mask"), draw_bg_outpainting),
        Condition("canny", "global", ("frame",), draw_canny),
        Condition("blurred", "global", ("frame",), draw_blurred),
    )
}


def find_condition(task: str) -> Condition:
    """The Meta-Task of this name; UserError with the known names (and the nearest) for any other."""
    if task in CONDITIONS:
        return CONDITIONS[task]
    near = difflib.get_close_matches(str(task).lower(), CONDITIONS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"unknown task {task!r}.{hint} Known tasks: {', '.join(CONDITIONS)}")


def draw_condition(task: str, layers: Layers) -> np.ndarray:
    """The condition image of a task: uint8 (h, w, 3) RGB, the size of the frame.

    Raises UserError for an unknown task, or where a layer that the task needs is not there.
    """
    condition = find_condition(task)
    missing = [name for name in condition.needs if getattr(layers, name) is None]
    if missing:
        raise UserError(f"task {task!r} needs {' and '.join(missing)}, which this frame does not have")
    return np.ascontiguousarray(condition.draw(layers))
