"""Files that are whole or absent."""

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from meta_animator.errors import UserError

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


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
        hold(file)
        yield


def hold(file: IO, wait: bool = True) -> None:
    """Take a file's lock until it is closed. Raises BlockingIOError where another process has it and `wait` is off; on a disk
    that knows no locks, as some of clusters, nothing is held, which is said once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _say_once(f"note: {Path(file.name).parent}: this disk knows no locks; see to it yourself that one run alone writes there")


@functools.cache
def _say_once(text: str) -> None:
    print(text)
