"""train.compile: the same numbers, one set of graphs for all tasks, the same names. Graphs are counted, and computed as they are;
turning them into machine code is PyTorch's part."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch._dynamo.backends.debugging import aot_eager

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.errors import UserError
from meta_animator.models import compiling
from meta_animator.stages.checks import check_run
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.train import train
from meta_animator.weights import load_tensors, tensor_names
from tests.tiny_wan import wan_config

FAST = {"train__learning_rate": 1e-3, "train__adam_epsilon": 1e-4}  # epsilon: or Adam enlarges what is rounded otherwise
SETTINGS = {"train__max_steps": 4, "train__checkpoint_every": 4, "loss__image_weight": 0.5, "train__preview_every": 2, **FAST}


@pytest.fixture
def graphs(monkeypatch) -> list[int]:
    """How many graphs there were before each forward pass, and at the end; the cache begins empty."""
    made, counts, forward = [], [], DenoisingStage.forward

    def backend(graph, inputs):
        made.append(graph)
        return aot_eager(graph, inputs)

    def counting(self, batch, step):
        if self.config.train.compile:
            counts.append(len(made))
        return forward(self, batch, step)

    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setattr(DenoisingStage, "forward", counting)
    torch._dynamo.reset()
    AcceleratorState._reset_state(True)  # it holds the precision of the first run
    yield counts
    AcceleratorState._reset_state(True)
    torch._dynamo.reset()


def numbers(config) -> list[dict]:
    return [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]


def same_numbers(plain, compiled) -> None:
    exact = plain.train.mixed_precision == "no"  # meters of a half are differences of what rounding makes
    assert len(numbers(plain)) == len(numbers(compiled)) > 1
    for one, other in zip(numbers(plain), numbers(compiled), strict=True):
        assert one.keys() == other.keys() and one.get("task") == other.get("task")
        for name in one.keys() - {"task"} if exact else {"loss"} & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-5 if exact else 1e-2, abs=1e-6), name
    files = [list_checkpoints(Path(config.output_dir))[-1] / "model.safetensors" for config in (plain, compiled)]
    assert tensor_names(files[0]) == tensor_names(files[1])


@pytest.mark.parametrize(
    ("stage", "checkpointing", "precision"),
    [("control", False, "no"), ("control", True, "bf16"), ("motion", True, "no"), ("reference", True, "no")],
)
def test_compiled_blocks_train_alike_with_one_set_of_graphs_for_all_tasks(
    make_config, prepared, graphs, stage, checkpointing, precision
):  # fmt: skip
    settings = {**SETTINGS, "train__gradient_checkpointing": checkpointing, "train__mixed_precision": precision}
    settings |= {} if stage == "control" else {"model__control_from": prepared, "train__train_lora_in_motion": True}
    settings |= {"model__person_lora_rank": 2} if stage == "reference" else {}
    plain, compiled = (make_config(stage, name, train__compile=name, **settings) for name in ("", "regional"))
    train(plain)
    train(compiled)
    same_numbers(plain, compiled)
    assert len({line["task"] for line in numbers(plain) if "task" in line}) == 3
    assert graphs[0] == 0 < graphs[1] and set(graphs[1:]) == {graphs[1]}, "previews, meters and other tasks add none"


def test_a_compiled_run_resumes_bit_for_bit(make_config, graphs):
    settings = {**SETTINGS, "train__compile": "regional", "train__mixed_precision": "bf16", "train__preview_every": 0}
    whole = make_config("control", "whole", **settings)
    train(whole)
    train(make_config("control", "parts", **settings | {"train__max_steps": 2, "train__checkpoint_every": 2}))
    torch._dynamo.reset()
    parts = make_config("control", "parts", **settings)
    train(parts)
    assert numbers(whole) == numbers(parts)
    one, other = (load_tensors(list_checkpoints(Path(c.output_dir))[-1] / "model.safetensors") for c in (whole, parts))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_compiled_blocks_of_wan_train_alike(tiny_wan, moving_data, tmp_path, graphs):
    plain, compiled = (
        wan_config(tmp_path / f"{name}control", tiny_wan, moving_data, "control", train__compile=name, **FAST)
        for name in ("", "regional")
    )
    train(plain)
    train(compiled)
    same_numbers(plain, compiled)
    assert graphs[0] == 0 < graphs[1]


def test_no_compiler_is_one_line(make_config, monkeypatch):
    def nothing():
        raise RuntimeError("No working C++ compiler found\nand so on")

    config = make_config(train__compile="regional")
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", nothing)
    with pytest.raises(UserError, match=r"train.compile: .* \(No working C\+\+ compiler found\); install g\+\+"):
        check_run(config)
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    check_run(config)
