"""Stage 2 where no photo can be spared: python scripts/leave_one_out.py CONFIG.yaml [key=value ...]

Trains without each photo in turn, and measures on the one left out; then on all photos, and marks the step that was best on the
mean as the one that stage 3 and extract_LoRA_weights.sh take. With 5 photos that is six runs. data.held_out=2 leaves two photos
out at a time: half as many runs. The same command goes on where it was interrupted. Writes output_dir/leave_one_out.json.
"""

import sys
from pathlib import Path

from meta_animator.cli import run
from meta_animator.entry import config_from_arguments


def main() -> None:
    config = config_from_arguments(__doc__, "reference")
    if config is None:
        return
    from meta_animator.stages.leave_one_out import leave_one_out

    leave_one_out(config, train)


def train(config: Path) -> None:
    from meta_animator.training.signals import run_to_its_end

    run_to_its_end([sys.executable, "scripts/launch.py", "scripts/train.py", str(config)])


if __name__ == "__main__":
    run(main)
