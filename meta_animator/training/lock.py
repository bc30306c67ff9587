"""One run per folder."""

import os
import socket
from pathlib import Path
from typing import TextIO

from meta_animator.errors import UserError
from meta_animator.files import hold


def lock_folder(folder: Path) -> TextIO:
    """Take the folder's lock until the returned file is closed or the process ends, however it ends.

    Raises UserError where another process has it, naming that.
    """
    file = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        hold(file, wait=False)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"{folder}: another run is writing here ({file.read().strip() or 'unknown'}); stop it, or name another output_dir"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    os.register_at_fork(after_in_child=file.close)  # or data-loader processes would hold the lock of a killed run
    return file
