"""scripts/launch.py: one process or several, exit codes, what the user sees, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LAUNCH = Path(__file__).parents[1] / "scripts" / "launch.py"

HEADER = """
import os, sys, time
from pathlib import Path
rank, folder = int(os.environ.get("LOCAL_RANK", -1)), Path(sys.argv[1])
"""
SLEEP = "(folder / f'pid-{rank}').write_text(str(os.getpid()))\ntime.sleep(300)\n"


def start(tmp_path: Path, body: str, processes: int | str) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(HEADER + body)
    environment = {k: v for k, v in os.environ.items() if k not in ("ACCELERATE_CONFIG_FILE", "LOCAL_RANK")}
    environment |= {"NUM_PROCESSES": str(processes), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), str(script), str(tmp_path)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(tmp_path: Path, body: str, processes: int | str = 2) -> tuple[int, str, str]:
    process = start(tmp_path, body, processes)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def rank_pids(tmp_path: Path, count: int = 2) -> list[int]:
    """The ranks' process ids, once all of them run."""
    for _ in range(1200):
        found = [path.read_text() for path in tmp_path.glob("pid-*")]
        if len(found) == count and all(found):
            return [int(text) for text in found]
        time.sleep(0.1)
    raise AssertionError("the ranks did not start")


def all_gone(pids: list[int], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_one_process_is_the_script_itself(tmp_path):
    process = start(tmp_path, "print(os.getpid(), rank)\nsys.exit(7)", processes=1)
    out, err = process.communicate(timeout=60)
    assert (out.split(), err, process.returncode) == ([str(process.pid), "-1"], "", 7)


def test_a_wrong_number_of_processes_is_one_line(tmp_path):
    code, _, err = run(tmp_path, "", processes="two")
    assert code == 2 and err == "error: NUM_PROCESSES=two: expected a whole number, 1 or more\n"


def test_ranks_reduce_over_gloo_and_only_the_first_speaks(tmp_path):
    body = """
from accelerate import Accelerator
import torch
accelerator = Accelerator()
total = accelerator.reduce(torch.tensor(float(accelerator.process_index + 1)))
print("sum", total.item(), accelerator.num_processes)
print("a warning", file=sys.stderr)
torch.distributed.destroy_process_group()
"""
    assert run(tmp_path, body) == (0, "sum 3.0 2\n", "a warning\n")


@pytest.mark.parametrize("failing", ["rank >= 0", "rank == 1", "rank == 0"])
def test_a_users_error_is_one_line_with_the_ranks_exit_code(tmp_path, failing):
    body = f"if {failing}:\n    print('error: the same for all', file=sys.stderr)\n    sys.exit(2)\n{SLEEP}"
    code, _, err = run(tmp_path, body)
    assert (code, err) == (2, "error: the same for all\n")


def test_a_bug_shows_one_traceback_and_no_launcher(tmp_path):
    code, _, err = run(tmp_path, "raise KeyError('a bug')")
    assert code == 1 and err.count("Traceback") == 1 and err.rstrip().endswith("KeyError: 'a bug'")
    assert "ChildFailedError" not in err and "accelerate" not in err


def test_a_killed_rank_is_named(tmp_path):
    body = f"import signal\nif rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\n{SLEEP}"
    code, _, err = run(tmp_path, body)
    assert (code, err) == (128 + signal.SIGKILL, "error: process 1 was ended by SIGKILL\n")
    assert all_gone(rank_pids(tmp_path, 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_rank_outlives_the_launcher(tmp_path, number, code):
    """SIGINT is what Ctrl-C sends; SIGKILL leaves the launcher no last word."""
    body = f"try:\n    {SLEEP.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    process = start(tmp_path, body, processes=2)
    pids = rank_pids(tmp_path)
    assert not all_gone(pids, seconds=0.0)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert all_gone(pids)
