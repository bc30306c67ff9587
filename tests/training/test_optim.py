"""AdamW with momenta in 8 bits: the same trainings, exactly continued, from smaller checkpoints."""

import sys
from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.errors import UserError
from meta_animator.settings import TrainConfig
from meta_animator.stages.train import train
from meta_animator.training.optim import load_named_state, make_optimizer, named_state
from meta_animator.training.stage import ParamGroup
from meta_animator.weights import load_tensors, save_tensors


@pytest.fixture
def eager(monkeypatch):
    """torchao compiles its step, which takes longer than these tests."""
    pytest.importorskip("torchao")
    monkeypatch.setattr("torch.compile", lambda function, **options: function)


def test_eight_bit_state_survives_a_file_and_goes_on_alike(eager, tmp_path):
    def group():
        torch.manual_seed(0)
        return [ParamGroup(name="all", parameters={"net.big": torch.nn.Parameter(torch.randn(64, 64)),
                                                   "net.small": torch.nn.Parameter(torch.randn(7))}, lr=1e-2)]  # fmt: skip

    def steps(optimizer, groups, numbers):
        for n in numbers:
            for parameter in groups[0].parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
            optimizer.step()

    config = TrainConfig(optimizer="adamw8bit")
    whole, parts = group(), group()
    through, first = make_optimizer(whole, config), make_optimizer(parts, config)
    steps(through, whole, range(6))
    steps(first, parts, range(3))
    state = named_state(first, parts)
    assert state["net.big/exp_avg.codes"].dtype == torch.uint8 and state["net.small/exp_avg"].dtype == torch.float32
    save_tensors(state, tmp_path / "optimizer.safetensors")
    second = make_optimizer(parts, config)
    load_named_state(second, parts, load_tensors(tmp_path / "optimizer.safetensors"))
    steps(second, parts, range(3, 6))
    for name, parameter in whole[0].parameters.items():
        assert torch.equal(parameter, parts[0].parameters[name]), name


def test_a_run_with_eight_bits_resumes_bit_for_bit_and_keeps_less(eager, make_config):
    settings = {
        "train__learning_rate": 1e-3, "train__lr_warmup_steps": 3, "train__checkpoint_every": 1, "train__trainable": "lora",
        "model__tasks": "[seg]", "model__lora_rank": 128, "loss__image_weight": 0,
    }  # fmt: skip
    folders = {}
    for name, optimizer, ends in (("whole", "adamw8bit", [2]), ("parts", "adamw8bit", [1, 2]), ("plain", "adamw", [2])):
        for end in ends:
            config = make_config(name=name, train__optimizer=optimizer, train__max_steps=end, **settings)
            train(config)
        folders[name] = list_checkpoints(Path(config.output_dir))[-1]
    states = {name: {file: load_tensors(folder / f"{file}.safetensors") for file in ("model", "optimizer")}
              for name, folder in folders.items()}  # fmt: skip
    for file, whole in states["whole"].items():
        assert all(torch.equal(value, states["parts"][file][name]) for name, value in whole.items())
    update = {k: torch.cat([v.flatten() for v in states[k]["model"].values()]) for k in ("whole", "plain")}
    assert (update["whole"] - update["plain"]).norm() < 0.05 * update["plain"].norm(), "the same training but for rounding"
    large = [name for name in states["whole"]["optimizer"] if name.endswith("exp_avg.codes")]
    assert len(large) > 5
    bytes_of = {k: sum(value.nbytes for value in states[k]["optimizer"].values()) for k in ("whole", "plain")}
    assert bytes_of["whole"] < 0.6 * bytes_of["plain"], "small tensors stay as they are"
    with pytest.raises(UserError, match="its optimizer is adamw8bit, this run's is adamw"):
        train(make_config(name="parts", train__optimizer="adamw", train__max_steps=3, **settings))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(UserError, match="adamw8bit needs one more package: pip install torchao"):
        make_optimizer([], TrainConfig(optimizer="adamw8bit"))
