"""Take LoRAs out of a checkpoint, as PEFT folders: python scripts/extract_lora.py CONFIG.yaml [key=value ...] [--dry-run]"""

from pathlib import Path

from meta_animator.cli import run
from meta_animator.entry import config_from_arguments


def main() -> None:
    config = config_from_arguments(__doc__, "extract")
    if config is None:
        return
    from meta_animator.conversion.lora import extract

    for folder in extract(config.extract, config.model, Path(config.output_dir)):
        print(f"wrote {folder}")


if __name__ == "__main__":
    run(main)
