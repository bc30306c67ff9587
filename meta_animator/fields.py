"""What there is to set: every field of a RunConfig by its key, and which stages use it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from meta_animator.settings import METHOD, STAGES, TRAINING, RunConfig

GROUPS = {STAGES: "all", TRAINING: "training", (*TRAINING, "sample"): "all but extract", METHOD: "stages 0 to 3"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting: `key` "train.max_steps", `kind` "int", `default` as JSON, `allowed` "1 or more" or "" for anything."""

    key: str
    kind: str
    default: str
    allowed: str
    meaning: str
    stages: tuple[str, ...]


def all_fields() -> list[Field]:
    """Every field in the order of a resolved config."""
    return list(_fields(RunConfig(), "", ()))


def sections() -> dict[str, str]:
    """{"train": what its fields are about, "data.puppets": ...}, in the order of a resolved config."""
    return dict(_sections(RunConfig(), ""))


def idle_keys(stage: str) -> set[str]:
    """The fields that a stage does not use."""
    return {field.key for field in all_fields() if stage not in field.stages}


def used_values(config: RunConfig) -> dict[str, Any]:
    """{section: {name: value}} of a config, without what its stage does not use."""
    return _without(dataclasses.asdict(config), idle_keys(config.stage), "")


def keys_of(values: dict, prefix: str = "") -> Iterator[str]:
    """The keys that a YAML's values set: "train.max_steps" for {"train": {"max_steps": 1}}."""
    for name, value in values.items():
        if f"{prefix}{name}" in sections() and isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def in_words(stages: Iterable[str]) -> str:
    """Several stages in as few words as they have, such as "control, motion" or "all"."""
    chosen = set(stages)
    group = next((words for group, words in GROUPS.items() if set(group) == chosen), None)
    return group or ", ".join(stage for stage in STAGES if stage in chosen)


def _fields(config: Any, prefix: str, stages: tuple[str, ...]) -> Iterator[Field]:
    for field in dataclasses.fields(config):
        value, key, about = getattr(config, field.name), prefix + field.name, field.metadata
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{key}.", about["stages"])
            continue
        kind = field.type.__name__ if isinstance(field.type, type) and not isinstance(value, list | dict) else str(field.type)
        low, high = about["low"], about["high"]
        allowed = " | ".join(choice or '""' for choice in about["choices"])
        if low is not None:
            allowed = f"{low:g} to {high:g}" if high is not None else f"{low:g} or more"
        yield Field(key, kind, json.dumps(value), allowed, about["meaning"], about["stages"] or stages)


def _sections(config: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield prefix + field.name, field.metadata["meaning"]
            yield from _sections(value, f"{prefix}{field.name}.")


def _without(values: dict, idle: set[str], prefix: str) -> dict:
    kept = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in sections():
            if part := _without(value, idle, f"{key}."):
                kept[name] = part
        elif key not in idle:
            kept[name] = value
    return kept
