"""How long preparation takes a frame, part by part, on one core; a number is processor time, whatever else runs.

python scripts/dev/benchmark_preparation.py                                     # a film that it makes, without networks
python scripts/dev/benchmark_preparation.py --annotators light                  # with the light annotators
python scripts/dev/benchmark_preparation.py --annotators light --input dance.mp4
"""

import argparse
import tempfile
from pathlib import Path

from meta_animator.cli import run

FRAMES_PER_SECOND, ANNOTATION_MS = 30, 100  # what is aimed at, at 512 pixels and at 720p


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="a film of a person; by default one of a puppet, 720 x 1280")
    parser.add_argument("--annotators", help='"light", "full", or "light,mask=sam2"; needed with --input')
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a folder with the networks' files")
    parser.add_argument("--frames", type=int, default=48, help="how many frames to measure (48)")
    parser.add_argument("--side", type=int, default=512, help="side of the drawn maps in pixels (512)")
    options = parser.parse_args()
    if options.input and not options.annotators:
        parser.error("--input needs --annotators: what is drawn has to be found in it")
    if min(options.frames, options.side) < 1:
        parser.error("--frames and --side are at least 1")
    return options


def main() -> None:
    options = parse()
    from meta_animator.annotators.sets import AnnotatorSet
    from meta_animator.preparation.benchmark import measure
    from meta_animator.puppets.film import make_film

    annotators = AnnotatorSet(options.annotators, options.weights).load() if options.annotators else None
    with tempfile.TemporaryDirectory() as folder:
        film, truth = options.input, None
        if film is None:
            film = Path(folder) / "puppet.mp4"
            truth = make_film(film, options.frames)
        timing = measure(film, options.side, options.frames, annotators, truth)
    print(f"{timing.frames} frames of {timing.size[1]}x{timing.size[0]}, milliseconds of one core a frame")
    total = report(timing.without)
    print(f"without networks, at {options.side} pixels: {total:.1f} ms, {1e3 / total:.0f} frames/s (aim: {FRAMES_PER_SECOND})")
    if timing.networks:
        total = report(timing.networks)
        print(f"annotation ({annotators.choice}): {total:.1f} ms a frame (aim of the light set at 720p: {ANNOTATION_MS})")


def report(parts: dict[str, float]) -> float:
    for part, spent in parts.items():
        print(f"  {part:20s} {spent:7.1f}")
    return sum(parts.values())


if __name__ == "__main__":
    run(main)
