"""Stages 0 to 2 and the base model: python scripts/train.py CONFIG.yaml [key=value ...] [--dry-run]"""

from meta_animator.cli import run
from meta_animator.entry import config_from_arguments


def main() -> None:
    config = config_from_arguments(__doc__, "control", "motion", "reference")
    if config is None:
        return
    from meta_animator.puppets.base.build import STAGES as BASE_STAGES
    from meta_animator.puppets.dataset import ensure_puppets
    from meta_animator.stages.train import train

    train(config, stages=BASE_STAGES, make_data=ensure_puppets)


if __name__ == "__main__":
    run(main)
