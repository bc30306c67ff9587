"""Noising processes: how clean data becomes noise, and how a network's prediction is read back.

Shapes: x is `b c h w` or `b f c h w`. t is one timestep for all `()`, one per sample `(b,)`, or one per frame `(b, f)`.
Arithmetic is at least float32: half-precision inputs give float32 results.
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from meta_animator.diffusion.timesteps import Spacing, flow_timesteps, sampling_timesteps

PredictionType = Literal["epsilon", "v_prediction"]
BetaSchedule = Literal["scaled_linear", "linear"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DDPM:
    """Variance-preserving diffusion over integer timesteps 0 .. T-1, where 0 is nearly clean.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

    alphas_cumprod    float (T,), alpha_bar_t, falling
    prediction_type   what the network predicts: the noise, or v (Salimans & Ho 2022, appendix D)
    set_alpha_to_one  where sampling ends: at alpha_bar = 1 if True, at alpha_bar_0 if False (Stable Diffusion 1.5)
    timestep_spacing, steps_offset   where sampling steps lie, see `sampling_timesteps`
    """

    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"
    set_alpha_to_one: bool = False
    timestep_spacing: Spacing = "leading"
    steps_offset: int = 1
    _tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type: expected epsilon or v_prediction, got {self.prediction_type!r}")
        if self.alphas_cumprod.ndim != 1 or not self.alphas_cumprod.is_floating_point():
            raise ValueError(f"alphas_cumprod: expected floats of shape (T,), got {tuple(self.alphas_cumprod.shape)}")
        if self.prediction_type == "epsilon" and not float(self.alphas_cumprod[-1]) > 0:
            raise ValueError("alphas_cumprod: ends at 0, pure noise, where only v_prediction says what the data is")

    @classmethod
    def from_betas(
        cls,
        schedule: BetaSchedule,
        beta_start: float,
        beta_end: float,
        num_train_timesteps: int = 1000,
        prediction_type: PredictionType = "epsilon",
        set_alpha_to_one: bool = False,
        rescale_betas_zero_snr: bool = False,
        timestep_spacing: Spacing = "leading",
        steps_offset: int = 1,
    ) -> "DDPM":
        """The process of a beta schedule. "linear" spaces the betas evenly, "scaled_linear" their square roots.
        With `rescale_betas_zero_snr` it ends in pure noise (Lin et al. 2024, algorithm 1).

        Stable Diffusion 1.5: scaled_linear, 0.00085, 0.012; AnimateDiff's published weights: linear, same ends.
        """
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"expected 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")
        if schedule == "linear":
            betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
        elif schedule == "scaled_linear":
            betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float64) ** 2
        else:
            raise ValueError(f"schedule: expected scaled_linear or linear, got {schedule!r}")
        signal = torch.cumprod(1 - betas, dim=0).sqrt()
        if rescale_betas_zero_snr:
            signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
        return cls(
            alphas_cumprod=signal.square(),
            prediction_type=prediction_type,
            set_alpha_to_one=set_alpha_to_one,
            timestep_spacing=timestep_spacing,
            steps_offset=steps_offset,
        )

    def sampling_timesteps(self, num_inference_steps: int, spacing: Spacing | Literal[""] = "") -> Tensor:
        """Falling timesteps, int64 (n,), as this process wants them sampled, or in another spacing. Raises ValueError for an
        impossible number."""
        return sampling_timesteps(
            num_inference_steps, self.num_train_timesteps, spacing or self.timestep_spacing, self.steps_offset
        )  # fmt: skip

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def timestep_bounds(self) -> tuple[int, int]:
        """The first and the last timestep of training, both included."""
        return 0, self.num_train_timesteps - 1

    @property
    def final_scales(self) -> tuple[float, float]:
        """(signal, noise) scales of the state where sampling ends."""
        alpha_bar = 1.0 if self.set_alpha_to_one else float(self.alphas_cumprod[0])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def scales(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(signal, noise) scales of x_t, each shaped like t, on t's device."""
        if (t.device, dtype) not in self._tables:
            both = self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt()
            self._tables[t.device, dtype] = tuple(table.to(t.device, dtype) for table in both)
        signal, noise = self._tables[t.device, dtype]
        return signal[t], noise[t]

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, shaped like x_0."""
        alpha, sigma = _scales_for(self, t, x_0, noise)
        return alpha * x_0 + sigma * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict at x_t: the noise, or v = alpha noise - sigma x_0."""
        alpha, sigma = _scales_for(self, t, x_0, noise)
        if self.prediction_type == "epsilon":
            return noise.to(alpha.dtype)
        return alpha * noise - sigma * x_0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean data that a prediction implies, shaped like x_t."""
        alpha, sigma = _scales_for(self, t, x_t, prediction)
        if self.prediction_type == "epsilon":
            return (x_t - sigma * prediction) / alpha
        return alpha * x_t - sigma * prediction

    def to_noise(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies, shaped like x_t."""
        alpha, sigma = _scales_for(self, t, x_t, prediction)
        if self.prediction_type == "epsilon":
            return prediction.to(alpha.dtype)
        return alpha * prediction + sigma * x_t

    def noise_level(self, t: Tensor) -> Tensor:
        """noise / sqrt(signal^2 + noise^2) in [0, 1], float32, shaped like t; here sqrt(1 - alpha_bar_t)."""
        return self.scales(t)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """Rectified flow: x_t = (1 - s) x_0 + s noise with s = t / T; the network predicts the velocity noise - x_0.

    Lipman et al. 2023 (conditional optimal-transport path), Liu et al. 2023 (eq. 1); time runs from data to noise here.
    t may be fractional; 0 is clean, T is pure noise.

    shift        of the sampling timesteps: above 1, more steps go to high noise (see `shifted`)
    first_sigma  s of the least noise that a very long row of sampling steps would begin a step at; diffusers' schedulers have
                 1 / T here and end at 0 all the same
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    first_sigma: float = 0.0
    final_scales: ClassVar[tuple[float, float]] = (1.0, 0.0)

    def sampling_timesteps(self, num_inference_steps: int, spacing: Literal[""] = "") -> Tensor:
        """Falling timesteps, float64 (n,), from pure noise. Raises ValueError for an impossible number, or a spacing."""
        if spacing:
            raise ValueError(f"spacing: {spacing} is for diffusion over whole timesteps, flow has its shift")
        return flow_timesteps(num_inference_steps, self.num_train_timesteps, self.shift, self.first_sigma)

    @property
    def timestep_bounds(self) -> tuple[int, int]:
        """The first and the last timestep of training, both included."""
        return 1, self.num_train_timesteps

    def scales(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(signal, noise) scales of x_t, each shaped like t, on t's device."""
        s = t.to(dtype) / self.num_train_timesteps
        return 1 - s, s

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, shaped like x_0."""
        alpha, sigma = _scales_for(self, t, x_0, noise)
        return alpha * x_0 + sigma * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity noise - x_0, the same at every t."""
        return noise - x_0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean data that a velocity implies, shaped like x_t."""
        _, sigma = _scales_for(self, t, x_t, prediction)
        return x_t - sigma * prediction

    def to_noise(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a velocity implies, shaped like x_t."""
        alpha, _ = _scales_for(self, t, x_t, prediction)
        return x_t + alpha * prediction

    def noise_level(self, t: Tensor) -> Tensor:
        """noise / sqrt(signal^2 + noise^2) in [0, 1], float32, shaped like t: equal signal-to-noise ratios have equal levels,
        whatever the process."""
        signal, noise = self.scales(t)
        return noise / torch.hypot(signal, noise)


Process: TypeAlias = DDPM | Flow


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """Clean latents (b ...), the same with noise at timesteps t (b,), and what a network should predict there."""

    latents: Tensor
    x_t: Tensor
    t: Tensor
    target: Tensor

    @classmethod
    def of(cls, process: Process, latents: Tensor, noise: Tensor, t: Tensor) -> "Noised":
        x_t = process.add_noise(latents, noise, t).to(latents.dtype)
        return cls(latents=latents, x_t=x_t, t=t, target=process.target(latents, noise, t))


def _scales_for(process: Process, t: Tensor, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The process's scales in the working precision of two inputs, shaped to broadcast over x from the left."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, other.dtype), torch.float32)
    alpha, sigma = process.scales(t.to(x.device, non_blocking=True), dtype)
    shape = t.shape + (1,) * (x.ndim - t.ndim)
    return alpha.view(shape), sigma.view(shape)
