"""Where a run computes."""

import os
import warnings

import pytest
import torch

from meta_animator import cli, devices
from meta_animator.data.batch import Batch
from meta_animator.errors import UserError
from meta_animator.stages.dry_run import describe
from meta_animator.training.processes import make_accelerator

NVIDIA_SMI = """#!/bin/sh
echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"
echo "  MIG 1g.10gb     Device  0: (UUID: MIG-1)"
echo "GPU 1: NVIDIA H100 (UUID: GPU-2)"
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A driver that lists two, and a PyTorch that sees none."""
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return program


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [(None, 2), ("0,1", 2), ("1", 1), ("", 0), ("-1", 0), ("0,1,2", 2), ("7", 0), ("NoDevFiles", 0), ("GPU-1", 1)],
)  # fmt: skip
def test_as_many_gpus_as_a_process_would_see(two_gpus, monkeypatch, chosen, seen):
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert devices.visible_gpus() == seen


def test_a_driver_that_does_not_answer_lists_none(two_gpus, monkeypatch):
    two_gpus.write_text("#!/bin/sh\necho 'GPU 0: it failed half-way'\nexit 9\n")
    assert devices.visible_gpus() == 0
    two_gpus.write_text("#!/bin/sh\necho 'GPU 0: it hangs then'\nexec sleep 20\n")
    monkeypatch.setattr(devices, "PATIENCE", 0.1)
    assert devices.visible_gpus() == 0


@pytest.mark.parametrize(("built", "why"), [("13.0", "its CUDA 13.0 wants a newer driver"), (None, "it is built for CPUs alone")])
def test_a_gpu_that_cannot_be_used_is_not_passed_over_in_silence(two_gpus, monkeypatch, built, why):
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(UserError, match=r"nvidia-smi lists 2 GPUs, but PyTorch .* sees none") as refused:
        make_accelerator("no")
    assert f"({why}?)" in str(refused.value) and "CUDA_VISIBLE_DEVICES= to compute on the CPU" in str(refused.value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.compute_device().type == "cpu" and make_accelerator("no").device.type == "cpu"


def test_a_gpu_that_can_be_used_is_taken(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.compute_device().type == "cuda"


def test_a_dry_run_says_so_too(two_gpus, make_config):
    assert "note: nvidia-smi lists 2 GPUs, but PyTorch" in describe(make_config("control"))


def test_a_gpu_that_is_too_small_is_one_line_wherever_that_shows(monkeypatch, capsys):
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def full():
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.00 GiB is free. "
            "See documentation for Memory Management"
        )

    with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
        cli.run(full)
    said = "error: CUDA out of memory. Tried to allocate 2.00 GiB; a smaller size or batch takes less, and --dry-run of a stage "
    assert end.value.code == 2 and capsys.readouterr().err == f"{said}counts it\n"
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match=r"^mine$"):
        cli.run(lambda: (_ for _ in ()).throw(RuntimeError("mine")))


def test_inputs_go_to_a_gpu_through_pinned_memory(monkeypatch):
    done = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (done.append("pinned"), self)[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: (done.append((device, non_blocking)), self)[1])
    pixels = torch.zeros(2, 1, 3, 4, 4)
    Batch(task="dwpose", draws=torch.zeros(2), prompts=[], identities=[], pixels=pixels).to(torch.device("cuda:1"))
    assert done == ["pinned", (torch.device("cuda:1"), True)], "what decides who takes part stays"
    devices.send(pixels, "cpu")
    assert done[2:] == [("cpu", True)]
