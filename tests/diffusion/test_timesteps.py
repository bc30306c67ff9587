import pytest
import torch
from diffusers import DDIMScheduler

from meta_animator.diffusion.process import Flow
from meta_animator.diffusion.timesteps import flow_timesteps, sampling_timesteps, training_timesteps
from tests.diffusion.gaussian import sd15


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 4, 20, 30, 50, 999])
def test_parity_with_diffusers(spacing, steps):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(steps)
    if spacing == "linspace" and steps == 1:
        theirs.timesteps = torch.tensor([0])
    assert sampling_timesteps(steps, 1000, spacing).tolist() == theirs.timesteps.tolist()


def test_stable_diffusion_steps():
    assert sampling_timesteps(50).tolist() == list(range(981, 0, -20))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="num_inference_steps"):
        sampling_timesteps(0)
    with pytest.raises(ValueError, match="steps_offset"):
        sampling_timesteps(1000)
    with pytest.raises(ValueError, match="spacing"):
        sampling_timesteps(10, spacing="even")


def test_training_timesteps_belong_to_the_sample():
    def generators(seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = training_timesteps(generators([7, 8, 9]), sd15().timestep_bounds)
    assert together.dtype == torch.int64 and together.shape == (3,)
    assert training_timesteps(generators([9]), sd15().timestep_bounds).item() == together[2].item()


@pytest.mark.parametrize(("process", "bounds"), [(sd15(), (0, 999)), (Flow(num_train_timesteps=8), (1, 8))])
def test_training_timesteps_stay_in_bounds(process, bounds):
    t = training_timesteps([torch.Generator().manual_seed(0)] * 4000, process.timestep_bounds)
    assert bounds[0] <= t.min() and t.max() <= bounds[1]
    assert t.double().mean().item() == pytest.approx(sum(bounds) / 2, rel=0.05)


@pytest.mark.parametrize("process", [sd15(), Flow(num_train_timesteps=1000)])
def test_the_noisiest_timesteps_can_be_likelier(process):
    bounds = process.timestep_bounds
    t = training_timesteps([torch.Generator().manual_seed(0)] * 8000, bounds, portion=0.2, multiplier=4.0)
    late = t > bounds[1] - 200
    assert late.double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert bounds[0] <= t.min() < bounds[0] + 5 and t.max() > bounds[1] - 5
    assert t[late].double().mean().item() == pytest.approx(bounds[1] - 99.5, abs=5)
    assert t[~late].double().mean().item() == pytest.approx(bounds[0] + 399.5, abs=15)


def test_without_a_bias_every_timestep_is_drawn_as_before():
    def drawn(**bias):
        return training_timesteps([torch.Generator().manual_seed(s) for s in range(50)], (0, 999), **bias).tolist()

    assert drawn() == drawn(portion=0.3, multiplier=1.0) == drawn(portion=0.0, multiplier=4.0)
    assert drawn() != drawn(portion=0.3, multiplier=4.0)


def test_flow_timesteps_start_at_noise_and_a_shift_stays_there_longer():
    assert flow_timesteps(4).tolist() == [1000, 750, 500, 250]
    shifted = flow_timesteps(4, shift=3.0)
    assert shifted[0] == 1000 and shifted[2].item() == pytest.approx(750)


def test_a_shift_moves_training_timesteps_to_high_noise():
    """Those that were drawn, each moved by itself: none leaves the bounds, and half of them lie above s = 5 / 6."""
    generators = [torch.Generator().manual_seed(k) for k in range(400)]
    plain = training_timesteps(generators, (1, 1000))
    generators = [torch.Generator().manual_seed(k) for k in range(400)]
    moved = training_timesteps(generators, (1, 1000), shift=5.0)
    torch.testing.assert_close(moved, 1000 * 5 * plain / (1000 + 4 * plain))
    assert moved.min() > 0 and moved.max() <= 1000 and moved.median() == pytest.approx(833, abs=20)
