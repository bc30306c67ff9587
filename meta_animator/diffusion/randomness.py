"""Randomness as a function of (seed, stream, index): the same for any rank, worker, batch split or resume."""

import zlib

import numpy as np
import torch
from torch import Tensor


def rng(seed: int, stream: str, *index: int) -> np.random.Generator:
    """A NumPy generator for one draw of one purpose ("crop", "order", ...)."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), *index])


def torch_generator(seed: int, stream: str, *index: int) -> torch.Generator:
    """A CPU torch generator for one draw of one purpose."""
    state = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *index]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def noise_for(seed: int, draws: Tensor, shape: tuple[int, ...], stream: str = "noise") -> Tensor:
    """Unit normal noise (b, *shape), float32, on the CPU: row k is a function of (seed, draws[k]) alone."""
    return torch.stack([torch.randn(shape, generator=torch_generator(seed, stream, int(d))) for d in draws])
