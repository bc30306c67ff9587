"""Work spread over processes, as it comes up: no more of it is waiting than the processes need."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from meta_animator.errors import UserError
from meta_animator.training.signals import leave_signals_to_the_loop

WORTH = 48  # frames for which processes are started
AHEAD = 2  # jobs per process that are given out before their turn


class Pool:
    """Processes that each hold what `make(*arguments)` gave them; a context manager. With fewer than two, this process."""

    def __init__(self, workers: int, make: Callable[..., Any], *arguments: Any) -> None:
        """`make` and `arguments` go to the processes by pickle."""
        self.workers, self.make, self.arguments = workers, make, arguments
        self._own: Any = None
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def map(
        self, method: str, jobs: Sequence[Any], frames: Callable[[Any], int], tell: Callable[[int], None] = lambda frames: None
    ) -> Iterator[tuple[Any, Any]]:
        """(job, answer of `method` of what was made), as they are done. Few frames are done in this process.

        frames  how many there are in a job
        tell    is called with numbers of frames as they are done; by what was made itself where it has an attribute `tell`, and
                is in this process

        Raises what the method raises, and UserError where a process was killed.
        """
        if self.workers < 2 or (self._pool is None and sum(map(frames, jobs)) < WORTH):
            yield from self._map_here(method, jobs, frames, tell)
            return
        waiting: dict[concurrent.futures.Future, Any] = {}
        try:
            for job in jobs:
                waiting[self._started().submit(_do, method, job)] = job
                if len(waiting) >= AHEAD * self.workers:
                    yield from _done(waiting, frames, tell)
            while waiting:
                yield from _done(waiting, frames, tell)
        except BrokenProcessPool:
            few = "take fewer --workers, or smaller films"
            raise UserError(f"one of {self.workers} processes was killed, most likely for want of memory; {few}") from None

    def _map_here(
        self, method: str, jobs: Sequence[Any], frames: Callable[[Any], int], tell: Callable[[int], None]
    ) -> Iterator[tuple[Any, Any]]:
        self._own = self._own if self._own is not None else self.make(*self.arguments)
        told = 0

        def count(number: int) -> None:
            nonlocal told
            told += number
            tell(number)

        self._own.tell = count
        for job in jobs:
            told = 0
            answer = getattr(self._own, method)(job)
            if told < frames(job):
                count(frames(job) - told)
            yield job, answer

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._own is not None and hasattr(self._own, "close"):
            self._own.close()
        if self._pool is not None:
            processes = list(getattr(self._pool, "_processes", {}).values()) if kind is not None else []
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # all files are whole or absent, so that nothing is lost but the work in hand
                with contextlib.suppress(OSError):
                    process.terminate()

    def _started(self) -> concurrent.futures.ProcessPoolExecutor:
        if self._pool is None:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self.workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(self.make, self.arguments)
            )
        return self._pool


_here: list[Any] = []  # what this process made, in a process of a pool


def _start(make: Callable[..., Any], arguments: tuple) -> None:
    leave_signals_to_the_loop()
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _here.append(make(*arguments))


def _do(method: str, job: Any) -> Any:
    return getattr(_here[0], method)(job)


def _done(
    waiting: dict[concurrent.futures.Future, Any], frames: Callable[[Any], int], tell: Callable[[int], None]
) -> Iterator[tuple[Any, Any]]:
    finished, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
    for future in finished:
        job, answer = waiting.pop(future), future.result()
        tell(frames(job))
        yield job, answer
