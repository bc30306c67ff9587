"""Averages of weights: each weight by its own steps, on the device that is asked for, and as they were after a resume."""

from pathlib import Path

import pytest
import torch
from torch import nn

from meta_animator.checkpoints.files import list_checkpoints, read_checkpoint
from meta_animator.json_files import read_json, write_json
from meta_animator.stages.train import train
from meta_animator.training.ema import EMA
from meta_animator.weights import load_tensors, save_tensors
from tests import tiny


def parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(3)) for name in ("active", "idle")}


@pytest.mark.parametrize("device", ["", "cpu"])
def test_only_what_was_stepped_is_averaged_and_warms_up(device):
    own = parameters()
    ema = EMA(own, decay=0.99, device=device)
    expected = torch.zeros(3)
    for n in range(5):
        for parameter in own.values():
            parameter.data += 1
        ema.update(["active", "idle"] if n == 4 else ["active"])
        decay = (1 + n) / (10 + n)
        expected = decay * expected + (1 - decay) * own["active"].detach()
    torch.testing.assert_close(ema.shadow["active"], expected)
    torch.testing.assert_close(ema.shadow["idle"], torch.full((3,), 0.9 * 5))
    assert ema.updates == {"active": 5, "idle": 1}
    with ema.applied():
        assert torch.equal(own["active"], ema.shadow["active"])
    assert torch.equal(own["active"], torch.full((3,), 5.0))


def test_loras_of_other_tasks_keep_their_averages(make_config):
    """Three tasks in turns: after two steps, the third LoRA's average is what it started as, never updated."""
    config = make_config(train__max_steps=2, train__ema_decay=0.9)
    begin = {n: p.detach().clone() for n, p in tiny.make_stage(config)[0].trainable_state().items()}
    train(config)
    saved = read_checkpoint(list_checkpoints(Path(config.output_dir))[-1])
    counts = {name.split(".")[1]: n for name, n in saved.ema_updates.items() if name.startswith("lora.")}
    assert sorted(counts.values()) == [1, 1] and set(saved.ema_updates.values()) == {1, 2}
    idle = [name for name in begin if name.startswith("lora.") and name.split(".")[1] not in counts]
    assert idle and all(torch.equal(saved.ema[name], begin[name]) for name in idle)


def test_a_checkpoint_with_one_count_for_all_weights_still_loads(make_config):
    config = make_config(train__max_steps=2, train__ema_decay=0.9, train__checkpoint_every=2)
    train(config)
    folder = list_checkpoints(Path(config.output_dir))[-1]
    kept = {k: v for k, v in load_tensors(folder / "optimizer.safetensors").items() if not k.endswith("/ema_updates")}
    save_tensors(kept, folder / "optimizer.safetensors")
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), "ema_updates": 2})
    train(make_config(train__max_steps=3, train__ema_decay=0.9, train__checkpoint_every=2))
    saved = read_checkpoint(list_checkpoints(Path(config.output_dir))[-1])
    assert saved.step == 3 and set(saved.ema_updates.values()) == {2, 3}
