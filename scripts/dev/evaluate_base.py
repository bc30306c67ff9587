"""Judge an embedded base model on unseen puppets.

python scripts/dev/evaluate_base.py [assets/base] [--people 40] [--output outputs/base_report]

Writes metrics.json and samples.png: truth, decoded by the VAE, pose, sampled from text, sampled from text and pose. Of a Wan,
every third frame: in vae.png frames and condition images, and the same decoded; in samples.png truth, pose, from text and pose,
from text.
"""

import argparse
from pathlib import Path

from meta_animator.cli import run

ROWS = ("truth", "through the VAE", "pose", "from text", "from text and pose")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, nargs="?", default=Path("assets/base"))
    parser.add_argument("--people", type=int, default=40, help="how many unseen people are looked at")
    parser.add_argument("--output", type=Path, default=Path("outputs/base_report"))
    args = parser.parse_args()

    from meta_animator.json_files import read_json

    wan = read_json(args.base / "vae" / "config.json")["_class_name"] == "AutoencoderKLWan"
    (report_wan if wan else report)(args.base, args.people, args.output)


def report(base: Path, people: int, output: Path) -> None:
    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.media.sheets import grid
    from meta_animator.puppets.base.judge import judge_base

    numbers, rows = judge_base(base, people=people)
    write_json(output / "metrics.json", numbers)
    write_image(output / "samples.png", grid(rows, row_titles=ROWS))
    vae, face = numbers["vae"], numbers["face"]
    print(f"VAE       {vae['psnr']:.2f} dB over the frame, {vae['person_psnr']:.2f} the person, {vae['face_psnr']:.2f} the face")
    print(f"faces     {face['accuracy']:.1%} told apart at equal error ({face['faces']} faces, {face['same_pairs']} equal pairs)")
    print(f"pictures  {output / 'samples.png'}")


def report_wan(base: Path, people: int, output: Path) -> None:
    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.media.sheets import grid
    from meta_animator.puppets.base.wan_judge import judge_wan, judge_wan_vae

    numbers, rows = judge_wan_vae(base, people)
    write_image(output / "vae.png", grid(rows))
    if (base / "transformer").is_dir():
        made, rows = judge_wan(base, people)
        write_image(output / "samples.png", grid(rows))
        numbers |= made
    write_json(output / "metrics.json", numbers)
    for name, value in numbers.items():
        print(f"{name:20} {value:.2f} dB")
    print(f"pictures             {output}")


if __name__ == "__main__":
    run(main)
