"""How fast a part of a run is here, what it asks of the machine, and how that compares.

python scripts/bench.py train --config configs/demo/step0.yaml --json before.json      # steps of stages 0 to 2
python scripts/bench.py train --config configs/sd15/step0.yaml --synthetic             # random weights: needs no data, no base
python scripts/bench.py train --config configs/demo/step0.yaml --against diffusers     # and a step of diffusers' own script
python scripts/bench.py train --config configs/sd15/step0.yaml --count                 # what a GPU would be asked to do
python scripts/bench.py sample --config configs/sd15/step3.yaml --synthetic            # a step of stage 3, and decoding
python scripts/bench.py cache --config configs/demo/step0.yaml                         # encoding latents
python scripts/bench.py attention --config configs/sd15/step0.yaml                     # which model.attention is the fastest here
python scripts/bench.py prepare --annotators light                                     # preparation, part by part
python scripts/bench.py --compare before.json after.json

key=value after the config as everywhere. Nothing is left behind but puppets and cached latents, as of a run.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from meta_animator.cli import run
from meta_animator.config import idle_settings, load_config
from meta_animator.entry import users_folder
from meta_animator.errors import UserError
from meta_animator.json_files import write_json

COMMANDS = ("train", "sample", "cache", "attention", "prepare")
SIDE = 512  # of drawn maps in pixels, where no config says it
RIVALS = ("diffusers", "bare", "published")
REPEATS = {"prepare": 48}  # frames; otherwise as `Options` has it
ONLY = {  # which commands an option is for
    **dict.fromkeys(("annotators", "weights", "input"), "prepare"),
    **dict.fromkeys(("synthetic", "count", "against"), "train sample"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", help=f"{', '.join(COMMANDS)}")
    parser.add_argument("overrides", nargs="*", help="key=value, such as train.batch_size=4")
    parser.add_argument("--config", help="YAML of a run; of prepare only the size is taken (without: 512)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    parser.add_argument("--repeats", type=int, metavar="N", help="steps that are measured (10); of prepare: frames (48)")
    parser.add_argument("--warmup", type=int, metavar="N", help="steps before them (2)")
    parser.add_argument("--synthetic", action="store_true", help="random weights and inputs of the config's shapes")
    parser.add_argument("--count", action="store_true", help="compute nothing: count what a GPU would do, from config files")
    parser.add_argument(
        "--against", metavar="WHOM", default="", help="diffusers (its ControlNet training script, its "
        "AnimateDiffControlNetPipeline), of train also bare (a loop over its modules) or published (what a step of the method's "
        "published code computes), by turns with ours in this process",
    )  # fmt: skip
    parser.add_argument("--annotators", default="", help='of prepare: "light", "full", or "light,mask=sam2"')
    parser.add_argument("--weights", type=Path, metavar="DIR", help="of prepare: a folder with the annotators' files")
    parser.add_argument("--input", type=Path, metavar="FILM", help="of prepare: a film of a person; without, one of a puppet")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="a table of two reports")
    return parser.parse_intermixed_args()


def main() -> None:
    options = parse()
    check(options)
    from meta_animator.benchmark.report import compare, text

    if options.compare:
        print(compare(*options.compare))
        return
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    found = measure(options)
    print(text(found))
    if options.json:
        write_json(options.json, found)


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that say nothing, or do not go together."""
    if options.compare:
        if options.command:
            raise UserError(f"--compare: measures nothing; leave {options.command} out")
        return
    if options.command not in COMMANDS:
        raise UserError(f"'{options.command or ''}': expected one of {', '.join(COMMANDS)}, or --compare A.json B.json")
    if options.against not in ("", *RIVALS):
        raise UserError(f"--against {options.against}: expected {', '.join(RIVALS)}")
    for name, commands in ONLY.items():
        if getattr(options, name) and options.command not in commands.split():
            raise UserError(f"--{name}: is for {' and '.join(commands.split())}")
    if options.command != "prepare" and not options.config:
        raise UserError(f"{options.command}: needs --config CONFIG.yaml, such as configs/demo/step0.yaml")
    if options.command == "prepare" and options.warmup is not None:
        raise UserError("--warmup: is for the other commands; preparation is measured from its first frame on")
    if options.overrides and not options.config:
        raise UserError(f"argument '{options.overrides[0]}': is a setting of a config; name it with --config")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report."""
    config = load_config(options.config, options.overrides, users_folder()) if options.config else None
    if config is not None:
        for note in idle_settings(options.config, options.overrides, config.stage):
            print(f"note: {note}")
    from meta_animator.benchmark import commands
    from meta_animator.benchmark.report import report
    from meta_animator.puppets.dataset import ensure_puppets

    if options.command == "prepare":
        side = config.data.height if config else SIDE
        frames = REPEATS["prepare"] if options.repeats is None else options.repeats
        numbers = commands.prepare(side, frames, options.annotators, options.weights, options.input)
        asked = {"side": side, "frames": frames, "annotators": options.annotators, "input": str(options.input or "")}
    else:
        given = {name: getattr(options, name) for name in ("repeats", "warmup") if getattr(options, name) is not None}
        chosen = commands.Options(synthetic=options.synthetic, count=options.count, against=options.against, **given)
        numbers = commands.measure(options.command, config, chosen, ensure_puppets)
        asked = dataclasses.asdict(chosen)
    return report(options.command, numbers, config, asked)


if __name__ == "__main__":
    run(main)
