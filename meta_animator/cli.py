"""How every entry point starts and how it fails: one line on stderr, exit code 2."""

import sys
import warnings
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main`; a UserError becomes one line and exit code 2, Ctrl-C one line and 130. Anything else is a bug."""
    from meta_animator.errors import UserError

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.optim\.lr_scheduler")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)
