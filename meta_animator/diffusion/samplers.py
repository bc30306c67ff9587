"""From noise to data: DDIM (Euler's method with flow), DPM-Solver++(2M), UniPC and LCM, for diffusion and flow alike.

A sampler is a function with the arguments of `ddim`, and its name a line in SAMPLERS: `sample.sampler` takes it from there.
It calls `denoise(x_t, t) -> prediction` with t `(b,)`; guidance, control and windows live inside that callable.
Nothing here tracks gradients.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from meta_animator.diffusion.process import DDPM, Process
from meta_animator.errors import UserError

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Callback: TypeAlias = Callable[[int, Tensor], None]


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x_T: Tensor,
    process: Process,
    timesteps: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Walk from x_T, a state at timesteps[0], to the process's final state (Song et al. 2021, eq. 12 and 16).

    x_T        `b c h w` or `b f c h w`; the result has its shape, in float32 or float64
    timesteps  (n,), falling; each step ends at the next of them, the last at `process.final_scales`.
               With flow and eta = 0 this is Euler's method, and has that name too.
    eta        0 deterministic .. 1 as noisy as the DDPM posterior; its noise comes from `generator`
    callback   called after each step with (step index, state)
    """
    x_t = x_T
    for step, (t, _, end) in enumerate(sampling_steps(process, timesteps)):
        t_batch = batch_of(t, x_t)
        prediction = denoise(x_t, t_batch)
        fresh = _ddim_sigma(process, t, end) * eta if eta > 0 else 0.0
        direction = math.sqrt(max(end[1] ** 2 - fresh**2, 0.0))
        x_0, noise = process.to_x0(prediction, x_t, t_batch), process.to_noise(prediction, x_t, t_batch)
        x_t = end[0] * x_0 + direction * noise
        if fresh > 0:
            x_t = x_t + fresh * _randn_like(x_t, generator)
        if callback is not None:
            callback(step, x_t)
    return x_t


@torch.no_grad()
def dpm_solver_2m(
    denoise: Denoise,
    x_T: Tensor,
    process: Process,
    timesteps: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second order from the previous step's clean estimate (Lu et al. 2022, algorithm 2).

    Deterministic: `eta` and `generator` do nothing. Other arguments and the result as for `ddim`. The first and the last step
    are first order.
    """
    x_t, x_0_before, h_before = x_T, None, 0.0
    steps = sampling_steps(process, timesteps)
    for step, (t, start, end) in enumerate(steps):
        t_batch = batch_of(t, x_t)
        x_0 = process.to_x0(denoise(x_t, t_batch), x_t, t_batch)
        h = _half_log_snr(end) - _half_log_snr(start)
        estimate = x_0
        if x_0_before is not None and step + 1 < len(steps):
            estimate = x_0 + h / (2 * h_before) * (x_0 - x_0_before)
        x_t = end[1] / start[1] * x_t - end[0] * math.expm1(-h) * estimate
        x_0_before, h_before = x_0, h
        if callback is not None:
            callback(step, x_t)
    return x_t


@torch.no_grad()
def unipc(
    denoise: Denoise,
    x_T: Tensor,
    process: Process,
    timesteps: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """UniPC of order 2 (Zhao et al. 2023) by diffusers' UniPCMultistepScheduler, with its defaults.

    Deterministic: `eta` and `generator` do nothing. Other arguments and the result as for `ddim`. With flow, the network is told
    of whole timesteps, as diffusers does it: each cut off to an integer, the first below T.
    """
    scheduler, x_t = _unipc_scheduler(process, timesteps), x_T
    for step, t in enumerate(scheduler.timesteps):
        prediction = denoise(x_t, batch_of(t, x_t))
        x_t = scheduler.step(prediction, t, x_t, return_dict=False)[0]
        if callback is not None:
            callback(step, x_t)
    return x_t


def _unipc_scheduler(process: Process, timesteps: Tensor) -> Any:
    """diffusers' scheduler with the process's noise at these timesteps, which ends where the process ends."""
    from diffusers import UniPCMultistepScheduler

    steps = sampling_steps(process, timesteps)
    if isinstance(process, DDPM):
        betas = 1 - process.alphas_cumprod[1:] / process.alphas_cumprod[:-1]
        betas = torch.cat([1 - process.alphas_cumprod[:1], betas])
        scheduler = UniPCMultistepScheduler(trained_betas=betas.tolist(), prediction_type=process.prediction_type)
        sigmas = [noise / max(signal, LEAST_SIGNAL) for _, (signal, noise), _ in steps]
        last = process.final_scales[1] / process.final_scales[0]
    else:
        scheduler = UniPCMultistepScheduler(
            num_train_timesteps=process.num_train_timesteps, prediction_type="flow_prediction", use_flow_sigmas=True
        )
        sigmas = [min(noise, 1 - BELOW_PURE_NOISE) for _, (_, noise), _ in steps]
        timesteps = torch.tensor(sigmas, dtype=torch.float64) * process.num_train_timesteps
        last = process.final_scales[1]
    scheduler.set_timesteps(len(steps))
    scheduler.sigmas = torch.tensor([*sigmas, last], dtype=torch.float32)
    scheduler.timesteps = timesteps.long()
    scheduler.set_begin_index(0)
    return scheduler


@torch.no_grad()
def lcm(
    denoise: Denoise,
    x_T: Tensor,
    process: Process,
    timesteps: Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, "Latent consistency models", algorithm 3), for networks that were
    distilled for it: data at once from any state, then fresh noise on them, less each time; 4 to 8 steps.

    Noise comes from `generator`; `eta` does nothing. Other arguments and the result as for `ddim`; it ends at the data.
    """
    x_t, steps = x_T, sampling_steps(process, timesteps)
    for step, (t, _, end) in enumerate(steps):
        t_batch, far = batch_of(t, x_t), float(t) * LCM_SCALE / LCM_DATA_STD
        x_0 = process.to_x0(denoise(x_t, t_batch), x_t, t_batch)
        x_0 = far / math.sqrt(far**2 + 1) * x_0 + 1 / (far**2 + 1) * x_t  # the state itself at t = 0
        x_t = x_0 if step + 1 == len(steps) else end[0] * x_0 + end[1] * _randn_like(x_0, generator)
        if callback is not None:
            callback(step, x_t)
    return x_t


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddim": ddim,
    "euler": ddim,
    "dpm_solver_2m": dpm_solver_2m,
    "unipc": unipc,
    "lcm": lcm,
}
LCM_SCALE, LCM_DATA_STD = 10.0, 0.5  # of timesteps, and what consistency models take for the spread of data
# UniPC takes logarithms of the signal, which there is none of in pure noise: of flow, and of diffusion as diffusers has it there
BELOW_PURE_NOISE, LEAST_SIGNAL = 1e-6, 2.0**-12
STOCHASTIC = ("ddim",)  # those that `eta` makes draw more noise; for any other, an `eta` above 0 is refused


