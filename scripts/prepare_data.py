"""Make a data set from a video or photos of one person.

python scripts/prepare_data.py --input dance.mp4 --keypoints dance.npz --output data/dance --identity anna
"""

import argparse
from pathlib import Path

from meta_animator.cli import run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="a video, a folder of photos, or photos")
    annotated = ".npz: keypoints (frames, 133, 3); mask: bits packed by row. For photos also a folder with NAME.npz for each"
    parser.add_argument("--keypoints", type=Path, help=annotated)
    parser.add_argument("--output", type=Path, required=True, help="the data-set folder to make")
    parser.add_argument("--identity", default="", help="the person's name; by default the name of the input")
    parser.add_argument("--prompt", default="", help="a description of the scene, for {description} in prompts")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="crop around the person and scale to this"
    )
    parser.add_argument("--fps", type=float, help="frames per second to keep of a video")
    parser.add_argument(
        "--heldout-frames", type=frame_range, metavar="A:B", help="frames A to B - 1 are not trained on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the data set that is there")
    return parser.parse_args()


def frame_range(text: str) -> tuple[int, int]:
    try:
        first, end = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected A:B, two frame numbers, got {text!r}") from None
    return first, end


def main() -> None:
    options = parse()
    from tqdm import tqdm

    from meta_animator.preparation.prepare import PrepareConfig, prepare

    config = PrepareConfig(
        inputs=options.input,
        output=options.output,
        keypoints=options.keypoints,
        identity=options.identity,
        prompt=options.prompt,
        size=tuple(options.size) if options.size else None,
        fps=options.fps,
        heldout=options.heldout_frames,
        overwrite=options.overwrite,
    )
    with tqdm(unit="frame", disable=None) as bar:

        def progress(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        summary = prepare(config, progress)
    print(f"{options.output}: {summary.frames} frames ({summary.heldout} held out); tasks: {', '.join(summary.tasks)}")
    if summary.skipped:
        print(f"no person found in {len(summary.skipped)} photos, skipped: {', '.join(summary.skipped)}")
    if summary.empty:
        share = f"{summary.empty} of {summary.of} frames ({summary.empty / summary.of:.0%})"
        print(f"no person found in {share} of the video; they were kept")
    for note in summary.notes:
        print(f"note: {note}")
    print(f"look at {options.output / 'sheets' / 'overview.png'}")


if __name__ == "__main__":
    run(main)
