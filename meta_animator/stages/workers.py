"""Data-loader processes: how their errors are said, and how they end."""

import contextlib
from collections.abc import Iterator
from typing import Any

from meta_animator.errors import UserError


@contextlib.contextmanager
def closing_workers(loader: Any) -> Iterator[None]:
    """Around the use of `iter(DataLoader(...))`: raises a worker's UserError as one line, and ends the workers."""
    try:
        yield
    except UserError as error:  # a worker's error carries the worker's traceback; its last line is the message
        raise UserError(str(error).strip().splitlines()[-1].split("UserError: ")[-1]) from None
    finally:  # they leave SIGTERM to the loop: left to Python's exit, which sends it and waits, they never end
        if hasattr(loader, "_shutdown_workers"):
            loader._shutdown_workers()
