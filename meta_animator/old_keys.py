"""Keys of former versions in YAMLs and run folders: read as what they are called now, or left out, with a note."""

from collections.abc import Callable
from typing import Any

from meta_animator.errors import UserError

RENAMED: dict[str, tuple[str, Callable[[float], float]]] = {
    "sample.frame_noise": ("sample.shared_noise", lambda share: 1 - share),
}
DROPPED = {  # what has taken the place of a setting, as its value
    "sample.inversion_share": (1.0, "the part that all frames share is the inverted photo alone"),
    "sample.inversion_fixed_point_iterations": (0.0, "the photo is inverted by plain DDIM steps"),
}


def current_key(key: str, value: Any, where: str) -> tuple[str, Any] | None:
    """(key, value) as they are now; None: no longer a setting. Raises UserError for a value of a former key that is no number."""
    if key not in RENAMED and key not in DROPPED:
        return key, value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {key}: expected a number, got {value!r}") from None
    if key in DROPPED:
        always, instead = DROPPED[key]
        if number != always:
            print(f"note: {where}: {key}={number:g} is no longer a setting and left out: {instead}")
        return None
    new, change = RENAMED[key]
    print(f"note: {where}: {key}={number:g} is now {new}={change(number):g}")
    return new, change(number)


def current_keys(values: dict, where: str) -> dict:
    """The same for the sections of a YAML."""
    return {name: _section(name, part, where) if isinstance(part, dict) else part for name, part in values.items()}


def _section(name: str, values: dict, where: str) -> dict:
    found = [current_key(f"{name}.{key}", value, where) for key, value in values.items()]
    return {pair[0].partition(".")[2]: pair[1] for pair in found if pair is not None}
