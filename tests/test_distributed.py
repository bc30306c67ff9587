"""Two processes on one machine (gloo): the same training as one process with the double batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from meta_animator.config import save_config
from meta_animator.training.checkpoint import list_checkpoints
from meta_animator.weights import load_tensors, read_json

ROOT = Path(__file__).parents[1]
STEPS = 21  # seven of each task
SETTINGS = {
    "train__max_steps": STEPS, "train__checkpoint_every": 100, "train__log_every": 1, "train__learning_rate": 1e-3,
    "train__adam_epsilon": 1e-5, "train__gradient_accumulation_steps": 2, "loss__image_weight": 0.5,
    "loss__face_weight": 0.5, "loss__start_step": 0, "loss__max_noise_level": 0.6, "data__cache_latents": False,
}  # fmt: skip


def launch(config, processes: int, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    path = Path(config.output_dir).with_suffix(".yaml")
    save_config(config, path)
    kept = {k: v for k, v in os.environ.items() if k not in ("ACCELERATE_CONFIG_FILE", "LOCAL_RANK")}
    environment = kept | {"NUM_PROCESSES": str(processes), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
    return subprocess.run(
        [sys.executable, "scripts/launch.py", "scripts/train.py", str(path), *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def end(config) -> dict[str, torch.Tensor]:
    return load_tensors(list_checkpoints(Path(config.output_dir))[-1] / "model.safetensors")


def start_weights(make_config, **settings) -> dict[str, torch.Tensor]:
    from tests import tiny

    return {name: p.detach().clone() for name, p in tiny.make_stage(make_config(**settings))[0].trainable_state().items()}


@pytest.mark.timeout(900)
def test_two_processes_equal_one_with_the_double_batch(make_config):
    one = make_config(name="one", train__batch_size=4, **SETTINGS)
    two = make_config(name="two", train__batch_size=2, **SETTINGS)
    answers = launch(one, 1), launch(two, 2)
    assert [a.returncode for a in answers] == [0, 0], answers[0].stderr[-500:] + answers[1].stderr[-500:]
    begin = start_weights(make_config, **SETTINGS)
    single, double = end(one), end(two)
    assert single.keys() == double.keys() == begin.keys()
    update = torch.cat([(single[n] - begin[n]).flatten() for n in begin])
    difference = torch.cat([(double[n] - single[n]).flatten() for n in begin])
    assert update.norm() > 0.1
    assert difference.norm() / update.norm() <= 1e-4


FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # what accelerate makes of configs/accelerate/fsdp2.yaml


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["control", "motion"])
def test_shared_out_weights_train_as_whole_ones(make_config, stage):
    """Two processes with FSDP2, stopped half-way and continued without it, against one process with the double batch."""
    settings = SETTINGS | {"train__max_steps": 6, "train__ema_decay": 0.5}
    if stage == "motion":
        zero = make_config(name="zero", train__max_steps=1)
        assert launch(zero, 1).returncode == 0
        settings |= {"stage": "motion", "model__control_from": zero.output_dir}
    one = make_config(name="one", train__batch_size=4, **settings)
    half = make_config(name="two", train__batch_size=2, **(settings | {"train__max_steps": 3, "train__preview_every": 3}))
    two = make_config(name="two", train__batch_size=2, **settings)
    answers = launch(one, 1), launch(half, 2, **FSDP2), launch(two, 2)
    assert [a.returncode for a in answers] == [0, 0, 0], "".join(a.stderr[-500:] for a in answers)
    assert "two/previews/step-000003" in " ".join(map(str, Path(half.output_dir).rglob("*")))
    begin = start_weights(make_config, **settings)
    for file in ("model.safetensors", "ema.safetensors"):
        single, shared = (load_tensors(list_checkpoints(Path(c.output_dir))[-1] / file) for c in (one, two))
        assert single.keys() == shared.keys()
        update = torch.cat([(single[n] - begin[n]).flatten() for n in single])
        difference = torch.cat([(shared[n] - single[n]).flatten() for n in single])
        assert update.norm() > 1e-3
        assert difference.norm() / update.norm() <= 1e-4


@pytest.mark.timeout(900)
def test_another_number_of_processes_continues_the_same_order(make_config):
    """Three steps of two processes, then one process with twice the micro-batches, against one process throughout. Without
    image terms: those are means over each micro-batch's gated images."""
    settings = SETTINGS | {"train__gradient_accumulation_steps": 1, "loss__image_weight": 0.0}
    whole = make_config(name="whole", train__batch_size=4, **(settings | {"train__max_steps": 6}))
    first = make_config(name="parts", train__batch_size=2, **(settings | {"train__max_steps": 3}))
    wrong = make_config(name="parts", train__batch_size=2, **(settings | {"train__max_steps": 6}))
    then = make_config(
        name="parts", train__batch_size=2, **(settings | {"train__max_steps": 6, "train__gradient_accumulation_steps": 2})
    )
    assert launch(whole, 1).returncode == launch(first, 2).returncode == 0
    refused = launch(wrong, 1)
    assert refused.returncode == 2 and "was trained with 4 samples per step, now there are 2" in refused.stderr
    assert launch(then, 1).returncode == 0
    begin, one, two = start_weights(make_config, **settings), end(whole), end(then)
    update = torch.cat([(one[n] - begin[n]).flatten() for n in begin])
    difference = torch.cat([(two[n] - one[n]).flatten() for n in begin])
    assert difference.norm() / update.norm() <= 1e-4


@pytest.mark.timeout(900)
def test_tasks_of_their_own_do_not_hang_and_leave_unused_loras_alone(make_config):
    config = make_config(name="own", **(SETTINGS | {"train__max_steps": 1, "data__task_per_rank": True}))
    answer = launch(config, 2)
    assert answer.returncode == 0, answer.stderr[-500:]
    folder = list_checkpoints(Path(config.output_dir))[-1]
    stepped = {name.split(".")[1] for name in load_tensors(folder / "optimizer.safetensors") if name.startswith("lora.")}
    tasks = read_json(folder / "manifest.json")["tasks"]
    assert len(stepped) == 2 < len(tasks), "two ranks have a task each; the third LoRA has no gradient on either"
