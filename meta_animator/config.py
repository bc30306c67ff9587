"""YAML and key=value overrides to a validated RunConfig. Unknown keys and wrong values are errors of one line."""

import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import Any, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from meta_animator.errors import UserError
from meta_animator.fields import idle_keys, keys_of, used_values
from meta_animator.files import whole_file
from meta_animator.old_keys import current_key, current_keys
from meta_animator.settings import RunConfig
from meta_animator.values import from_argument, from_yaml, read_yaml

HUB_NAME = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def load_config(
    path: str | Path, overrides: list[str] | tuple[str, ...] = (), started_in: str | Path | None = None
) -> RunConfig:
    """The run described by `path` (YAML) with `overrides` ("train.max_steps=10") on top.

    `include: other.yaml`, or a list of them, names files whose values come first; paths start at the including file.
    A value replaces the earlier one: lists and {task: strength} as a whole, sections key by key. A field's type decides how a
    value is read: a text stands as it is written, be it 007, yes, or in an override `a #1: {b}`.

    started_in   folder where relative paths of the overrides start, if not in the working folder, where those of YAMLs do
    Raises UserError for a missing file, broken YAML, an unknown key, or a value outside its type, choices or bounds.
    """
    config = RunConfig()
    for file, values in _read_files(Path(path), ()):
        config = _updated(config, current_keys(values, str(file)), str(file), "")
        check_values(config, str(file))
    for override in overrides:
        key, found, text = override.partition("=")
        if not found:
            raise UserError(f"argument '{override}': expected key=value, such as train.max_steps=100")
        where = f"argument '{override}'"
        if (now := current_key(key.strip(), text, where)) is None:
            continue
        config = _overridden(config, now[0].split("."), str(now[1]), where, "", started_in)
        check_values(config, where)
    return config


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config; loading it again gives an equal RunConfig."""
    with whole_file(path) as part:
        part.write_text(to_yaml(config), encoding="utf-8")


def idle_settings(path: str | Path, overrides: list[str] | tuple[str, ...], stage: str) -> list[str]:
    """A note on the settings of a YAML, and one on each override, that this stage does not use.

    None on an included file, which may serve several stages, nor on the config.yaml of a run, which names every field.
    """
    idle, values = idle_keys(stage), _read_file(Path(path))
    saved = {field.name for field in dataclasses.fields(RunConfig)} <= values.keys()
    notes = []
    if found := [key for key in keys_of(values) if key in idle and not saved]:
        notes.append(f"{path}: {', '.join(found)}: stage {stage} does not use {'them' if found[1:] else 'it'}")
    unused = [override for override in overrides if not is_used(override, stage)]
    return [*notes, *(f"argument '{override}': stage {stage} does not use it" for override in unused)]


def is_used(override: str, stage: str) -> bool:
    """Whether a stage uses what `key=value` sets."""
    key = override.partition("=")[0].strip()
    return not any(f"{key}.".startswith(f"{name}.") for name in idle_keys(stage))


def _read_files(path: Path, including: tuple[Path, ...]) -> list[tuple[Path, dict]]:
    """(file, its values) of a YAML and what it includes, in the order in which they count."""
    if path.resolve() in including:
        raise UserError(f"config {including[-1]}: include: {path} includes itself; a file may not come round to itself")
    if not path.is_file():
        where = f"config {including[-1]}: include: {path}" if including else f"config {path}"
        raise UserError(f"{where}: no such file; give a YAML such as configs/demo/step0.yaml")
    values = _read_file(path)
    names = values.pop("include", None) or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UserError(f"config {path}: include: expected a file name or a list of them, got {names!r}")
    included = [read for name in names for read in _read_files(path.parent / name, (*including, path.resolve()))]
    return [*included, (path, values)]


def _read_file(path: Path) -> dict:
    """The values of one YAML, with ${...} filled in as OmegaConf does it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = read_yaml(text)
    except UnicodeDecodeError as error:
        raise UserError(f"config {path}: not valid YAML (it is not UTF-8 text)") from error
    except UserError as error:
        raise UserError(f"config {path}: not valid YAML ({error})") from error
    values = {} if values is None else {values: None} if isinstance(values, str) else values
    if not isinstance(values, dict):
        raise UserError(f"config {path}: expected sections such as 'train:', found a {type(values).__name__}")
    if "${" not in text:
        return values
    try:
        return OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config {path}: {getattr(error, 'full_key', None)}: {_first_line(error)}") from error


def to_yaml(config: RunConfig, used: bool = False) -> str:
    """The text of a config; with `used`, without what its stage does not use."""
    values = used_values(config) if used else dataclasses.asdict(config)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=float("inf"))
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)  # as OmegaConf escapes it


