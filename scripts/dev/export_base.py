"""Write a finished base_* run, or stage 0 or 1 on the base, into a base-model folder.

python scripts/dev/export_base.py RUN OUTPUT
"""

import argparse
from pathlib import Path

from meta_animator.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a base_* stage, control or motion")
    parser.add_argument("output", type=Path, help="base-model folder, such as assets/base")
    args = parser.parse_args()

    from meta_animator.puppets.base.export import export_base

    for folder in export_base(args.run, args.output):
        print(f"wrote {folder}")


if __name__ == "__main__":
    run(main)
