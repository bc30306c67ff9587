"""Weights from files that other projects wrote: safetensors, and PyTorch pickles without running what is in them."""

import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.file_kinds import OTHERS, described, kind_of
from meta_animator.weights import load_tensors

TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU; those below `state_dict` where it has one.

    What the file is counts, not what its name says; where they differ, a note says so. Raises UserError where the file is
    missing, is neither safetensors nor a PyTorch file, or holds no tensor.
    """
    path = Path(path)
    if path.suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        raise UserError(f"weights {path}: expected .safetensors or one of {', '.join(TORCH_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"weights {path}: no such file")
    kind, named = kind_of(path), "safetensors" if path.suffix == ".safetensors" else "torch"
    if kind not in ("safetensors", "torch", "zip", ""):
        raise UserError(f"weights {path}: expected weights; it {described(kind)}")
    if kind in ("safetensors", "torch") and kind != named:
        print(f"note: {path} is {OTHERS[kind][0]}, whatever its name says, and read as one")
        named = kind
    if named == "safetensors":
        return load_tensors(path)
    try:
        content = _load(path)
    except Exception as error:  # a damaged pickle may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"weights {path}: not a whole PyTorch file ({reason}); copy or download it again") from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(f"weights {path}: holds no tensors by name")
    return tensors


def _load(path: Path) -> Any:
    """Checkpoints of PyTorch Lightning hold objects of its own, which `weights_only` refuses: they are left empty."""
    with open(path, "rb") as file:  # given a name, torch.load goes by its ending
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_tensors_only)


class _Left:
    """Stands in for an object of any other class: takes everything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> "_Left":
        return self

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _TensorsOnly(pickle.Unpickler):
    """Knows what tensors are made of, and nothing that could act."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in KNOWN:
            return super().find_class(module, name)
        return _Left


KNOWN = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
}

_tensors_only = types.SimpleNamespace(
    __name__="tensors_only", Unpickler=_TensorsOnly, load=lambda file, **options: _TensorsOnly(file, **options).load()
)
