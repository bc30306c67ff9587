"""Asked to stop (Slurm's SIGTERM, Ctrl-C): note it down, so that the loop can save first."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

from meta_animator.errors import Stopped

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """`number` is the signal that asked this process to stop, or 0. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int, _frame: object) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside the block SIGTERM and SIGINT are only noted. Outside the main thread, where Python has no say, nothing is."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopping_at_once(during: str) -> Iterator[None]:
    """Inside the block SIGTERM and SIGINT raise Stopped: for work that loses little. A second signal ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    request = StopRequest()

    def stop(number: int, frame: object) -> None:
        request.note(number, frame)
        raise Stopped(f"{signal.Signals(number).name} {during}; the same command continues", number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_loop(_worker: int = 0) -> None:
    """For data-loader workers: Ctrl-C and Slurm reach every process, but the loop still needs its batches to save."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def run_to_its_end(command: Sequence[str]) -> None:
    """Run a program, whose failure ends this one too. SIGTERM is passed on to it, and SIGINT, which a terminal sends to it as
    well, is left to it: it may save before it ends.

    Raises SystemExit with its exit code, where that is not 0, and after such a signal always; of what a signal ended, or was
    asked to end, 128 and the signal's number, as shells have it.
    """
    numbers: list[int] = []
    process: subprocess.Popen | None = None

    def pass_on(number: int, _frame: object) -> None:
        numbers.append(number)
        if process is not None and number == signal.SIGTERM:
            process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, pass_on) for number in STOPPING} if main else {}
    try:
        process = subprocess.Popen(command)
        if signal.SIGTERM in numbers:  # before there was anybody to pass it on to
            process.send_signal(signal.SIGTERM)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code or numbers:
        raise SystemExit(128 - code if code < 0 else code or 128 + numbers[0])
