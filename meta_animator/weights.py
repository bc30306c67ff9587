"""Weights as files: safetensors only, matched by name, every key accounted for."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from meta_animator.errors import UserError
from meta_animator.file_kinds import described, kind_of
from meta_animator.files import whole_file


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Raises UserError where `path` cannot be written."""
    try:
        with whole_file(path) as part:
            save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, part, metadata=metadata)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises UserError where the file is missing or is not a safetensors file."""
    with _safetensors(path):
        return load_file(path)


def tensor_names(path: Path) -> list[str]:
    """The names in a safetensors file, without reading the weights. Raises UserError as `load_tensors` does."""
    with _safetensors(path), safe_open(path, "pt") as file:
        return list(file.keys())


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[None]:
    check_safetensors(path)
    try:
        yield
    except SafetensorError as error:
        reason = f"cut off or damaged: {error}"
        raise UserError(f"weights {path}: not a whole safetensors file ({reason}); copy or download it again") from error


def check_safetensors(path: Path) -> None:
    """Raises UserError where a file is missing, or is something else than its name says: what it is, and what to do."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    if (kind := kind_of(path)) not in ("safetensors", ""):
        raise UserError(f"weights {path}: not a safetensors file; it {described(kind)}")


def copy_strict(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy `state` into the tensors of `own`. Raises UserError unless every name and every shape matches."""
    check_names(own, state, what)
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise UserError(f"{what}: {name} has shape {tuple(tensor.shape)}, the model has {tuple(own[name].shape)}")
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def check_names(expected: Iterable[str], found: Iterable[str], what: str) -> None:
    expected, found = set(expected), set(found)
    if missing := sorted(expected - found):
        raise UserError(f"{what}: {len(missing)} weights are missing, the first is {missing[0]}")
    if unknown := sorted(found - expected):
        raise UserError(f"{what}: {len(unknown)} weights are unknown to the model, the first is {unknown[0]}")


def under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights whose names start with `prefix`, without it."""
    return {n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)}


ROUNDING = 2**-7  # relative: what storing weights in half precision or bfloat16 may change
