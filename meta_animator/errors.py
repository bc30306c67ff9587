"""The exceptions that entry points turn into a single line and an exit code."""

import errno

OUT_OF_HANDLES = (errno.EMFILE, errno.ENFILE)
MORE_HANDLES = "raise the limit (ulimit -n 4096), or lower data.num_workers"


class UserError(ValueError):
    """Something the user can put right. The message is one line: what is wrong, where, what would be right."""


class Stopped(Exception):
    """A run that a signal asked to stop, and that has saved what it did."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def check_handles(error: BaseException, path: object) -> None:
    """Raises UserError where `error` says that this process, or the machine, has no file handle left: then nothing is known
    of the file `path`, whose opening failed."""
    if getattr(error, "errno", None) in OUT_OF_HANDLES:
        raise UserError(f"{path}: cannot be opened, too many files are open; {MORE_HANDLES}") from error
