"""Stage 3: sample an animation: python scripts/sample.py CONFIG.yaml [key=value ...] [--dry-run]"""

from meta_animator.cli import run
from meta_animator.entry import config_from_arguments


def main() -> None:
    config = config_from_arguments(__doc__, "sample")
    if config is None:
        return
    from meta_animator.stages.sample import sample

    print(f"wrote {sample(config)}")


if __name__ == "__main__":
    run(main)
