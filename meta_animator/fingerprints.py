"""Names of weights: the SHA-256 of their half-precision values, so that a copy in float16 has the name of its original.

What is hashed, tensor by tensor in the sorted order of their names: the text "<name><shape>;", the shape as "(64, 32)" or
"(64,)", in UTF-8, then the values in row-major order as little-endian float16, rounded to nearest; what is beyond +-65504,
infinity too, counts as +-65504, and every NaN as the bits 0x7e00. The name is "sha256:" and 64 hex digits.

Weights that were published in bfloat16 keep their name wherever they are stored. A bfloat16 copy of float32 or float16 weights
is other weights, since it has lost three to five bits of each, and has another name.
"""

import hashlib
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

LARGEST_HALF = 65504.0
CANONICAL_NAN = 0x7E00
AT_ONCE = 2**22  # values on the way, so that no tensor needs a second copy of itself


def fingerprint(state: Mapping[str, Tensor], rounded_to: torch.dtype = torch.float32) -> str:
    """The name of weights on any device, as the head of this file defines it; "" on the meta device, where they have no values.

    rounded_to   the name that a copy in this precision would have
    Some two seconds for a thousand million values on one core.
    """
    if any(weight.is_meta for weight in state.values()):
        return ""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{tuple(state[name].shape)};".encode())
        for some in state[name].detach().reshape(-1).split(AT_ONCE):
            digest.update(_halves(some.to(rounded_to).float().cpu()))
    return f"sha256:{digest.hexdigest()}"


def _halves(values: Tensor) -> np.ndarray:
    """Little-endian float16 of float32 values (n,)."""
    halves = values.clamp(-LARGEST_HALF, LARGEST_HALF).half().numpy()
    if values.sum().isfinite():  # quicker than to ask every value; a sum that overflows only costs the time
        return halves.astype("<f2", copy=False)
    return np.where(np.isnan(halves), np.uint16(CANONICAL_NAN).view(np.float16), halves).astype("<f2", copy=False)


def is_fingerprint(name: str) -> bool:
    return re.fullmatch("sha256:[0-9a-f]{64}", name) is not None


def short(name: str) -> str:
    """A fingerprint for people to compare: its first twelve hex digits."""
    return name.partition(":")[2][:12]
