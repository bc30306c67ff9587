import pytest
import torch

from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.diffusion.process import Flow
from meta_animator.diffusion.samplers import ddim
from meta_animator.diffusion.timesteps import flow_timesteps, sampling_timesteps
from tests.diffusion.gaussian import MEAN, STD, denoiser, noise, sd15

CASES = [
    (sd15("epsilon"), sampling_timesteps(50)),
    (sd15("v_prediction"), sampling_timesteps(50)),
    (sd15("epsilon", set_alpha_to_one=True), sampling_timesteps(30, spacing="trailing")),
    (Flow(), flow_timesteps(50)),
]


@pytest.mark.parametrize(("process", "timesteps"), CASES)
@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 3, 4, 8, 8)])
def test_inversion_then_ddim_returns_the_data(process, timesteps, shape):
    x_0 = MEAN + STD * noise(*shape)
    plain, exact = (
        ddim(denoiser(process), ddim_inversion(denoiser(process), x_0, process, timesteps, n), process, timesteps)
        for n in (0, 12)
    )
    assert float((exact - x_0).abs().max()) < 1e-6
    assert float((exact - x_0).abs().max()) < float((plain - x_0).abs().max()) < 0.5


def test_inverted_data_looks_like_noise():
    process = sd15()
    x_T = ddim_inversion(denoiser(process), MEAN + STD * noise(4, 4, 16, 16), process, sampling_timesteps(50), 3)
    assert x_T.mean().item() == pytest.approx(0, abs=0.08)
    assert x_T.std().item() == pytest.approx(1, rel=0.1)


def test_a_tolerance_saves_calls_of_the_network():
    process, calls, states = sd15(), [], []

    def counted(x, t):
        calls.append(t)
        return denoiser(process)(x, t)

    ddim_inversion(
        counted, noise(1, 4, 4, 4), process, sampling_timesteps(10), 50, 1e-5, lambda step, x: states.append(step)
    )
    assert 20 <= len(calls) < 10 * 51
    assert states == list(range(10))


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="fixed_point_iterations"):
        ddim_inversion(torch.zeros_like, noise(1, 1, 2, 2), sd15(), sampling_timesteps(2), -1)
