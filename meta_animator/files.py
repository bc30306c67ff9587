"""Files that are whole or absent."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from meta_animator.errors import UserError


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A hidden name beside `path`, with its suffix, to write to; it becomes `path` where the block ends well.

    Folders are made as needed. Raises UserError where the system refuses; then, as after any exception, an older
    `path` is as it was and nothing new is left.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Inside the block no other process is inside a block of this lock file; it waits until the others have left."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
