"""Which timesteps are trained on and which are sampled at."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing", "linspace", "lcm"]
LCM_STEPS = 50  # of DDIM, between whose timesteps a latent consistency model was distilled


def training_timesteps(
    generators: Sequence[torch.Generator], bounds: tuple[int, int], portion: float = 0.0, multiplier: float = 1.0,
    shift: float = 1.0,
) -> Tensor:  # fmt: skip
    """One timestep per sample, int64 (b,), from the sample's own generator; on the generators' device. Uniform, but those of
    the noisiest `portion` in [0, 1) of them are `multiplier` times as likely (diffusers' timestep bias "later").

    bounds  the first and the last timestep, both included (a process's `timestep_bounds`)
    shift   of a flow, whose last timestep is pure noise: what was drawn is `shifted`, and float32 (b,) unless this is 1
    """
    first, last = bounds
    noisy = last + 1 - round(portion * (last + 1 - first))  # the first of the noisiest
    share = portion * multiplier / (1 - portion + portion * multiplier)

    def draw(generator: torch.Generator) -> Tensor:
        low, high = first, last + 1
        if noisy <= last and multiplier != 1:
            late = torch.rand((), generator=generator, device=generator.device) < share
            low, high = (noisy, high) if late else (low, noisy)
        return torch.randint(low, high, (), generator=generator, device=generator.device)

    timesteps = torch.stack([draw(generator) for generator in generators])
    return timesteps if shift == 1 else last * shifted(timesteps / last, shift)


def sampling_timesteps(
    num_inference_steps: int,
    num_train_timesteps: int = 1000,
    spacing: Spacing = "leading",
    steps_offset: int = 1,
) -> Tensor:
    """Falling timesteps of a diffusion sampler, int64 (num_inference_steps,), as diffusers spells and rounds them.

    leading   multiples of T // n, plus steps_offset (Stable Diffusion 1.5: offset 1, so 50 steps are 981, 961, .., 1)
    trailing  from T - 1 downwards in steps of T / n; linspace: evenly from T - 1 to 0. Both ignore steps_offset.
    lcm       of the 50 steps that latent consistency models were distilled on (999, 979, .., 19), the first of each n-th part
    The first three are named in Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed", table 2; the
    last is that of diffusers' LCMScheduler.
    """
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise ValueError(f"num_inference_steps: expected 1 to {total}, got {n}")
    if spacing == "leading":
        timesteps = torch.arange(n).flip(0) * (total // n) + steps_offset
        if timesteps[0] >= total:
            raise ValueError(f"steps_offset: {steps_offset} puts the first of {n} steps beyond timestep {total - 1}")
        return timesteps
    if spacing == "trailing":
        return (total - torch.arange(n, dtype=torch.float64) * (total / n)).round().long() - 1
    if spacing == "linspace":
        return torch.linspace(0, total - 1, n, dtype=torch.float64).round().long().flip(0)
    if spacing == "lcm":
        if n > LCM_STEPS:
            raise ValueError(f"num_inference_steps: {n}; a latent consistency model takes 1 to {LCM_STEPS}, best 4 to 8")
        return total - 1 - torch.arange(n) * LCM_STEPS // n * (total // LCM_STEPS)
    raise ValueError(f"spacing: expected leading, trailing, linspace or lcm, got {spacing!r}")


def flow_timesteps(
    num_inference_steps: int, num_train_timesteps: int = 1000, shift: float = 1.0, first_sigma: float = 0.0
) -> Tensor:
    """Falling timesteps of a flow sampler, float64 (num_inference_steps,), from T (pure noise) to above 0.

    Even in u from 1 to `first_sigma`, which itself is left out, then `shifted`. With first_sigma = 1 / T these are the steps of
    diffusers' UniPCMultistepScheduler with flow_shift.
    """
    if num_inference_steps < 1 or shift <= 0:
        raise ValueError(f"expected num_inference_steps >= 1 and shift > 0, got {num_inference_steps} and {shift}")
    u = 1 - torch.arange(num_inference_steps, dtype=torch.float64) * (1 - first_sigma) / num_inference_steps
    return num_train_timesteps * shifted(u, shift)


def shifted(u: Tensor, shift: float) -> Tensor:
    """s = shift u / (1 + (shift - 1) u) for shares of noise u in [0, 1]: a shift above 1 moves them to high noise
    (Esser et al. 2024, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)
