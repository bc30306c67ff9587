"""One part of a model in diffusers' or transformers' format, whole or not at all."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from meta_animator.errors import UserError


def load_part(kind: Any, folder: Path, what: str = "base model") -> nn.Module:
    """The network of class `kind` in `folder`, in float32.

    Raises UserError where the folder or its config is missing, a file cannot be read, or a weight is missing, unknown or of
    another shape: `from_pretrained` alone would fill such weights at random and go on.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{what} {folder}: no config.json; expected a {kind.__name__} in diffusers format")
    try:
        with _quiet():
            network, facts = kind.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(f"{what} {folder}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    for problem, said in (("missing_keys", "missing"), ("mismatched_keys", "of another shape"), ("unexpected_keys", "unknown")):
        names = sorted(str(name) for name in facts[problem] if not str(name).endswith("position_ids"))
        if names:
            raise UserError(f"{what} {folder}: {len(names)} weights are {said}, the first is {names[0]}")
    return network


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' tables of missing weights and files: the one line of the error says it."""
    reports = [logging.getLogger(name) for name in ("transformers.modeling_utils", "diffusers.models.modeling_utils")]
    before = [report.disabled for report in reports]
    try:
        for report in reports:
            report.disabled = True
        yield
    finally:
        for report, disabled in zip(reports, before, strict=True):
            report.disabled = disabled
