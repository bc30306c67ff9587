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


def config_from_arguments(description: str):
    """The RunConfig of CONFIG.yaml [key=value ...]; with --dry-run it is printed with what it would train, and None."""
    import argparse

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="YAML of the run")
    parser.add_argument("overrides", nargs="*", help="key=value, such as train.max_steps=100")
    parser.add_argument("--dry-run", action="store_true", help="print the config and the trainable parameters, then stop")
    args = parser.parse_intermixed_args()

    from meta_animator.config import load_config, to_yaml

    config = load_config(args.config, args.overrides)
    if not args.dry_run:
        return config
    from meta_animator.stages.dry_run import describe

    print(to_yaml(config), describe(config), sep="\n")
    return None
