"""How every entry point starts and how it ends.

Exit codes: 0 done; 2 something for the user to put right, said in one line on stderr; 130 and 143 stopped by Ctrl-C or
SIGTERM (a training has saved then, and the same command continues it); 141 whoever read the output has left; 1 a bug, with
its traceback.
"""

import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from meta_animator.errors import MORE_HANDLES, OUT_OF_HANDLES

# where torchao is installed, loading diffusers makes these talk of what does not concern a run
NOISY = ("torch.utils._pytree", "torch.utils.cpp_extension", "diffusers.quantizers.torchao.torchao_quantizer")
FULL, FORBIDDEN = "make room there, or name another folder", "check the rights, or name another place"
REFUSED = {  # what a machine refuses and its user can mend
    errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: FULL,
    errno.EROFS: FORBIDDEN, errno.EACCES: FORBIDDEN, errno.EPERM: FORBIDDEN,
    **dict.fromkeys(OUT_OF_HANDLES, MORE_HANDLES),
}  # fmt: skip
BARS = "META_ANIMATOR_BARS"  # set where what is said goes to a file that somebody looks at: bars are drawn there, too
PACKAGE = Path(__file__).resolve().parent
_as_python_has_it = warnings.formatwarning


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit as described above."""
    from meta_animator.errors import Stopped, UserError

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.optim\.lr_scheduler")
    warnings.formatwarning = note
    warnings.filterwarnings("ignore", category=UserWarning, message=".*_stable_hash_for_caching")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        fail(str(error), 2)
    except BrokenPipeError:  # `... | head` has read enough; what Python still flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported for this
            raise
        what = str(error).splitlines()[0].partition(" GPU ")[0].rstrip(".")
        fail(f"{what}; a smaller size or batch takes less, and --dry-run of a stage counts it", 2)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror}; {REFUSED[error.errno]}", 2)
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def note(message: Warning | str, category: type[Warning], filename: str, number: int, line: str | None = None) -> str:
    """How a warning reads: one of ours as a note in one line, others as Python has them."""
    if category is UserWarning and PACKAGE in Path(filename).resolve().parents:
        return f"note: {message}\n"
    return _as_python_has_it(message, category, filename, number, line)


def hide_bars() -> bool | None:
    """tqdm's `disable` for bars that are for people: None hides them where nobody looks."""
    return False if os.environ.get(BARS) else None


def fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
