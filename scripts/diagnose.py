"""Find the weak part of an animation: python scripts/diagnose.py CONFIG.yaml [key=value ...]

CONFIG is one of stage 3 whose driving clip is a data set's that shows the same person. Puts the truth in the place of each
part in turn; prints PSNR over frame, person and face, and writes diagnosis.json and diagnosis.png to output_dir.
"""

from pathlib import Path

from meta_animator.cli import run
from meta_animator.entry import config_from_arguments


def main() -> None:
    config = config_from_arguments(__doc__, "sample")
    if config is None:
        return
    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.media.sheets import grid
    from meta_animator.stages.diagnose import diagnose

    numbers, rows = diagnose(config)
    write_json(Path(config.output_dir) / "diagnosis.json", numbers)
    write_image(Path(config.output_dir) / "diagnosis.png", grid(rows, row_titles=["truth", *numbers]))
    for name, row in numbers.items():
        values = " ".join(f"{key} {row[key]:6.2f}" for key in ("psnr", "person_psnr", "face_psnr") if row[key] is not None)
        print(f"{name:<28} {values}")


if __name__ == "__main__":
    run(main)
