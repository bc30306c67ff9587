import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler, UniPCMultistepScheduler

from meta_animator.diffusion.inversion import ddim_inversion
from meta_animator.diffusion.process import DDPM, Flow
from meta_animator.diffusion.samplers import SAMPLERS, ddim, dpm_solver_2m, lcm, unipc
from meta_animator.diffusion.timesteps import flow_timesteps, sampling_timesteps
from tests.diffusion.gaussian import MEAN, STD, denoiser, flow_map, noise, sd15

CASES = [
    (sd15("epsilon"), sampling_timesteps(100)),
    (sd15("v_prediction"), sampling_timesteps(100)),
    (sd15("epsilon", set_alpha_to_one=True), sampling_timesteps(100, spacing="trailing")),
    (Flow(), flow_timesteps(100)),
    (sd15("v_prediction", rescale_betas_zero_snr=True), sampling_timesteps(100, spacing="trailing")),  # ends in pure noise
]


def curved(x, t):
    """A denoiser without any structure to lean on."""
    return torch.sin(3 * x + 0.01 * t.view(-1, *[1] * (x.ndim - 1)))


def noisy_data(process, timesteps, z):
    """Standard normal z, spread as the data are at the first timestep."""
    start = tuple(float(s) for s in process.scales(timesteps[0], torch.float64))
    return flow_map(z, (0.0, 1.0), start)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_parity_with_diffusers(prediction_type, set_alpha_to_one, spacing, eta):
    process = sd15(prediction_type, set_alpha_to_one=set_alpha_to_one)
    theirs = DDIMScheduler(
        prediction_type=prediction_type,
        set_alpha_to_one=set_alpha_to_one,
        timestep_spacing=spacing,
        steps_offset=1,
        clip_sample=False,
    )
    theirs.alphas_cumprod = process.alphas_cumprod
    if not set_alpha_to_one:
        theirs.final_alpha_cumprod = process.alphas_cumprod[0]
    theirs.set_timesteps(10)
    x = x_T = noise(2, 3, 4, 4)
    generator = torch.Generator().manual_seed(5)
    for t in theirs.timesteps:
        x = theirs.step(curved(x, t.expand(2)), t, x, eta=eta, generator=generator).prev_sample
    ours = ddim(
        curved, x_T, process, sampling_timesteps(10, 1000, spacing), eta=eta, generator=torch.Generator().manual_seed(5)
    )
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)


def test_dpm_solver_parity_with_diffusers():
    process = sd15()
    theirs = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        final_sigmas_type="sigma_min",
        timestep_spacing="leading",
        steps_offset=1,
    )
    theirs.set_timesteps(12)
    x = x_T = noise(2, 3, 4, 4).float()
    for t in theirs.timesteps:
        x = theirs.step(curved(x, t.expand(2)), t, x).prev_sample
    torch.testing.assert_close(dpm_solver_2m(curved, x_T, process, theirs.timesteps), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_unipc_is_that_of_diffusers_pipelines_with_flow(shift, steps):
    """With the timesteps of a process made as Wan's are: the same states and the same timesteps for the network."""
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    process = Flow(shift=shift, first_sigma=1 / 1000)
    x = x_T = noise(2, 3, 4, 4)
    seen = []
    for t in theirs.timesteps:
        x = theirs.step(curved(x, t.expand(2)), t, x).prev_sample

    def denoise(x, t):
        seen.append(t[0])
        return curved(x, t)

    ours = unipc(denoise, x_T, process, process.sampling_timesteps(steps))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)
    assert torch.equal(torch.stack(seen), theirs.timesteps)


def test_unipc_parity_with_diffusers_under_diffusion():
    process = sd15()
    theirs = UniPCMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", final_sigmas_type="sigma_min",
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    theirs.set_timesteps(12)
    x = x_T = noise(2, 3, 4, 4).float()
    for t in theirs.timesteps:
        x = theirs.step(curved(x, t.expand(2)), t, x).prev_sample
    torch.testing.assert_close(unipc(curved, x_T, process, theirs.timesteps), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "prediction_type"), [(1, "epsilon"), (4, "epsilon"), (7, "epsilon"), (4, "v_prediction"), (50, "v_prediction")]
)
def test_lcm_parity_with_diffusers(steps, prediction_type):
    process = DDPM.from_betas("linear", 0.00085, 0.012, prediction_type=prediction_type)
    theirs = LCMScheduler(beta_schedule="linear", prediction_type=prediction_type)
    theirs.set_timesteps(steps)
    timesteps = process.sampling_timesteps(steps, "lcm")
    assert torch.equal(timesteps, theirs.timesteps)
    x = x_T = noise(2, 3, 4, 4).float()
    generator = torch.Generator().manual_seed(5)
    for t in theirs.timesteps:
        x = theirs.step(curved(x, t.expand(2)), t, x, generator=generator).prev_sample
    ours = lcm(curved, x_T, process, timesteps, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours, x, rtol=2e-3, atol=1e-4)  # theirs has its tables in float32
    with pytest.raises(ValueError, match="51; a latent consistency model takes 1 to 50, best 4 to 8"):
        process.sampling_timesteps(51, "lcm")


@pytest.mark.parametrize(("process", "timesteps"), CASES)
@pytest.mark.parametrize("sampler", [sampler for name, sampler in SAMPLERS.items() if name != "lcm"])
def test_sampling_a_gaussian_gives_its_mean_and_spread(sampler, process, timesteps):
    states = []
    x_T = noisy_data(process, timesteps, noise(8, 3, 2, 16, 16))
    watch = {"generator": torch.Generator(), "callback": lambda step, state: states.append(step)}
    x = sampler(denoiser(process), x_T, process, timesteps, eta=0.0, **watch)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, rel=0.05)
    assert states == list(range(100))


def test_ancestral_sampling_gives_the_same_spread():
    process = sd15()
    generator = torch.Generator().manual_seed(0)
    timesteps = sampling_timesteps(200)
    x_T = noisy_data(process, timesteps, noise(8, 4, 16, 16))
    x = ddim(denoiser(process), x_T, process, timesteps, eta=1.0, generator=generator)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize(("process", "timesteps"), CASES)
def test_the_second_order_is_nearer_to_the_exact_flow(process, timesteps):
    x_T = noise(1, 4, 8, 8)
    start = tuple(float(s) for s in process.scales(timesteps[0], torch.float64))
    exact = flow_map(x_T, start, process.final_scales)
    first, second = (s(denoiser(process), x_T, process, timesteps) - exact for s in (ddim, dpm_solver_2m))
    assert second.abs().max() < 0.8 * first.abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("process", [Flow(shift=3), sd15("epsilon")])
def test_a_network_is_told_of_timesteps_in_the_precision_of_its_input(process, dtype):
    """Apple's GPUs know no float64; whole timesteps stay whole."""
    told = set()

    def denoise(x, t):
        told.add(t.dtype)
        return x

    for sample in SAMPLERS.values():
        sample(denoise, torch.ones(1, 2, dtype=dtype), process, process.sampling_timesteps(3))
    ddim_inversion(denoise, torch.ones(1, 2, dtype=dtype), process, process.sampling_timesteps(3))
    assert told <= {dtype, torch.int64} and (dtype in told) == isinstance(process, Flow)


def test_timesteps_must_fall():
    with pytest.raises(ValueError, match="falling"):
        ddim(curved, noise(1, 1, 2, 2), sd15(), torch.tensor([1, 21]))
