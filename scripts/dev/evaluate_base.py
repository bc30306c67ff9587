"""Judge an embedded base model on unseen puppets.

python scripts/dev/evaluate_base.py [assets/base] [--people 40] [--output outputs/base_report]

Writes metrics.json and samples.png: truth, decoded by the VAE, pose, sampled from text, sampled from text and pose.
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

    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.media.sheets import grid
    from meta_animator.puppets.base.judge import judge_base

    numbers, rows = judge_base(args.base, people=args.people)
    write_json(args.output / "metrics.json", numbers)
    write_image(args.output / "samples.png", grid(rows, row_titles=ROWS))
    vae, face = numbers["vae"], numbers["face"]
    print(f"VAE       {vae['psnr']:.2f} dB over the frame, {vae['person_psnr']:.2f} the person, {vae['face_psnr']:.2f} the face")
    print(f"faces     {face['accuracy']:.1%} told apart at equal error ({face['faces']} faces, {face['same_pairs']} equal pairs)")
    print(f"pictures  {args.output / 'samples.png'}")


if __name__ == "__main__":
    run(main)
