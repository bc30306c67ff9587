"""Which of PyTorch's kernels computes attention."""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from meta_animator.errors import UserError

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}  # fmt: skip
OTHERWISE = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)  # who computes what another kernel cannot
MISSING = ("No available kernel", "No viable backend")  # what PyTorch says


@contextlib.contextmanager
def attention_by(kernel: str) -> Iterator[None]:
    """All attention inside is computed by this one of `KERNELS`; "auto": by PyTorch's own choice.

    Raises UserError as soon as a call has shapes, a precision or a device that it cannot do.
    """
    if kernel == "auto":
        yield
        return
    try:
        with sdpa_kernel(KERNELS[kernel]):
            yield
    except RuntimeError as error:
        if not str(error).startswith(MISSING):
            raise
        raise UserError(
            f"model.attention={kernel}: this device cannot compute the run's attention so; take auto, or what "
            "`python scripts/bench.py attention --config ...` finds here"
        ) from error


@contextlib.contextmanager
def attention_preferring(kernel: str, device: torch.device | str, dtype: torch.dtype) -> Iterator[None]:
    """Attention inside is computed by this one of `KERNELS` wherever it can. Some calls it cannot: a VAE's single head is wider
    than the fast kernels take, text encoders have masks and float32. Those go to others.

    Raises UserError where it does not exist on `device` for `dtype`.
    """
    if kernel == "auto":
        yield
        return
    with attention_by(kernel):
        plain = torch.zeros(1, 1, 16, 64, device=device, dtype=dtype)
        F.scaled_dot_product_attention(plain, plain, plain)
    with sdpa_kernel([KERNELS[kernel], *OTHERWISE], set_priority=True):
        yield
