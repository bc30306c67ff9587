"""Run a script on every device: python scripts/launch.py SCRIPT [arguments of the script ...]

With one process the script simply replaces this one. NUM_PROCESSES, or more than one visible GPU, starts that many
through accelerate's launcher; ACCELERATE_CONFIG_FILE (configs/accelerate has some) describes several nodes, on each of
which MACHINE_RANK, MAIN_PROCESS_IP, MAIN_PROCESS_PORT, NUM_MACHINES and NUM_PROCESSES replace what it says.
The exit code is that of the processes ("ranks"); of their error lines each is shown once; none outlives this one.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from meta_animator.devices import visible_gpus

RANK_LOGS = "META_ANIMATOR_RANK_LOGS"  # set for ranks only: the folder for what they say on stderr
TRACEBACK = "Traceback (most recent call last):"


def main() -> None:
    if RANK_LOGS in os.environ:
        run_rank(Path(os.environ.pop(RANK_LOGS)), sys.argv[1], sys.argv[2:])
        return
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    nodes, gpus = os.environ.get("ACCELERATE_CONFIG_FILE", ""), visible_gpus()
    processes = wanted_processes(gpus)
    if "--dry-run" in sys.argv or (processes == 1 and not nodes):
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    if nodes and not Path(nodes).is_file():
        fail(f"ACCELERATE_CONFIG_FILE={nodes}: no such file; `accelerate config` writes one")
    if not nodes and not gpus:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    options = ["--config_file", nodes, *this_machine()] if nodes else one_machine(processes)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="meta-animator-") as folder:
        sys.exit(run_ranks([*options, "--log_dir", folder, __file__, *sys.argv[1:]], Path(folder)))


def one_machine(processes: int) -> list[str]:
    """Everything that accelerate would otherwise take from a default config file of the user's."""
    return [
        "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--gpu_ids", "all",
        "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
    ]  # fmt: skip


def this_machine() -> list[str]:
    """What differs between the machines of a config file, or between its uses."""
    names = ("machine_rank", "main_process_ip", "main_process_port", "num_machines", "num_processes")
    return [part for name in names if name.upper() in os.environ for part in (f"--{name}", os.environ[name.upper()])]


def wanted_processes(gpus: int) -> int:
    text = os.environ.get("NUM_PROCESSES", "")
    if not text:
        return max(1, gpus)
    if not text.isdecimal() or int(text) < 1:
        fail(f"NUM_PROCESSES={text}: expected a whole number, 1 or more")
    return int(text)


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


# the launcher's side


def run_ranks(arguments: list[str], logs: Path) -> int:
    """Start the ranks and wait for all of them; returns the exit code. `arguments` are those of `accelerate launch`."""
    import logging
    import warnings

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.CRITICAL)  # the launcher's own account of a failure
    warnings.simplefilter("ignore")
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[RANK_LOGS] = str(logs)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")  # seconds for the ranks to save after a signal
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        return report(error.failures, logs)
    except subprocess.CalledProcessError as error:  # accelerate's way for a single process
        return report({0: error}, logs)
    except SignalException as error:
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        fail(f"accelerate could not start the processes: {(str(error).splitlines() or [type(error).__name__])[0]}")
    return 0


def report(failures: dict[int, Any], logs: Path) -> int:
    """Print what the ranks said and rank 0 has not yet shown: error lines, else the first failure's own words."""
    said = {path.stem: path.read_text(errors="replace") for path in sorted(logs.glob("rank-*.log"))}
    shown, errors = set(error_lines(said.get("rank-0", ""))), []
    for text in said.values():
        errors += [line for line in error_lines(text) if line not in errors]
    for line in errors:
        if line not in shown:
            print(line, file=sys.stderr)
    codes = {rank: getattr(f, "exitcode", getattr(f, "returncode", 1)) for rank, f in failures.items()}

    def blame(rank: int) -> tuple:  # a user's error first; last those that were only ended along with the others
        return codes[rank] != 2, codes[rank] == -signal.SIGTERM, TRACEBACK not in said.get(f"rank-{rank}", ""), rank

    rank = min(codes, key=blame)
    code = codes[rank] if codes[rank] > 0 else 128 - codes[rank]
    if not errors:
        own_words = said.get(f"rank-{rank}", "")
        if TRACEBACK in own_words:
            print(TRACEBACK + own_words.rpartition(TRACEBACK)[2], end="", file=sys.stderr)
        elif code > 128:
            print(f"error: process {rank} was ended by {signal.Signals(code - 128).name}", file=sys.stderr)
        else:
            print(f"error: process {rank} ended with exit code {code}\n{own_words[-2000:]}".rstrip(), file=sys.stderr)
    return code


def error_lines(text: str) -> list[str]:
    return [line for line in text.replace("\r", "\n").splitlines() if line.startswith(("error: ", "interrupted: ", "stopped: "))]


# a rank's side


def run_rank(logs: Path, script: str, arguments: list[str]) -> None:
    """Run `script` as one of several. The first rank of a machine speaks for all; the others' stderr goes to a file."""
    end_with_parent()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    log = open(logs / f"rank-{rank}.log", "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    if rank == 0:
        sys.stderr = Tee(sys.stderr, log)
    else:
        os.dup2(log.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception:  # often only the echo of another rank's failure: the launcher decides what is shown
        log.write(traceback.format_exc())
        log.flush()
        sys.exit(1)


def end_with_parent() -> None:
    """Should the launcher vanish (kill -9), this rank ends within a second or so."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if os.getpgid(0) == os.getpid():  # torch gives every rank a process group of its own
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


class Tee:
    """stderr that is also written to a file; everything else it is asked for is the stream's own."""

    def __init__(self, stream: Any, log: Any):
        self.stream, self.log = stream, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


if __name__ == "__main__":
    main()
