"""Numbers that steps log are read late and together: the loop does not wait for the device."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.data.batch import ON_HOST, Batch
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.train import train
from meta_animator.training import optim
from meta_animator.training.engine import Trainer
from meta_animator.training.logs import Later, StepLogs
from meta_animator.training.stage import Mean
from meta_animator.weights import load_tensors

aten = torch.ops.aten
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.is_nonzero)
LOSS = {"loss__image_weight": 0.5, "loss__face_weight": 0.5, "loss__face_region_weight": 2.0, "train__ema_decay": 0.9}


class Waits(TorchDispatchMode):
    """Counts operators whose result depends on values on the device. As the device, on a CPU, counts the memory of what was said
    to lie there, and of all that was computed from it."""

    def __init__(self):
        super().__init__()
        self.there: dict[int, StorageWeakRef] = {}
        self.found: list[str] = []

    def put(self, tensors) -> None:
        for tensor in tensors:
            reference = StorageWeakRef(tensor.untyped_storage())
            self.there[reference.cdata] = reference

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(StorageWeakRef(tensor.untyped_storage()).cdata in self.there for tensor in tensors)
        by_mask = function.overloadpacket is aten.index and any(t.dtype == torch.bool for t in tensors[1:])
        if on_device and (function.overloadpacket in WAITS or by_mask):
            self.found.append(str(function))
        result = function(*args, **(kwargs or {}))
        if on_device:
            self.put(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


@pytest.fixture
def waits(monkeypatch) -> list[list[str]]:
    """For each optimizer step that follows, what waited for the device."""
    steps, original, move = [], Trainer._optimizer_step, Batch.to
    mode = Waits()

    def step(self, stream):
        mode.put(self.stage.parameters())
        mode.found = []
        with mode:
            original(self, stream)
        steps.append(mode.found)

    def to(self, device):
        moved = move(self, device)
        values = {field.name: getattr(moved, field.name) for field in dataclasses.fields(moved) if field.name not in ON_HOST}
        mode.put(value for value in values.values() if isinstance(value, Tensor))
        return moved

    monkeypatch.setattr(Trainer, "_optimizer_step", step)
    monkeypatch.setattr(Batch, "to", to)
    return steps


def test_no_step_waits_for_the_device(make_config, waits):
    train(make_config(train__max_steps=4, train__log_every=4, **LOSS))
    assert waits == [[], [], [], []]


def test_an_optimizer_that_cannot_skip_by_itself_waits_once(make_config, waits, monkeypatch):
    monkeypatch.setattr(optim, "FUSED_ON", ())
    train(make_config(train__max_steps=4, train__log_every=4, **LOSS))
    assert waits == [["aten._local_scalar_dense.default"]] * 4


def test_a_step_is_read_under_the_next_one_or_where_a_line_is_due(make_config, monkeypatch):
    events, forward, read = [], DenoisingStage.forward, StepLogs.read
    monkeypatch.setattr(DenoisingStage, "forward", lambda self, *rest: events.append("forward") or forward(self, *rest))
    monkeypatch.setattr(StepLogs, "read", lambda self: events.append(self.step) or read(self))
    train(make_config(train__max_steps=6, train__log_every=3, train__checkpoint_every=6))
    f = "forward"
    assert events == [f, f, 1, f, 2, 3, f, f, 4, f, 5, 6]


def test_numbers_of_a_step_come_back_as_they_were_logged():
    """float32 becomes the same Python number, alone or beside others; means over micro-batches go by weight."""
    numbers = torch.tensor([0.1, 1 / 3, 5.0, 7.0])
    micro = [
        {"task": "seg", "loss": numbers[0], "face": Mean(numbers[2], torch.tensor(3.0))},
        {"task": "seg", "loss": numbers[1], "face": Mean(numbers[3], 1.0), "extra": 2.0},
    ]
    logs = StepLogs(1, micro, {"gradient_norm": torch.tensor(float("inf")), "learning_rate": 0.125}).read()
    assert logs == {
        "task": "seg", "loss": (float(numbers[0]) + float(numbers[1])) / 2, "face": Mean(5.5, 4.0), "extra": 2.0,
        "gradient_norm": float("inf"), "learning_rate": 0.125,
    }  # fmt: skip
    assert Later(torch.tensor([2.5])).read() == [2.5]


def test_fused_steps_are_those_of_a_loop_over_weights_and_go_on_alike(make_config, monkeypatch):
    """Also continued by the other one, as by a machine without a GPU."""
    ends, settings = {}, {"train__checkpoint_every": 2, "train__learning_rate": 1e-3, "train__adam_epsilon": 1e-4, **LOSS}
    here = ("cpu",)
    for name, kinds in {"plain": ((), ()), "fused": (here, here), "there": ((), here), "back": (here, ())}.items():
        for steps, kind in zip((2, 4), kinds, strict=True):
            monkeypatch.setattr(optim, "FUSED_ON", kind)
            config = make_config(name=name, train__max_steps=steps, **settings)
            train(config)
        folder = list_checkpoints(Path(config.output_dir))[-1]
        ends[name] = {file: load_tensors(folder / f"{file}.safetensors") for file in ("model", "optimizer", "ema")}
    for name in ("fused", "there", "back"):
        for file, plain in ends["plain"].items():
            assert plain.keys() == ends[name][file].keys()
            for key, value in plain.items():
                torch.testing.assert_close(ends[name][file][key], value, rtol=1e-4, atol=1e-6, msg=f"{name} {file} {key}")
