"""Names of weights in checkpoints of earlier versions, only to be read: "<8 hex digits of names and shapes>:<one value of every
tensor, float16, base64>". Copies in other precisions, bfloat16 too, have the same digits and nearly the same values."""

import base64
import hashlib
import re
import struct
from collections.abc import Mapping

import torch

from meta_animator.fingerprints import LARGEST_HALF
from meta_animator.weights import ROUNDING


def old_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    digest, names = hashlib.sha256(), sorted(state)
    for name in names:
        digest.update(f"{name}{tuple(state[name].shape)};".encode())
    filled = [state[name].detach().reshape(-1) for name in names if state[name].numel()]
    values = [float(tensor[(k + 1) * 2654435761 % len(tensor)]) for k, tensor in enumerate(filled)]
    packed = struct.pack(f"<{len(values)}e", *(max(-LARGEST_HALF, min(value, LARGEST_HALF)) for value in values))
    return f"{digest.hexdigest()[:8]}:{base64.b64encode(packed).decode('ascii')}"


def is_old_fingerprint(name: str) -> bool:
    digits, _, values = name.partition(":")
    try:
        return re.fullmatch("[0-9a-f]{8}", digits) is not None and len(base64.b64decode(values, validate=True)) % 2 == 0
    except ValueError:
        return False


def same_old(one: str, other: str) -> bool:
    """Whether two old names are of the same weights, up to the rounding of half precision. One that is damaged names none."""
    if one.partition(":")[0] != other.partition(":")[0]:
        return False
    try:
        packed = [base64.b64decode(text.partition(":")[2], validate=True) for text in (one, other)]
        a, b = (torch.tensor(struct.unpack(f"<{len(p) // 2}e", p)) for p in packed)
    except (ValueError, struct.error):
        return False
    return a.shape == b.shape and bool(((a - b).abs() <= ROUNDING * torch.maximum(a.abs(), b.abs()) + 1e-6).all())


def short_old(name: str) -> str:
    """For people to compare: structure and values, eight hex digits each."""
    structure, _, values = name.partition(":")
    return f"{structure}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"