def sampler_for(name: str, eta: float = 0.0) -> Callable[..., Tensor]:
    """The sampler of this name. Raises UserError for an unknown one, and for one that cannot use this `eta`."""
    if name not in SAMPLERS:
        raise UserError(f"sample.sampler: '{name}' is not one of {', '.join(map(repr, SAMPLERS))}")
    if eta and name not in STOCHASTIC:
        raise UserError(f"sample.eta: {eta} is for sampler {' or '.join(STOCHASTIC)}; {name} has no use for it, set it to 0")
    return SAMPLERS[name]


def batch_of(t: Tensor, x_t: Tensor) -> Tensor:
    """t for each state, (b,), on its device; a fraction in its precision, since some devices know no float64."""
    return t.to(x_t.device, x_t.dtype if t.is_floating_point() else t.dtype).expand(len(x_t))


def sampling_steps(
    process: Process, timesteps: Tensor
) -> list[tuple[Tensor, tuple[float, float], tuple[float, float]]]:
    """(t, (signal, noise) scales at t, scales where the step from t ends) for each timestep."""
    if timesteps.ndim != 1 or len(timesteps) == 0 or bool((timesteps.diff() >= 0).any()):
        raise ValueError(f"timesteps: expected a falling sequence of shape (n,), got {timesteps}")
    timesteps = timesteps.cpu()
    signal, noise = process.scales(timesteps, torch.float64)
    states = [*zip(signal.tolist(), noise.tolist(), strict=True), process.final_scales]
    return list(zip(timesteps, states[:-1], states[1:], strict=True))


def _ddim_sigma(process: Process, t: Tensor, end: tuple[float, float]) -> float:
    """Standard deviation of the fresh noise at eta = 1 (Song et al. 2021, eq. 16), written for any signal scale."""
    signal, noise = (float(value) for value in process.scales(t, torch.float64))
    kept = (signal * end[1] / (end[0] * noise)) ** 2
    return end[1] * math.sqrt(max(1 - kept, 0.0))


def _half_log_snr(scales: tuple[float, float]) -> float:
    signal, noise = scales
    if signal == 0:
        return -math.inf
    return math.log(signal / noise) if noise > 0 else math.inf


def _randn_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Unit normal noise like x, drawn on the generator's device so that its values do not depend on x's."""
    device = generator.device if generator is not None else x.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
