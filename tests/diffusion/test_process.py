import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from meta_animator.benchmark.counting import counting
from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.diffusion.process import DDPM, Flow
from meta_animator.diffusion.samplers import ddim
from tests.diffusion.gaussian import noise, sd15

PROCESSES = [sd15("epsilon"), sd15("v_prediction"), Flow()]
T = torch.tensor([1, 500, 999])


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("shape", [(3, 4, 2, 2), (3, 5, 4, 2, 2)])
def test_the_exact_prediction_gives_back_data_and_noise(process, shape):
    x_0, eps = noise(*shape), noise(*shape, seed=1)
    x_t, target = process.add_noise(x_0, eps, T), process.target(x_0, eps, T)
    torch.testing.assert_close(process.to_x0(target, x_t, T), x_0, rtol=0, atol=1e-12)
    torch.testing.assert_close(process.to_noise(target, x_t, T), eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_scalar_t_serves_all_samples_and_a_bft_serves_frames(process):
    x_0, eps = noise(2, 3, 4, 2, 2), noise(2, 3, 4, 2, 2, seed=1)
    alike = process.add_noise(x_0, eps, torch.tensor(300))
    torch.testing.assert_close(alike, process.add_noise(x_0, eps, torch.tensor([300, 300])), rtol=0, atol=0)
    per_frame = process.add_noise(x_0, eps, torch.tensor([[1, 300, 9], [9, 300, 1]]))
    torch.testing.assert_close(per_frame[:, 1], alike[:, 1], rtol=0, atol=0)
    torch.testing.assert_close(per_frame[0, 2], process.add_noise(x_0[0, 2], eps[0, 2], torch.tensor(9)))


def test_half_precision_is_computed_in_float32():
    x_0, eps = noise(1, 4, 2, 2).bfloat16(), noise(1, 4, 2, 2, seed=1).bfloat16()
    x_t = sd15().add_noise(x_0, eps, torch.tensor([500]))
    assert x_t.dtype == torch.float32
    assert sd15().to_x0(eps, x_t, torch.tensor([500])).dtype == torch.float32


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_parity_with_diffusers(schedule, prediction_type):
    ours = DDPM.from_betas(schedule, 0.00085, 0.012, prediction_type=prediction_type)
    theirs = DDPMScheduler(
        beta_schedule=schedule, beta_start=0.00085, beta_end=0.012, prediction_type=prediction_type, clip_sample=False
    )
    torch.testing.assert_close(ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=0, atol=1e-6)
    theirs.alphas_cumprod = ours.alphas_cumprod
    x_0, eps = noise(3, 4, 2, 2), noise(3, 4, 2, 2, seed=1)
    torch.testing.assert_close(ours.add_noise(x_0, eps, T), theirs.add_noise(x_0, eps, T))
    if prediction_type == "v_prediction":
        torch.testing.assert_close(ours.target(x_0, eps, T), theirs.get_velocity(x_0, eps, T))


@pytest.mark.parametrize("steps", [4, 25])
def test_parity_with_diffusers_where_the_schedule_ends_in_pure_noise(steps):
    facts = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    ours = DDPM.from_betas("scaled_linear", 0.00085, 0.012, **facts)
    theirs = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False, **facts
    )
    assert ours.alphas_cumprod[-1] == 0 < sd15().alphas_cumprod[-1]
    torch.testing.assert_close(ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=0, atol=1e-5)
    theirs.alphas_cumprod = ours.alphas_cumprod
    theirs.final_alpha_cumprod = ours.alphas_cumprod[0]
    theirs.set_timesteps(steps)
    x = expected = noise(2, 4, 2, 2).double()
    for t in theirs.timesteps:
        expected = theirs.step(torch.sin(3 * expected) * 0.5, t, expected).prev_sample
    timesteps = ours.sampling_timesteps(steps)
    assert timesteps.tolist() == theirs.timesteps.tolist() and timesteps[0] == 999
    torch.testing.assert_close(ddim(lambda x_t, t: torch.sin(3 * x_t) * 0.5, x, ours, timesteps), expected)
    back = ddim_inversion(lambda x_t, t: 0.1 * x_t, ddim(lambda x_t, t: 0.1 * x_t, x, ours, timesteps), ours, timesteps, 50)
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)


def test_pure_noise_cannot_be_read_back_from_a_noise_prediction():
    with pytest.raises(ValueError, match="only v_prediction"):
        DDPM.from_betas("linear", 0.00085, 0.012, rescale_betas_zero_snr=True)


def test_noise_level_of_the_published_gate():
    theirs = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    level = sd15().noise_level(torch.tensor([0, 124, 999]))
    assert level[1].item() == pytest.approx((1 - theirs.alphas_cumprod[124].item()) ** 0.5, abs=1e-6)
    assert level[1].item() == pytest.approx(0.36958, abs=1e-5)
    assert 0 < level[0] < level[1] < level[2] < 1


def test_flow_identities():
    flow, x_0, eps = Flow(), noise(1, 4, 2, 2), noise(1, 4, 2, 2, seed=1)
    assert torch.equal(flow.add_noise(x_0, eps, torch.tensor([0])), x_0)
    assert torch.equal(flow.add_noise(x_0, eps, torch.tensor([1000])), eps)
    assert torch.equal(flow.target(x_0, eps, torch.tensor([3])), eps - x_0)
    slope = (flow.add_noise(x_0, eps, torch.tensor([600])) - flow.add_noise(x_0, eps, torch.tensor([400]))) / 0.2
    torch.testing.assert_close(slope, flow.target(x_0, eps, torch.tensor([500])))


@pytest.mark.parametrize("k", [0, 124, 125, 600, 999])
def test_equal_signal_to_noise_ratios_have_equal_levels(k):
    """Diffusion at timestep k, and flow where its data are as noisy."""
    signal, sigma = (float(value) for value in sd15().scales(torch.tensor(k), torch.float64))
    flow = Flow().noise_level(torch.tensor(1000 * sigma / (signal + sigma), dtype=torch.float64))
    assert flow.item() == pytest.approx(sd15().noise_level(torch.tensor(k)).item(), rel=1e-6)
    assert Flow().noise_level(torch.tensor([0.0, 1000.0])).tolist() == [0.0, 1.0]


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="schedule"):
        DDPM.from_betas("cosine", 0.00085, 0.012)
    with pytest.raises(ValueError, match="prediction_type"):
        DDPM.from_betas("linear", 0.00085, 0.012, prediction_type="sample")
    with pytest.raises(ValueError, match="beta_start"):
        DDPM.from_betas("linear", 0.012, 0.00085)


def test_tables_are_made_once_for_a_device_and_serve_training_after_sampling():
    """A second look costs two reads; made in inference mode first, the tables take part in a backward pass later."""
    process, t = DDPM.from_betas("scaled_linear", 0.00085, 0.012), torch.tensor([3, 500])
    with torch.inference_mode():
        first = process.scales(t)
    with counting() as counted:
        again = process.scales(t)
    assert counted.operators == {"index": 2} and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    x = torch.ones(2, 3, requires_grad=True)
    process.add_noise(x, torch.zeros(2, 3), t).sum().backward()
    assert torch.allclose(x.grad[:, 0], again[0])
    assert process.scales(t, torch.float64)[0].dtype == torch.float64
