"""Where a run computes, the first GPU, or the CPU of a machine that has none; and how its inputs come there."""

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from meta_animator.errors import UserError

if TYPE_CHECKING:
    import torch

PATIENCE = 30  # seconds, with a driver


def compute_device() -> "torch.device":
    """cuda or cpu. Raises UserError where there is a GPU that this PyTorch cannot use: a CPU would take days, in silence."""
    import torch

    if reason := unusable():
        raise UserError(reason)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def send(values: "torch.Tensor", device: "torch.device | str") -> "torch.Tensor":
    """A copy on `device`, which the host does not wait for: on its way to a GPU it goes through pinned memory, since of any
    other the driver takes what is large (a batch, its noise) only when its turn has come."""
    if values.device.type == "cpu" and str(device).startswith("cuda"):
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def unusable() -> str:
    """Why the machine's GPUs are not used, in a line; "" where they are, or where there are none."""
    import torch

    if torch.cuda.is_available() or not (gpus := visible_gpus()):
        return ""
    why = f"its CUDA {torch.version.cuda} wants a newer driver" if torch.version.cuda else "it is built for CPUs alone"
    return (
        f"nvidia-smi lists {gpus} GPU{'s' * (gpus > 1)}, but PyTorch {torch.__version__} sees none ({why}?); install one for "
        "this driver (pytorch.org, Get Started), or set CUDA_VISIBLE_DEVICES= to compute on the CPU"
    )


def visible_gpus() -> int:
    """NVIDIA GPUs that a process would see, counted without importing torch."""
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return 0
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return count
    names = [name.strip() for name in chosen.split(",")]
    known = [name for name in names if name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)]
    return min(count, len(known))
