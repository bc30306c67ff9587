"""Processes that outlive whoever started them: known by number and start, so that no other is taken for one of them."""

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO


def started_at(pid: int) -> str:
    """When the process began, in words that tell it from any other that had its number; "" where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"
        answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return answer.stdout.strip()
    except (OSError, IndexError):
        return ""


def identify(pid: int) -> dict[str, Any]:
    """What `is_alive` knows the process by."""
    return {"pid": pid, "started": started_at(pid)}


def is_alive(process: dict[str, Any]) -> bool:
    pid, started = process.get("pid"), process.get("started")
    return isinstance(pid, int) and bool(started) and started_at(pid) == started


def start(command: Sequence[str], log: Path, cwd: Path, env: dict[str, str], keep: tuple[int, ...] = ()) -> subprocess.Popen:
    """In a session of its own: neither Ctrl-C nor the end of this process reaches it. keep: file descriptors that it holds."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=env, pass_fds=keep,
            start_new_session=True,
        )  # fmt: skip


def ask_to_stop(process: dict[str, Any]) -> None:
    """SIGTERM, after which it saves."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGTERM)


def end_now(process: dict[str, Any]) -> None:
    """It and all that it started, as far as they stayed in its group."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process["pid"], signal.SIGKILL)


def try_lock(path: Path) -> TextIO | None:
    """The lock until the file is closed, here and in processes that keep it; None where somebody has it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def is_locked(path: Path) -> bool:
    """Whether somebody has the lock."""
    file = try_lock(path)
    if file is not None:
        file.close()
    return file is None
