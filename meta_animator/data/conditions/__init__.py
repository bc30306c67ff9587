"""The Meta-Tasks: each draws one kind of condition image from the stored layers of a frame.

To add one, write a file in this folder with its drawing function and a `Condition(...)` at module level: it is found here.
"""

import difflib
import importlib
import pkgutil

import numpy as np

from meta_animator.data.conditions.condition import Condition
from meta_animator.data.layers import Layers
from meta_animator.errors import UserError
from meta_animator.settings import TASKS


def find_conditions(package: str, folders: list[str]) -> dict[str, Condition]:
    """{name: Condition} of the modules of a package: those of `settings.TASKS` in its order, then others by name.

    Raises UserError where two modules have a task of one name.
    """
    found: dict[str, tuple[Condition, str]] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(folders)):
        module = importlib.import_module(f"{package}.{name}")
        for condition in [value for value in vars(module).values() if isinstance(value, Condition)]:
            other, where = found.setdefault(condition.name, (condition, name))
            if other is not condition:
                files = f"{where}.py" if where == name else f"{where}.py and {name}.py"
                raise UserError(f"{folders[0]}: two Meta-Tasks are called '{condition.name}', in {files}; rename one")
    order = [name for name in TASKS if name in found] + sorted(found.keys() - set(TASKS))
    return {name: found[name][0] for name in order}


CONDITIONS = find_conditions(__name__, __path__)


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
