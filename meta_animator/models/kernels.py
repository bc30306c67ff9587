"""The kernels that a run asks PyTorch for."""

import contextlib
from collections.abc import Iterator

import torch

from meta_animator.devices import compute_device
from meta_animator.models.attention import attention_preferring
from meta_animator.models.precision import PRECISIONS
from meta_animator.settings import RunConfig


@contextlib.contextmanager
def kernels_of(config: RunConfig) -> Iterator[None]:
    """What is computed inside takes attention's kernel by `model.attention`, and TF32 by `train.allow_tf32`. Raises UserError
    where the device has no such kernel in the run's precision."""
    kernel, dtype = config.model.attention, PRECISIONS[config.train.mixed_precision]
    with products_in(config.train.allow_tf32), attention_preferring(kernel, compute_device(), dtype):
        yield


@contextlib.contextmanager
def products_in(tf32: bool) -> Iterator[None]:
    """Matrix products of float32 in TF32 or not, where a GPU has it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
