"""Networks in transformers' format, for annotators."""

from pathlib import Path
from typing import Any

from torch import nn

from meta_animator.models.backbones.parts import load_part


def load_network(kind: Any, folder: Path, device: str) -> nn.Module:
    """The network of class `kind` in `folder`, in float32, on `device`. Raises UserError where a weight is missing or unknown."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return load_part(kind, folder, "weights").to(device).eval()
