"""What --dry-run says of memory: the sizes that the shipped configs are sold for, and that the count is what a step takes."""

import contextlib
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from meta_animator.config import load_config
from meta_animator.models.counting import LikeCuda, PeakMemory
from meta_animator.stages.memory import CUDA_ITSELF, GIB, advice, count, give_weights, knobs

STAGE_1 = "configs/sd15/step1.yaml"


@pytest.mark.parametrize(
    ("config", "gib"),
    [
        (STAGE_1, 46), ("configs/sd15/step1_24gb.yaml", 14), ("configs/sd15/step0.yaml", 15), ("configs/sd15/step2.yaml", 15),
        ("configs/sd15/step0_12gb.yaml", 10), ("configs/sd15/step2_8gb.yaml", 8), ("configs/sd15/step3.yaml", 8),
        ("configs/sd15/quickstart/step2_8gb.yaml", 8),
    ],
)  # fmt: skip
def test_shipped_configs_fit_where_they_are_sold_for(config, gib):
    """As counted: without the allowance for what CUDA takes for itself."""
    peak = (count(load_config(config)).total - CUDA_ITSELF) / GIB
    assert gib / 2 < peak <= gib


def test_checkpointing_and_fused_attention_are_counted():
    def settings(*more):
        return load_config(STAGE_1, ["train.batch_size=1", "data.height=256", "data.width=256", *more])

    with_it, without = (count(settings(f"train.gradient_checkpointing={on}")).parts["activations"] for on in ("true", "false"))
    assert with_it < without / 3
    query = torch.empty(2, 8, 4096, 40, device="meta", requires_grad=True)
    with PeakMemory() as memory, LikeCuda() as cuda:
        cuda.backward(torch.nn.functional.scaled_dot_product_attention(query, query, query).mean())
    assert memory.peak < 20 * query.nbytes < 2 * 8 * 4096**2, "no matrix of attention weights"


def test_autocast_is_counted_as_cuda_does_it():
    """Convolutions in half precision, norms in float32, and a gradient in the precision of the weight."""
    conv, norm = torch.nn.Conv2d(8, 8, 1, device="meta"), torch.nn.GroupNorm(2, 8, device="meta")
    x = torch.empty(4, 8, 16, 16, device="meta")
    with LikeCuda() as cuda:
        with torch.autocast("cpu", torch.bfloat16):
            halved = conv(x)
            exact = norm(halved)
        assert (halved.dtype, exact.dtype) == (torch.bfloat16, torch.float32)
        cuda.backward(exact.mean())
    assert conv.weight.grad.dtype == torch.float32


def test_autocast_keeps_half_copies_of_trained_weights_until_it_ends():
    layer, x = torch.nn.Linear(64, 64, bias=False, device="meta"), torch.empty(1, 64, device="meta")

    def peak(region):
        with PeakMemory() as memory, LikeCuda() as cuda, torch.no_grad(), region(cuda), torch.autocast("cpu", torch.bfloat16):
            layer(x), layer(x)
            return memory.live

    assert peak(lambda cuda: contextlib.nullcontext()) < 2 * 64 * 64 <= peak(lambda cuda: cuda.remembering_casts())


def test_a_lora_that_is_trained_is_counted_and_not_the_first():
    """One step of a task whose LoRA is frozen would have no gradient."""
    one = load_config("configs/demo/step0.yaml", ["train.trainable=lora", "train.lora_tasks=[canny]"])
    every = load_config("configs/demo/step0.yaml", ["train.trainable=lora"])
    assert count(one).parts["trained weights"] * 9 == count(every).parts["trained weights"]


def test_advice_is_what_a_run_takes():
    smallest = load_config("configs/demo/step1.yaml", ["data.num_frames=1", "data.height=160", "data.width=96"])
    sizes = [knob for knob in knobs(smallest).values() if "data.height" in knob]
    assert sizes == [{"data.height": 64, "data.width": 32}], "half, in steps of the base's divisor"
    assert not any("data.num_frames" in knob for knob in knobs(smallest).values())
    uncached = load_config("configs/demo/step0.yaml", ["data.cache_latents=false", "data.flip=0.5"])
    assert not any("data.cache_latents" in knob for knob in knobs(uncached).values()), "flipped pictures cannot be cached"


def test_advice_on_clips_of_a_video_transformer():
    wan = load_config("configs/wan/step2.yaml", ["data.clip_frames=17", "loss.image_latent_frames=2"])
    found = list(knobs(wan).values())
    assert {"data.clip_frames": 5} in found and {"loss.image_latent_frames": 1} in found
    photos = list(knobs(load_config("configs/wan/step2.yaml", ["loss.image_weight=0"])).values())
    assert not any("data.clip_frames" in knob or "loss.image_latent_frames" in knob for knob in photos)


def test_what_two_modules_share_stays_one_weight():
    shared = nn.Linear(2, 2, device="meta")
    modules = [nn.ModuleList([shared]), nn.Linear(2, 2, device="meta")]
    modules[1].weight = shared.weight
    give_weights([module for one in modules for module in one.modules()], torch.device("cpu"))
    assert shared.weight is modules[1].weight and not shared.weight.is_meta and not modules[1].bias.is_meta


def test_advice_names_what_helps_most_first():
    config = load_config("configs/demo/step1.yaml", ["data.height=256", "data.width=256"])
    assert advice(config, 100 * GIB) == []
    lines = advice(config, 1 * GIB)
    sizes = [float(re.search(r": (\d+\.\d) GiB", line)[1]) for line in lines]
    assert sizes[:-1] == sorted(sizes[:-1]) and sizes[-1] <= min(sizes)
    assert "train.gradient_checkpointing=true" in lines[0] + lines[1]
    assert lines[-1].endswith("fits")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_measured_step_takes_what_was_counted():
    settings = ["configs/demo/step1.yaml", "train.gradient_checkpointing=true", "data.height=192", "data.width=192"]
    command = [sys.executable, "scripts/train.py", *settings, "--dry-run", "--measure"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured, counted = map(float, re.search(r"weights: (.+) GiB; counted (.+), ", said).groups())
    assert measured > 0.2 and abs(counted / measured - 1) < 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_step_is_measured_where_the_encoders_are_gone():
    """They stay without weights; the step's inputs must not."""
    command = [sys.executable, "scripts/train.py", "configs/demo_wan/step0.yaml", "--dry-run", "--measure"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and "measured on this CPU, one step on random weights: " in answer.stdout, answer.stderr[-2000:]
