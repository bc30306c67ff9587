"""Which of PyTorch's kernels computes attention."""

import contextlib
from collections.abc import Iterator

from torch.nn.attention import SDPBackend, sdpa_kernel

from meta_animator.errors import UserError

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}  # fmt: skip
MISSING = ("No available kernel", "No viable backend")  # what PyTorch says


@contextlib.contextmanager
def attention_by(kernel: str) -> Iterator[None]:
    """Attention inside is computed by this one of `KERNELS`; "auto": by PyTorch's own choice.

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
