"""From data to the noise that DDIM would turn into it."""

import torch
from torch import Tensor

from meta_animator.diffusion.process import Process
from meta_animator.diffusion.samplers import Callback, Denoise, batch_of, sampling_steps


@torch.no_grad()
def ddim_inversion(
    denoise: Denoise,
    x_0: Tensor,
    process: Process,
    timesteps: Tensor,
    fixed_point_iterations: int = 0,
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """x_T such that `ddim(denoise, x_T, process, timesteps)` gives x_0, shaped like x_0.

    One DDIM step is x_s = A x_t + B prediction(x_t, t). Going back needs the prediction at the unknown x_t:
    plain inversion (fixed_point_iterations = 0) takes it at x_s instead (Song et al. 2021, section 4.3), each iteration
    takes it anew at the latest x_t (Pan et al. 2023, AIDI). Where the iteration contracts, the result is exact.

    timesteps  (n,), falling: the same as for `ddim`
    tolerance  a step's iterations stop once the largest change of any value is below this; 0 always makes all of them
    callback   called after each step with (step index from the clean end, state)
    """
    if fixed_point_iterations < 0:
        raise ValueError(f"fixed_point_iterations: expected 0 or more, got {fixed_point_iterations}")
    x = x_0
    for step, (t, _, end) in enumerate(reversed(sampling_steps(process, timesteps))):
        x_s, t_batch = x, batch_of(t, x)
        for _ in range(1 + fixed_point_iterations):
            before, x = x, _undo_step(process, denoise(x, t_batch), x_s, t_batch, end)
            if tolerance > 0 and float((x - before).abs().max()) < tolerance:
                break
        if callback is not None:
            callback(step, x)
    return x


def _undo_step(process: Process, prediction: Tensor, x_s: Tensor, t: Tensor, end: tuple[float, float]) -> Tensor:
    """x_t of x_s = A x_t + B prediction. The step is linear: A and B are read off it with the other input at zero."""

    def forward(prediction: Tensor, x_t: Tensor) -> Tensor:
        return end[0] * process.to_x0(prediction, x_t, t) + end[1] * process.to_noise(prediction, x_t, t)

    one = x_s.new_ones(t.shape + (1,) * (x_s.ndim - 1))
    return (x_s - forward(prediction, torch.zeros_like(x_s))) / forward(torch.zeros_like(one), one)
