"""What follows from the number of a draw alone: its timestep, and whether the image terms of the loss see it."""

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from meta_animator.diffusion.process import Process
from meta_animator.diffusion.randomness import torch_generator
from meta_animator.diffusion.timesteps import training_timesteps
from meta_animator.losses.hybrid import HybridLoss
from meta_animator.settings import TrainConfig


def timesteps_of(draws: Iterable[int], seed: int, process: Process, train: TrainConfig) -> Tensor:
    """(b,), on the CPU; functions of (seed, draw) alone."""
    generators = [torch_generator(seed, "timestep", int(draw)) for draw in draws]
    portion, multiplier = train.timestep_bias_portion, train.timestep_bias_multiplier
    return training_timesteps(generators, process.timestep_bounds, portion, multiplier, train.timestep_shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelGate:
    """Tells the loader which draws the image terms will see: of the others, no pixels need to be read.

    first_draw       the first one of the step from which on the image terms count
    max_noise_level  as in `HybridLoss`
    """

    seed: int
    process: Process
    train: TrainConfig
    first_draw: int
    max_noise_level: float

    @classmethod
    def of(cls, loss: HybridLoss, seed: int, train: TrainConfig, draws_per_step: int) -> "PixelGate | None":
        """None where no step of the run has image terms."""
        if not loss.image_active(train.max_steps - 1):
            return None
        first = loss.start_step * draws_per_step
        return cls(seed=seed, process=loss.process, train=train, first_draw=first, max_noise_level=loss.max_noise_level)

    def __call__(self, draw: int) -> bool:
        if draw < self.first_draw:
            return False
        level = self.process.noise_level(timesteps_of([draw], self.seed, self.process, self.train))
        return bool(level <= self.max_noise_level)
