"""Compare generated clips with true ones, by metrics that others can repeat.

python scripts/evaluate.py outputs/clips --truth data/true_clips --output outputs/evaluation --row markdown
    Either side is a video, a folder of pictures, of videos or of folders of pictures, a data set, or what stage 3 wrote; clips
    are paired by name. Writes evaluation.json: every clip, the mean with its 95 % interval over clips, FID, FID-VID and FVD where
    their weights are there (meta_animator/evaluation/README.md), and a hash of protocol, versions and weights.

python scripts/evaluate.py outputs/tiktok --truth data/tiktok_test --protocol tiktok-disco --output outputs/evaluation
python scripts/evaluate.py outputs/other --truth data/driving --protocol cross-identity --photos data/person --output outputs/x

python scripts/evaluate.py outputs/demo/step3 --truth data/puppets/driving --reference data/puppets/person \\
    [--shuffled outputs/demo/step3_shuffled] [--seconds step0=200 step1=90] --output outputs/demo
    One run of stage 3 beside the photos alone and beside shuffled poses: metrics.json and overview.png.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from meta_animator.cli import run
from meta_animator.errors import UserError

KEYS = ("psnr", "person_psnr", "face_psnr", "face_distance", "lpips")
ONE_RUN = ("shuffled", "seconds", "clip")  # options of the last of these calls, which --reference makes it
ANY_CLIPS = (
    "protocol", "clips", "size", "photos", "row", "name", "weights", "annotators", "fid_weights", "fid_vid_weights",
    "fvd_weights", "device",
)  # fmt: skip


def stage_seconds(text: str) -> tuple[str, float]:
    stage, _, value = text.partition("=")
    try:
        return stage, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected STAGE=S, such as step0=200, got {text!r}") from None


def pixels(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 512x768, got {text!r}")
    return int(height), int(width)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path, help="generated clips, or the output folder of stage 3")
    parser.add_argument("--truth", type=Path, required=True, help="the true clips; of cross-identity the driving ones")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--lpips", default="", choices=("alex", "vgg", "off"), help="trunk of LPIPS, by default the protocol's")
    parser.add_argument("--lpips-trunk", default="", metavar="FILE", help="its weights; by default from torch's cache")
    parser.add_argument("--face", default="", help="a face embedder: sface, a file such as an ArcFace, a folder of ours, or off")
    group = parser.add_argument_group("any clips")
    group.add_argument("--protocol", metavar="NAME", help="default, tiktok-disco, tiktok-disco-historical or cross-identity")
    group.add_argument("--clips", nargs="+", metavar="NAME", help="which clips; by default the protocol's, or all")
    group.add_argument("--size", type=pixels, metavar="WxH", help="bring the middle of all frames to this size")
    group.add_argument(
        "--photos", "--exclude", type=Path, metavar="PATH",
        help="photos that training saw, those that a folder of stage 3 names by default: true frames that are nearly one of them "
        "are left out; of cross-identity the person's own",
    )  # fmt: skip
    group.add_argument("--annotators", metavar="CHOICE", help='for poses and faces: "light" (default), "full", ..., or "off"')
    group.add_argument(
        "--weights", type=Path, metavar="DIR", help="what scripts/get_weights.py fetched; by default models, where it is there"
    )
    group.add_argument("--device", help="where LPIPS, FID, FID-VID and FVD are computed (default: cuda if there is one)")
    for metric in ("fid", "fid-vid", "fvd"):
        group.add_argument(f"--{metric}-weights", metavar="FILE", help="by default from torch's cache; or off")
    group.add_argument("--row", choices=("markdown", "latex"), help="print a row for a table")
    group.add_argument("--name", help="what the row is called; by default as the folder")
    group = parser.add_argument_group("one run of stage 3, with --reference")
    group.add_argument("--reference", type=Path, help="data set of the reference photos")
    group.add_argument("--clip", default="", help="which clip of the truth; by default its first")
    group.add_argument("--shuffled", type=Path, help="stage 3 with sample.shuffle_driving=true")
    group.add_argument(
        "--seconds", nargs="*", type=stage_seconds, default=[], metavar="STAGE=S", help="wall-clock times to record"
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    others = ANY_CLIPS if args.reference else ONE_RUN
    if wrong := [name for name in others if getattr(args, name)]:
        why = "does not go with --reference" if args.reference else "needs --reference, the photos of a run of stage 3"
        raise UserError(f"--{wrong[0].replace('_', '-')} {why}")
    if args.reference:
        report_run(args)
    else:
        report_clips(args)


def report_clips(args: argparse.Namespace) -> None:
    from meta_animator.evaluation.comparison import compare
    from meta_animator.evaluation.judges import SFACE, load_judges
    from meta_animator.evaluation.protocols import find_protocol
    from meta_animator.evaluation.rows import record, row
    from meta_animator.evaluation.sources import pair, photo_places, read_photos, read_sources
    from meta_animator.json_files import write_json

    protocol = find_protocol(args.protocol or "default")
    given = {"clips": tuple(args.clips or ()), "size": args.size}
    protocol = dataclasses.replace(protocol, **{name: value for name, value in given.items() if value})
    pairs = pair(read_sources(args.generated), read_sources(args.truth), protocol.clips)
    photos, places = read_photos(args.photos, args.generated), photo_places(args.photos, args.generated)
    if not protocol.truth and not photos:
        raise UserError(f"--protocol {protocol.name} needs --photos: the person's own, to compare faces with")
    folder = args.weights or (Path("models") if Path("models").is_dir() else None)
    judges, weights, missing = load_judges(
        protocol, lpips=args.lpips, lpips_trunk=args.lpips_trunk, face=args.face or SFACE,
        weights={name: getattr(args, f"{name}_weights") or "" for name in ("fid", "fid_vid", "fvd")},
        annotators=annotators(args.annotators or "light", folder), folder=folder, device=args.device or "",
    )  # fmt: skip
    for metric, reason in missing.items():
        if metric != "lpips":  # which says so itself
            print(f"note: {metric} is off: {reason}")
    result = record(compare(pairs, protocol, judges, reference=photos, places=places), protocol, weights, missing)
    for name, frames in result["left_out"].items():
        print(f"note: {name}: {len(frames)} frames are photos that training saw, and left out of all numbers")
    write_json(args.output / "evaluation.json", result)
    for metric, summary in result["mean"].items():
        if summary["mean"] is not None:
            interval = "" if summary["low"] is None else f"  [{summary['low']:.4g}, {summary['high']:.4g}]"
            print(f"{metric:<20} {summary['mean']:10.4g}{interval}")
    for metric, value in result["set"].items():
        print(f"{metric:<20} {'too few frames' if value is None else format(value, '10.4g')}")
    if args.row:
        print(row(result, args.name or args.generated.name, args.row))


def annotators(choice: str, folder: Path | None) -> Any:
    """Those of `choice` whose files are here; a line that says why there are none; or None for "off"."""
    from meta_animator.annotators.sets import AnnotatorSet

    if choice == "off":
        return None
    chosen = AnnotatorSet(choice, folder, fetch=False)
    for note in chosen.licence_notes:
        print(f"note: {note}")
    try:
        return chosen.load()
    except UserError as error:
        return str(error)


def report_run(args: argparse.Namespace) -> None:
    from meta_animator.evaluation.animation import evaluate_animation
    from meta_animator.evaluation.judges import SFACE, find_sface
    from meta_animator.evaluation.perceptual import load_lpips
    from meta_animator.json_files import write_json
    from meta_animator.media.images import write_image
    from meta_animator.models.arcface import load_face

    folder = Path("models") if Path("models").is_dir() else None
    named = find_sface(folder) if args.face == SFACE else args.face
    face = load_face(named, "--face") if named not in ("", "off") else None
    lpips = load_lpips(args.lpips or "alex", args.lpips_trunk) if args.lpips != "off" else None
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
