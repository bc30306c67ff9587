"""Asked to stop (Slurm's SIGTERM, Ctrl-C): note it down, so that the loop can save first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

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
