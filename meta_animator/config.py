"""YAML and key=value overrides to a validated RunConfig. Unknown keys and wrong values are errors of one line."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.settings import RunConfig


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """The run described by `path` (YAML) with `overrides` ("train.max_steps=10") on top.

    `include: other.yaml`, or a list of them, names files whose values come first; paths start at the including file.
    A value replaces the earlier one: lists and {task: strength} as a whole, sections key by key.
    Raises UserError for a missing file, broken YAML, an unknown key, or a value outside its type, choices or bounds.
    """
    config = RunConfig()
    for file, values in _read_files(Path(path), ()):
        config = _merge(config, values, str(file))
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


def _read_files(path: Path, including: tuple[Path, ...]) -> list[tuple[Path, Any]]:
    """(file, its values) of a YAML and what it includes, in the order in which they count."""
    if path.resolve() in including:
        raise UserError(f"config {including[-1]}: include: {path} includes itself; a file may not come round to itself")
    if not path.is_file():
        where = f"config {including[-1]}: include: {path}" if including else f"config {path}"
        raise UserError(f"{where}: no such file; give a YAML such as configs/demo/step0.yaml")
    try:
        values = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"config {path}: not valid YAML ({_first_line(error)})") from error
    if not OmegaConf.is_dict(values):
        raise UserError(f"config {path}: expected sections such as 'train:', found {type(values).__name__}")
    names = values.pop("include", None) or []
    names = [names] if isinstance(names, str) else names
    if (not OmegaConf.is_list(names) and not isinstance(names, list)) or not all(isinstance(n, str) for n in names):
        raise UserError(f"config {path}: include: expected a file name or a list of them, got {names!r}")
    included = [read for name in names for read in _read_files(path.parent / name, (*including, path.resolve()))]
    return [*included, (path, values)]


def describe_fields() -> list[tuple[str, str, str, str, str]]:
    """(key, type, default, allowed values, meaning) of every field, in the order of a resolved config."""
    return _describe(RunConfig(), "")


def _describe(config: Any, prefix: str) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            rows += _describe(value, f"{name}.")
            continue
        about, kind = field.metadata, field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        kind = kind if not isinstance(value, list | dict) else str(field.type)
        low, high = about["low"], about["high"]
        allowed = " | ".join(choice or '""' for choice in about["choices"])
        if low is not None:
            allowed = f"{low:g} to {high:g}" if high is not None else f"{low:g} or more"
        rows.append((name, kind, json.dumps(value), allowed, about["meaning"]))
    return rows


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
    """Dictionaries of free keys (sample.tasks) are replaced, not merged: empty the old one first. `key=` is an empty text, and
    `key=no`, which YAML reads as False, the word where that is a choice."""
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
        elif plain[field.name] is False and "no" in field.metadata["choices"]:
            plain[field.name] = "no"
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
        elif isinstance(names[key], dict) and isinstance(value, dict) and None in value.values():
            bare = next(entry for entry, content in value.items() if content is None)
            hint = "; YAML wants a space after a colon" if ":" in str(bare) else ""
            raise UserError(f"{where}: {prefix}{key}: '{bare}' has no value, expected {{name: value}}{hint}")


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
