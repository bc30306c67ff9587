"""Named random streams: the same seed and name give the same numbers in any process."""

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each (seed, name); streams of one seed are independent of each other."""
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
