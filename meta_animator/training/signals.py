"""Asked to stop (Slurm's SIGTERM, Ctrl-C): note it down, so that the loop can save first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

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


def leave_signals_to_the_loop(_worker: int = 0) -> None:
    """For data-loader workers: Ctrl-C and Slurm reach every process, but the loop still needs its batches to save."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
