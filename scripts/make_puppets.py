"""Make puppet data sets: python scripts/make_puppets.py ROOT [--identities 24] [--frames 16] [--size 128 128] ...

Writes ROOT/train, ROOT/person and ROOT/driving in the format of prepared footage, and ROOT/sheet.png to look at.
"""

import argparse
import dataclasses

from meta_animator.cli import run


def main() -> None:
    from meta_animator.config import check_values
    from meta_animator.settings import PuppetsConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder for the three data sets")
    for field in dataclasses.fields(PuppetsConfig):
        if field.name not in ("root", "height", "width"):
            name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
            parser.add_argument(name, type=kind, default=field.default, help=field.metadata["meaning"])
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    options = vars(parser.parse_args())
    options["height"], options["width"] = options.pop("size")
    config = PuppetsConfig(**options)
    check_values(config, "arguments")

    from meta_animator.puppets.dataset import ensure_puppets, puppet_sheet

    ensure_puppets(config)
    print(f"data sets: {config.root}/train, /person, /driving; to look at: {puppet_sheet(config)}")


if __name__ == "__main__":
    run(main)
