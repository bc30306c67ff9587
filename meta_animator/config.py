"""YAML and key=value overrides to a validated RunConfig. Unknown keys and wrong values are errors of one line."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.settings import RunConfig


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """The run described by `path` (YAML) with `overrides` ("train.max_steps=10") on top.

    Raises UserError for a missing file, broken YAML, an unknown key, or a value outside its type, choices or bounds.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config {path}: no such file; give a YAML such as configs/demo/step0.yaml")
    try:
        from_file = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"config {path}: not valid YAML ({_first_line(error)})") from error
    if not OmegaConf.is_dict(from_file):
        raise UserError(f"config {path}: expected sections such as 'train:', found {type(from_file).__name__}")
    config = _merge(RunConfig(), from_file, str(path))
    for override in overrides:
        if "=" not in override:
            raise UserError(f"argument '{override}': expected key=value, such as train.max_steps=100")
        try:
            update = OmegaConf.from_dotlist([override])
        except Exception as error:
            raise UserError(f"argument '{override}': not valid ({_first_line(error)})") from error
        config = _merge(config, update, f"argument '{override}'")
    return config


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config; loading it again gives an equal RunConfig."""
    with whole_file(path) as part:
        part.write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _merge(config: RunConfig, update: Any, where: str) -> RunConfig:
    try:
        plain = OmegaConf.to_container(update, resolve=True)
        _check_keys(plain, config, where, prefix="")
        new = _replacing(plain, config)
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), new))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {key}: {_first_line(error)}") from error
    _check_values(merged, where, prefix="")
    return merged


def _replacing(plain: dict, config: Any) -> Any:
    """Dictionaries of free keys (sample.tasks) are replaced, not merged: empty the old one first. `key=` is an empty text."""
    for field in dataclasses.fields(config):
        if field.name not in plain:
            continue
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            plain[field.name] = _replacing(plain[field.name] or {}, value)
        elif isinstance(value, dict):
            value.clear()
        elif isinstance(value, str) and plain[field.name] is None:
            plain[field.name] = ""
    return OmegaConf.create(plain)


def _check_keys(plain: Any, config: Any, where: str, prefix: str) -> None:
    if plain is None:
        return
    if not isinstance(plain, dict):
        raise UserError(f"{where}: {prefix.rstrip('.')}: expected a section of keys, found {plain!r}")
    names = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for key, value in plain.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), _all_keys(RunConfig(), "") + list(names), n=1, cutoff=0.5)
            hint = (
                f"did you mean '{prefix + near[0] if near[0] in names else near[0]}'?"
                if near
                else f"known: {', '.join(names)}"
            )
            raise UserError(f"{where}: unknown key '{prefix}{key}'; {hint}")
        if dataclasses.is_dataclass(names[key]):
            _check_keys(value, names[key], where, f"{prefix}{key}.")


def _all_keys(config: Any, prefix: str) -> list[str]:
    keys = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        keys.append(prefix + field.name)
        if dataclasses.is_dataclass(value):
            keys += _all_keys(value, f"{prefix}{field.name}.")
    return keys


def _check_values(config: Any, where: str, prefix: str) -> None:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            _check_values(value, where, f"{name}.")
            continue
        choices, low = field.metadata.get("choices"), field.metadata.get("low")
        if choices and value not in choices:
            raise UserError(f"{where}: {name}: '{value}' is not one of {', '.join(repr(c) for c in choices)}")
        if low is not None and value < low:
            raise UserError(f"{where}: {name}: {value} is below the smallest allowed value {low}")
        if (high := field.metadata.get("high")) is not None and value > high:
            raise UserError(f"{where}: {name}: {value} is above the largest allowed value {high}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
