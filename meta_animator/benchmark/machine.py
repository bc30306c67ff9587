"""On what was measured: device, threads, flags, versions, and how fast it multiplies matrices."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from meta_animator import __version__

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy")
VARIABLES = (  # that change how fast the same code is
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "KMP_BLOCKTIME", "LD_PRELOAD", "MALLOC_CONF",
    "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_LAUNCH_BLOCKING", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
SECONDS = 0.3  # that matrices are multiplied for


def facts(device: torch.device) -> dict[str, Any]:
    """What a measurement depends on beside the code, and which code it was."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(), "processors": os.cpu_count(), "load": _load(),
        "flags": _flags(device), "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "versions": {
            "python": platform.python_version(), "meta_animator": __version__,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            **({"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())} if device.type == "cuda" else {}),
        },
        "revision": revision(),
    }  # fmt: skip


def _flags(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {"instructions": torch.backends.cpu.get_cpu_capability(), "onednn": torch.backends.mkldnn.enabled}
    attention = {"flash": "flash", "mem_efficient": "mem_efficient", "cudnn": "cudnn", "math": "math"}
    return {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark, "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": [name for name, part in attention.items() if getattr(torch.backends.cuda, f"{part}_sdp_enabled")()],
    }  # fmt: skip


def _processor() -> str:
    """As /proc tells it where there is one: "AMD EPYC ..."."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _load() -> float | None:
    """Processes that ran, on average, in the minute before: others than this one make its times longer."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def revision() -> str | None:
    """The commit of the repository around this package, with "+" where files differ from it; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commit, changed = (
            subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def matmul_speed(device: torch.device, dtype: torch.dtype, side: int = 0, seconds: float = SECONDS) -> float:
    """FLOP/s of the best of several products of two square matrices: what this device can do, with the threads it has."""
    side = side or SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best
