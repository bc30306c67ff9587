"""Train one stage: python scripts/train.py CONFIG.yaml [key=value ...] [--dry-run]"""

import argparse

from meta_animator.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of the run")
    parser.add_argument("overrides", nargs="*", help="key=value, such as train.max_steps=100")
    parser.add_argument("--dry-run", action="store_true", help="print the config and the trainable parameters, then stop")
    args = parser.parse_intermixed_args()

    from meta_animator.config import load_config, to_yaml

    config = load_config(args.config, args.overrides)
    if args.dry_run:
        from meta_animator.stages.dry_run import describe

        print(to_yaml(config), describe(config), sep="\n")
        return
    from meta_animator.stages.build import train

    train(config)


if __name__ == "__main__":
    run(main)
