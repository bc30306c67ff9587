"""A model's folder in diffusers' format, here or on the hub, and one part of it, whole or not at all."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from meta_animator.errors import UserError
from meta_animator.file_kinds import described, kind_of
from meta_animator.torch_files import TORCH_SUFFIXES

# model.safetensors, diffusion_pytorch_model.fp16.bin, model-00001-of-00002.safetensors, model.fp16-00001-of-00002.safetensors
WEIGHTS = r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.([A-Za-z0-9_]+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"


def download(name: str) -> Path:
    """The folder of a model on the hub. Raises UserError where there is neither a folder nor such a model."""
    from diffusers import DiffusionPipeline

    if not may_be_on_hub(name):
        raise UserError(f"base model '{name}': no such file or folder here; expected one, or a name on the hub (owner/name)")
    try:
        return Path(DiffusionPipeline.download(name))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"base model '{name}': no such file or folder here, and not to be had from the hub ({reason})") from error


def may_be_on_hub(name: str) -> bool:
    """Whether a name reads as the hub's owner/name, and not as a path. Names of two parts are ambiguous; a folder here
    comes first, and one with an ending is a file."""
    below_a_folder = "/" in name and Path(name).parent.is_dir()
    file = name.endswith((*TORCH_SUFFIXES, ".safetensors"))
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)) and not below_a_folder and not file


def load_part(kind: Any, folder: Path, what: str = "base model", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of class `kind` in `folder`, in `dtype`.

    Raises UserError where the folder or its config is missing, a file cannot be read, or a weight is missing, unknown or of
    another shape: `from_pretrained` alone would fill such weights at random and go on.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{what} {folder}: no config.json; expected a {kind.__name__} in diffusers format")
    variant = check_files(folder, what)
    try:
        with quiet("transformers.modeling_utils", "diffusers.models.modeling_utils"):
            network, facts = kind.from_pretrained(
                folder, torch_dtype=dtype, output_loading_info=True, variant=variant
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(f"{what} {folder}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    for problem, said in (("missing_keys", "missing"), ("mismatched_keys", "of another shape"), ("unexpected_keys", "unknown")):
        names = sorted(str(name) for name in facts[problem] if not str(name).endswith("position_ids"))
        if names:
            raise UserError(f"{what} {folder}: {len(names)} weights are {said}, the first is {names[0]}")
    return network


def check_files(folder: Path, what: str) -> str | None:
    """The variant of the weights in a diffusers or transformers folder that has no others ("fp16"), which a note says; else
    None. Raises UserError for a file of weights that is something else than its name says."""
    names = [file.name for file in folder.iterdir() if re.fullmatch(WEIGHTS, file.name)]
    for name in sorted(names):
        kind, wanted = kind_of(folder / name), "safetensors" if name.endswith(".safetensors") else "torch"
        if kind not in (wanted, "zip", ""):
            raise UserError(f"{what} {folder / name}: {described(kind)}")
    variants = sorted({found for name in names if (found := re.fullmatch(WEIGHTS, name)[1])})
    if not variants or any(not re.fullmatch(WEIGHTS, name)[1] for name in names):
        return None
    chosen = "fp16" if "fp16" in variants else variants[0]
    print(f"note: {folder} has its weights as the variant '{chosen}' only; they are taken")
    return chosen


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Without what these say, such as the libraries' tables of missing weights, where the one line of an error says it."""
    reports = [logging.getLogger(name) for name in loggers]
    before = [report.disabled for report in reports]
    try:
        for report in reports:
            report.disabled = True
        yield
    finally:
        for report, disabled in zip(reports, before, strict=True):
            report.disabled = disabled
