"""What the entry points of a run share: CONFIG.yaml [key=value ...] [--dry-run]."""

import argparse
import os
import sys

from meta_animator.config import describe_fields, load_config, to_yaml
from meta_animator.settings import RunConfig

STARTED_IN = "META_ANIMATOR_STARTED_IN"  # set by scripts/env.sh, which goes to the repository's root: where the user stands


def config_from_arguments(description: str) -> RunConfig | None:
    """The RunConfig of CONFIG.yaml [key=value ...]; with --dry-run it is printed with what it would train, and None."""
    parser = argparse.ArgumentParser(
        description=description, epilog=fields_as_text(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML of the run")
    parser.add_argument("overrides", nargs="*", help="key=value, such as train.max_steps=100")
    parser.add_argument("--dry-run", action="store_true", help="print config, trainable parameters and memory needed, then stop")
    parser.add_argument("--free-memory", type=float, metavar="GIB", help="with --dry-run: whether it is enough, or what helps")
    parser.add_argument("--measure", action="store_true", help="with --dry-run: also take a step on random weights, and compare")
    args = parser.parse_intermixed_args()

    config = load_config(args.config, args.overrides, users_folder())
    if not args.dry_run:
        return config
    if args.measure and "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # glibc's: freed memory is given back and not counted on
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    from meta_animator.stages.checks import check_run
    from meta_animator.stages.dry_run import describe

    notes = [f"note: {note}" for note in check_run(config, dry=True)]
    print(to_yaml(config), describe(config, args.free_memory, args.measure), *notes, sep="\n")
    return None


def users_folder() -> str | None:
    """Where paths on the command line start, if not here."""
    folder = os.environ.get(STARTED_IN, "")
    return folder if os.path.isdir(folder) and not os.path.samefile(folder, os.curdir) else None


def fields_as_text() -> str:
    """All config fields for --help: a line for the key, its type, default and range, and one for the meaning."""
    lines = ["config fields (key: type = default, allowed values):"]
    for key, kind, default, allowed, meaning in describe_fields():
        lines += [f"  {key}: {kind} = {default}{f', {allowed}' if allowed else ''}", f"      {meaning}"]
    return "\n".join(lines)