def _updated(config: Any, values: Any, where: str, prefix: str) -> Any:
    """A copy of a (section of a) config with the values of a YAML in it."""
    if values is None:
        return config
    if not isinstance(values, dict):
        raise UserError(f"{where}: {prefix.rstrip('.')}: expected a section of keys, found {values!r}")
    fields, changes = {field.name: field for field in dataclasses.fields(config)}, {}
    for key, value in values.items():
        if key not in fields:
            raise _unknown_key(str(key), config, where, prefix)
        old = getattr(config, key)
        if dataclasses.is_dataclass(old):
            changes[key] = _updated(old, value, where, f"{prefix}{key}.")
        else:
            value = _yes_or_no(value, fields[key])
            new = _read(from_yaml, value, fields[key].type, f"{where}: {prefix}{key}")
            changes[key] = _from_there(new, None, may_be_a_name=False) if fields[key].metadata["path"] else new
    return dataclasses.replace(config, **changes)


def _overridden(
    config: Any, keys: list[str], text: str, where: str, prefix: str, started_in: str | Path | None
) -> Any:  # fmt: skip
    """A copy of a (section of a) config with the value of one `key=text` in it; the last keys may be a name in a mapping."""
    key, *rest = keys
    field = next((field for field in dataclasses.fields(config) if field.name == key), None)
    if field is None:
        raise _unknown_key(key, config, where, prefix)
    old = getattr(config, key)
    if dataclasses.is_dataclass(old):
        if rest:
            new = _overridden(old, rest, text, where, f"{prefix}{key}.", started_in)
        else:
            new = _updated(old, _read(lambda value, kind: read_yaml(value), text, None, where), where, f"{prefix}{key}.")
        return dataclasses.replace(config, **{key: new})
    name = f"{where}: {prefix}{key}"
    if rest and get_origin(field.type) is not dict:
        raise UserError(f"{where}: unknown key '{prefix}{'.'.join(keys)}'; '{prefix}{key}' has no keys below it")
    if rest:
        new = _read(from_yaml, {".".join(rest): text.strip() or None}, field.type, name)
    else:
        new = _read(from_argument, _yes_or_no(text, field), field.type, name)
    if field.metadata["path"]:
        new = _from_there(new, started_in, field.metadata["path"] == "name")
    return dataclasses.replace(config, **{key: {**old, **new} if rest else new})


def _read(read: Any, value: Any, kind: Any, where: str) -> Any:
    try:
        return read(value, kind)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _yes_or_no(value: Any, field: dataclasses.Field) -> Any:
    """The other words that YAML has for `no`, where that is a choice, and those for `yes`, where a choice stands for it."""
    word = str(value).strip().lower()
    if "no" in field.metadata["choices"] and word in ("no", "false", "off"):
        return "no"
    return field.metadata["yes"] if field.metadata["yes"] and word in ("yes", "true", "on") else value


def _from_there(value: Any, folder: str | Path | None, may_be_a_name: bool) -> Any:
    """A path, or each of several, as it is to be understood by who stands in `folder`; None: here. `~` is their home."""
    if isinstance(value, list):
        return [_from_there(entry, folder, may_be_a_name) for entry in value]
    if isinstance(value, dict):
        return {_from_there(name, folder, may_be_a_name): entry for name, entry in value.items()}
    if not value or "://" in value:
        return value
    if folder is None:
        return os.path.expanduser(value)
    place = Path(folder) / os.path.expanduser(value)
    reads_as_a_name = re.fullmatch(HUB_NAME, value) and not value.endswith(WEIGHT_FILES)
    return value if may_be_a_name and reads_as_a_name and not place.exists() else str(place)


def _unknown_key(key: str, config: Any, where: str, prefix: str) -> UserError:
    names = [field.name for field in dataclasses.fields(config)]
    near = difflib.get_close_matches(key, _all_keys(RunConfig(), "") + names, n=1, cutoff=0.5)
    hint = f"known: {', '.join(names)}"
    if near:
        hint = f"did you mean '{prefix + near[0] if near[0] in names else near[0]}'?"
    return UserError(f"{where}: unknown key '{prefix}{key}'; {hint}")


def _all_keys(config: Any, prefix: str) -> list[str]:
    keys = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        keys.append(prefix + field.name)
        if dataclasses.is_dataclass(value):
            keys += _all_keys(value, f"{prefix}{field.name}.")
    return keys


def check_values(config: Any, where: str, prefix: str = "") -> None:
    """Raises UserError for a value that its field does not allow."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_values(value, where, f"{name}.")
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
