"""What the entry points of a run share: CONFIG.yaml [key=value ...] [--dry-run] [--help [--all]]."""

import argparse
import os
import sys

from meta_animator.config import idle_settings, load_config, to_yaml
from meta_animator.errors import UserError
from meta_animator.fields import all_fields, in_words, sections
from meta_animator.settings import STAGES, RunConfig

STARTED_IN = "META_ANIMATOR_STARTED_IN"  # set by scripts/env.sh, which goes to the repository's root: where the user stands
SHARED = "META_ANIMATOR_SHARED_SETTINGS"  # set by scripts that give all of their stages the same key=value


def config_from_arguments(description: str, *stages: str) -> RunConfig | None:
    """The RunConfig of CONFIG.yaml [key=value ...]; with --dry-run it is printed with what it would train, and None.

    stages   those that --help describes where no CONFIG says which
    """
    fields = fields_as_text(_stages_to_describe(sys.argv[1:], stages))
    parser = argparse.ArgumentParser(
        description=description, epilog=fields, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("config", help="YAML of the run")
    parser.add_argument("overrides", nargs="*", help="key=value, such as train.max_steps=100")
    parser.add_argument("--dry-run", action="store_true", help="print config, trainable parameters and memory needed, then stop")
    parser.add_argument("--free-memory", type=float, metavar="GIB", help="with --dry-run: whether it is enough, or what helps")
    parser.add_argument("--measure", action="store_true", help="with --dry-run: also take a step on random weights, and compare")
    parser.add_argument("--all", action="store_true", help="with --help: the fields of all stages, not only of the config's")
    args = parser.parse_intermixed_args()

    if args.all:
        parser.error("--all goes with --help")
    config = load_config(args.config, args.overrides, users_folder())
    own = [] if os.environ.get(SHARED) else args.overrides
    notes = [f"note: {note}" for note in idle_settings(args.config, own, config.stage)]
    if not args.dry_run:
        if notes and os.environ.get("RANK", "0") == "0":  # of several processes, one says it
            print(*notes, sep="\n")
        return config
    if args.measure and "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # glibc's: freed memory is given back and not counted on
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    from meta_animator.stages.checks import check_run
    from meta_animator.stages.dry_run import describe

    notes += [f"note: {note}" for note in check_run(config, dry=True)]
    print(to_yaml(config, used=True), describe(config, args.free_memory, args.measure), *notes, sep="\n")
    return None


def users_folder() -> str | None:
    """Where paths on the command line start, if not here."""
    folder = os.environ.get(STARTED_IN, "")
    return folder if os.path.isdir(folder) and not os.path.samefile(folder, os.curdir) else None


def _stages_to_describe(arguments: list[str], otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """The stage of the first YAML among the arguments; all with --all."""
    if "--all" in arguments:
        return STAGES
    path = next((text for text in arguments if text.endswith((".yaml", ".yml")) and "=" not in text), None)
    try:
        return (load_config(path, [text for text in arguments if text.startswith("stage=")]).stage,) if path else otherwise
    except UserError:  # which is said when the run is asked for
        return otherwise


def fields_as_text(stages: tuple[str, ...] = STAGES) -> str:
    """The config fields that any of these stages uses, for --help: by section, a line for the key, its type, default, range and
    the stages that use it where not all of these do, and one for the meaning."""
    lines, part = [f"config fields of stage {', '.join(stages)} (key: type = default, allowed values [stages that use it]):"], ""
    for field in all_fields():
        used = [stage for stage in stages if stage in field.stages]
        if not used:
            continue
        if (section := field.key.rpartition(".")[0]) != part:
            lines += ["", f"{section}: {sections()[section]}"]
            part = section
        facts = f"{field.default}{f', {field.allowed}' if field.allowed else ''}"
        marks = "" if len(used) == len(stages) else f" [{in_words(used)}]"
        lines += [f"  {field.key}: {field.kind} = {facts}{marks}", f"      {field.meaning}"]
    return "\n".join(lines)
