"""Data distributed as N(mean, std^2) per value: its best denoiser and its probability flow have closed forms."""

import torch
from torch import Tensor

from meta_animator.diffusion.process import DDPM, Process

MEAN, STD = 0.7, 0.4


def sd15(prediction_type: str = "epsilon", **options) -> DDPM:
    return DDPM.from_betas("scaled_linear", 0.00085, 0.012, prediction_type=prediction_type, **options)


def denoiser(process: Process):
    """The callable that predicts, at x_t, the target of the posterior mean of (x_0, noise)."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (s.view(-1, *[1] * (x_t.ndim - 1)) for s in process.scales(t, x_t.dtype))
        deviation = (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        return process.target(MEAN + alpha * STD**2 * deviation, sigma * deviation, t)

    return denoise


def flow_map(x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Where the probability-flow ODE takes x between two (signal, noise) scales: the standard score stays."""
    spread = [(alpha**2 * STD**2 + sigma**2) ** 0.5 for alpha, sigma in (start, end)]
    return end[0] * MEAN + (x - start[0] * MEAN) / spread[0] * spread[1]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
