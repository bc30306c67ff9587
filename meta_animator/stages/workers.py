"""Data-loader processes: how their errors are said, and how they end."""

import contextlib
from collections.abc import Iterator
from typing import Any

from meta_animator.errors import UserError
from meta_animator.training.memory_advice import dead_worker

LOADING_SECONDS = 1800  # for one batch; a process that takes longer hangs


@contextlib.contextmanager
def closing_workers(loader: Any) -> Iterator[None]:
    """Around the use of `iter(DataLoader(...))`: raises a worker's UserError as one line, and one where the loader says that it
    hears nothing of a worker; ends the workers."""
    try:
        yield
    except UserError as error:  # a worker's error carries the worker's traceback; its last line is the message
        raise UserError(str(error).strip().splitlines()[-1].split("UserError: ")[-1]) from None
    except RuntimeError as error:
        if "DataLoader worker" in str(error) and "timed out after" not in str(error):
            raise UserError(dead_worker(error, getattr(loader, "_num_workers", 0))) from error
        if "timed out after" not in str(error):
            raise
        raise UserError(
            f"no batch came for {LOADING_SECONDS} s: a data-loader process hangs, often on a network drive; data.num_workers=0 "
            "shows where; the same command continues from the last checkpoint"
        ) from error
    finally:  # they leave SIGTERM to the loop: left to Python's exit, which sends it and waits, they never end
        if hasattr(loader, "_shutdown_workers"):
            loader._shutdown_workers()
            for worker in loader._workers:  # that hang
                worker.kill()
