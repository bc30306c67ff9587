"""On ComfyUI itself, where COMFYUI_PATH names one: its sampler with our control is our networks' own sampling, in windows too."""

import asyncio
import importlib
import itertools
from pathlib import Path

import pytest
import torch

from meta_animator.models.backbones.ldm import unet_names
from tests import tiny
from tests.comfyui.conftest import COMFYUI, make_network
from tests.comfyui.test_control import Vae, latents_of, pictures

pytestmark = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH names no ComfyUI")
WIDTH, FRAMES, SCALE = 24, 6, 2.5
SIGMAS = torch.tensor([10.0, 5.0, 2.0, 0.8, 0.3, 0.0])


@pytest.fixture(scope="module")
def networks():
    """(control network, UNet, ComfyUI's model with that UNet's weights, ComfyUI's control): two levels, 32 channels."""
    import comfy.model_detection
    import comfy.model_patcher
    import comfy.supported_models

    from meta_animator.comfyui.control import make_control
    from meta_animator.comfyui.folders import Control, fold

    network, unet = make_network(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D",) * 2, layers_per_block=1, attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=WIDTH,
    )  # fmt: skip
    tiny.randomise_zeros(unet.requires_grad_(False), 0.02)
    names = unet_names(unet.state_dict(), 1)
    state = {names[n]: w for n, w in unet.state_dict().items()}
    config = comfy.supported_models.SD15(comfy.model_detection.detect_unet_config(state, ""))
    config.unet_config |= {"num_heads": 2, "dtype": torch.float32}
    model = config.get_model(state).eval().requires_grad_(False)
    model.diffusion_model.load_state_dict(state)
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
    weights = fold(network.base_state(), network.bank.state("dwpose"), 1.0, "x")
    control = make_control(Control(weights=weights, config=dict(network.net.config), condition_range="signed"), "x")
    return network, unet, patcher, control


def texts():
    g = torch.Generator().manual_seed(8)
    return torch.randn(1, 77, WIDTH, generator=g), torch.randn(1, 77, WIDTH, generator=g)


def start():
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(4))


def comfys(patcher, control, strength=0.7, begin=0.2, end=0.8):
    """Latents as ComfyUI gives them, times the VAE's factor."""
    import comfy.sample
    import comfy.samplers

    from meta_animator.comfyui.control import apply

    text, none = texts()
    positive, negative = apply([[text, {}]], [[none, {}]], control, pictures(FRAMES), Vae(), strength, begin, end)
    made = comfy.sample.sample_custom(
        patcher, start(), SCALE, comfy.samplers.sampler_object("euler"), SIGMAS, positive, negative, torch.zeros(FRAMES, 4, 8, 8),
        disable_pbar=True, seed=0,
    )  # fmt: skip
    return made * 0.18215


def ours(network, unet, sampling, strength=0.7, begin=0.2, end=0.8):
    """Euler's method on our control network, whose LoRA is switched on, and diffusers' UNet."""
    network.bank.use("dwpose")
    latents, x = latents_of(pictures(FRAMES)), start() * SIGMAS[0]
    first, last = sampling.percent_to_sigma(begin), sampling.percent_to_sigma(end)
    for sigma, following in itertools.pairwise(SIGMAS):
        t, noises = sampling.timestep(sigma).expand(FRAMES), []
        for text in texts():
            text, more = text.expand(FRAMES, -1, -1), {}
            if last <= sigma <= first:
                down, mid = network(latents, t, text) * strength
                more = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            noises.append(unet(x / (1 + sigma**2) ** 0.5, t, text, **more).sample)
        x = x + (noises[1] + SCALE * (noises[0] - noises[1])) * (following - sigma)
    return x


def test_comfyuis_sampler_makes_our_latents_and_the_control_counts(networks):
    network, unet, patcher, control = networks
    sampling = patcher.model.model_sampling
    expected = ours(network, unet, sampling)
    torch.testing.assert_close(comfys(patcher, control), expected, atol=1e-3, rtol=1e-4)
    assert (expected - ours(network, unet, sampling, strength=0.0)).abs().max() > 0.1
    assert (expected - ours(network, unet, sampling, end=0.3)).abs().max() > 0.003


def test_comfyuis_own_windows(networks):
    windows = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode
    network, unet, patcher, control = networks
    split = windows.execute(patcher, 3, 1, "standard_static", 1, False, "pyramid", 0).args[0]
    expected = ours(network, unet, patcher.model.model_sampling)  # frames are each by themselves in this base
    torch.testing.assert_close(comfys(split, control), expected, atol=1e-3, rtol=1e-4)


def test_animatediff_evolveds_windows(networks):
    import nodes

    folder = next((place for place in (Path(COMFYUI) / "custom_nodes").iterdir() if (place / "animatediff").is_dir()), None)
    if folder is None:
        pytest.skip("AnimateDiff-Evolved is not among the custom_nodes")
    if "ADE_UseEvolvedSampling" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.load_custom_node(str(folder)))
    there = nodes.NODE_CLASS_MAPPINGS
    network, unet, patcher, control = networks
    options = there["ADE_StandardStaticContextOptions"]().create_options(context_length=3, context_overlap=1)[0]
    split = there["ADE_UseEvolvedSampling"]().use_evolved_sampling(patcher, "use existing", context_options=options)[0]
    expected = ours(network, unet, patcher.model.model_sampling)
    torch.testing.assert_close(comfys(split, control), expected, atol=1e-3, rtol=1e-4)
