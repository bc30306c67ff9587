"""Compare a sampled animation with the truth: metrics.json and overview.png.

python scripts/evaluate.py outputs/demo/step3 --truth data/puppets/driving --reference data/puppets/person \\
    [--shuffled outputs/demo/step3_shuffled] [--seconds step0=200 step1=90] --output outputs/demo
"""

import argparse
from pathlib import Path

from meta_animator.cli import run

KEYS = ("psnr", "person_psnr", "face_psnr", "face_distance", "lpips")


def stage_seconds(text: str) -> tuple[str, float]:
    stage, _, value = text.partition("=")
    try:
        return stage, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected STAGE=S, such as step0=200, got {text!r}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path, help="output folder of stage 3")
    parser.add_argument("--truth", type=Path, required=True, help="data set with the true frames")
    parser.add_argument("--clip", default="", help="which clip of the truth; by default its first")
    parser.add_argument("--reference", type=Path, required=True, help="data set of the reference photos")
    parser.add_argument("--shuffled", type=Path, help="stage 3 with sample.shuffle_driving=true")
    parser.add_argument(
        "--seconds", nargs="*", type=stage_seconds, default=[], metavar="STAGE=S", help="wall-clock times to record"
    )
    parser.add_argument("--face", default="", help="folder of a face embedder: adds the mean distance of faces")
    parser.add_argument("--lpips", default="alex", choices=("alex", "vgg", "off"), help="trunk of LPIPS")
    parser.add_argument("--lpips-trunk", default="", metavar="FILE", help="its weights; by default from torch's cache")
    parser.add_argument("--output", type=Path, required=True, help="folder for metrics.json and overview.png")
    args = parser.parse_args()

    from meta_animator.evaluation.animation import evaluate_animation
    from meta_animator.evaluation.perceptual import load_lpips
    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.models.face import FaceEmbedder

    face = FaceEmbedder.from_pretrained(args.face).eval() if args.face else None
    lpips = load_lpips(args.lpips, args.lpips_trunk) if args.lpips != "off" else None
    metrics, picture = evaluate_animation(
        args.generated, args.truth, args.reference, clip=args.clip, shuffled=args.shuffled, seconds=dict(args.seconds),
        face=face, lpips=lpips,
    )  # fmt: skip
    write_json(args.output / "metrics.json", metrics)
    write_image(args.output / "overview.png", picture)
    rows = {"ours": metrics, **metrics["baselines"], **metrics["controls"]}
    for name, row in rows.items():
        values = " ".join(f"{key} {row[key]:6.{3 if key == 'lpips' else 2}f}" for key in KEYS if row.get(key) is not None)
        print(f"{name:<16} {values}")


if __name__ == "__main__":
    run(main)
