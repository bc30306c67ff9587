"""Make a data set from films and photos: people are found in them, annotated, cut out and stored.

python scripts/prepare_data.py --input photos/ dance.mp4 --output data/anna --identity anna
python scripts/prepare_data.py --check data/anna

The same command again continues what was interrupted, and makes anew what depends on what has changed. Masks and keypoints lie in
OUTPUT/annotated/: delete one to have it made again, replace one by a better one, and run the command again.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meta_animator.cli import run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    films = "films and photos, and folders of them; without --identity a folder's sub-folders are people, by their names"
    parser.add_argument("--input", type=Path, nargs="+", help=films)
    parser.add_argument("--output", type=Path, help="the data-set folder to make")
    parser.add_argument("--identity", default="", help="the person's name; by default that of the sub-folder, or of the input")
    parser.add_argument("--prompt", default="", help="a description of the scene, for {description} in prompts")
    sets = "who annotates: light (default), full, either with changes by name such as light,mask=sam2, or none: frames alone"
    parser.add_argument("--annotators", help=sets)
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a folder with the annotators' weights, looked into first")
    parser.add_argument("--device", default="", help="where annotators run that can use a GPU (default: cuda if there is one)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="crop around the person and scale to this"
    )
    parser.add_argument("--no-crop", action="store_true", help="keep frames whole")
    longest = "pixels of the longer side at most, without --size; 0: all"
    parser.add_argument("--longest", type=at_least(0), default=1024, help=longest)
    parser.add_argument("--fps", type=float, help="frames per second to keep of films")
    parser.add_argument("--least", type=at_least(1), default=4, help="good frames in a row that make a clip, at least")
    needs = "what a frame needs to be kept, such as min_height=60; report.html lists them"
    parser.add_argument("--limits", nargs="+", default=[], metavar="NAME=VALUE", help=needs)
    parser.add_argument("--keep-alike", action="store_true", help="keep photos that nearly repeat another")
    parser.add_argument("--frames", choices=("png", "jpg"), default="png", help="how frames are stored; jpg takes a tenth")
    held = "frames A to B - 1 of the film, or photos by number, are not trained on"
    parser.add_argument("--heldout-frames", type=frame_range, metavar="A:B", help=held)
    parser.add_argument("--workers", type=at_least(0), default=0, help="processes (default: one per core; one on a GPU)")
    parser.add_argument("--part", metavar="K/N", type=part_of, help="prepare the K-th of N shares, into OUTPUT/parts")
    parser.add_argument("--join", action="store_true", help="make one manifest of the parts in OUTPUT")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set that is there, corrections included")
    parser.add_argument("--check", metavar="FOLDER", help="say all that is wrong with a data set, and nothing else")
    packed = "also pack the data set into tar files of about so many megabytes, in OUTPUT/shards; without --input, only that"
    parser.add_argument("--shards", type=megabytes_of, metavar="MB", help=packed)
    add_what_others_made(parser)
    options = parser.parse_args()
    if options.check is None and options.output is None:
        parser.error("the following arguments are required: --output")
    if options.check is None and options.input is None and not options.join and options.shards is None:
        parser.error("the following arguments are required: --input")
    if options.format and (len(options.input or ()) != 1 or options.keypoints is not None or given(options)):
        parser.error("argument --format: takes one --input, the data set's folder, and no keypoints or maps of your own")
    if options.check is None and not options.join and options.input is not None and nobody_annotates(options):
        refuse_without_annotators(parser, options)
    return options


def nobody_annotates(options: argparse.Namespace) -> bool:
    return options.annotators == "none" or (options.keypoints is not None and options.annotators is None)


def refuse_without_annotators(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raises UserError for options that say how footage is annotated, selected and stored, where none is."""
    from meta_animator.errors import UserError

    unused = ["limits", "least", "longest", "frames", "part", "keep_alike", "workers", "weights", "device"]
    unused += ["no_crop"] if options.size else []
    unused += ["identity", "heldout_frames"] if options.format else []
    if said := ["--" + name.replace("_", "-") for name in unused if getattr(options, name) != parser.get_default(name)]:
        why = "with --annotators none" if options.annotators else "with --keypoints alone"
        advice = f"leave {'it' if len(said) == 1 else 'them'} out, or say who annotates, such as --annotators light"
        raise UserError(f"{', '.join(said)}: without effect {why}; {advice}")


def add_what_others_made(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what others made", "maps are folders with a picture for each frame (in the order of their names), or NAME.png for each "
        "photo; of several films each has a folder of its name there; where names repeat, PERSON/ comes before them",
    )  # fmt: skip
    annotated = (
        "your own keypoints; nothing is annotated beside them, unless --annotators says who does: .npz with keypoints "
        "(frames, 133, 3) and maybe mask (bits packed by row), for photos also a folder of NAME.npz; or JSON of OpenPose, "
        "MMPose, rtmlib, AlphaPose or COCO, one file, or a folder with a file for each frame or photo"
    )
    group.add_argument("--keypoints", type=Path, help=annotated)
    group.add_argument("--masks", type=Path, help="masks, white on black; for a film also a film")
    group.add_argument("--depth", type=Path, help="depth in grey, 8 or 16 bits")
    group.add_argument("--depth-bright", choices=("near", "far"), default="near", help="what is bright in it (default: near)")
    group.add_argument("--normal", type=Path, help="normals as (n + 1) / 2 in RGB, black where there is none")
    axes = "opengl: x right, y up, z to the camera (default); directx: y down; opencv: y down, z away from the camera"
    group.add_argument("--normal-axes", choices=("opengl", "directx", "opencv"), default="opengl", help=axes)
    group.add_argument("--parts", type=Path, help="body parts, a number of the 28 of Sapiens in each pixel")
    trees = "--input is a published data set as it lies on disk; with --annotators none, what comes with it is all there is"
    group.add_argument("--format", choices=("tiktok", "ubc", "disco"), default="", help=trees)


def given(options: argparse.Namespace) -> dict[str, Path]:
    """{layer: where the user has it}"""
    layers = {"mask": options.masks, "depth": options.depth, "normal": options.normal, "parts": options.parts}
    return {layer: path for layer, path in layers.items() if path is not None}


def at_least(low: int) -> Callable[[str], int]:
    """Reads a whole number that is not below `low`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"expected a whole number, {low} or more, got {text!r}")
        return number

    return read


def megabytes_of(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of megabytes above 0, got {text!r}")
    return number


def frame_range(text: str) -> tuple[int, int]:
    try:
        first, end = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected A:B, two frame numbers, got {text!r}") from None
    return first, end


def part_of(text: str) -> tuple[int, int]:
    try:
        part, count = (int(number) for number in text.split("/"))
    except ValueError:
        part = count = 0
    if not 1 <= part <= count:
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, such as 3/16, got {text!r}")
    return part, count


def main() -> None:
    options = parse()
    if options.check is not None:
        check(options.check)
    elif options.join:
        from meta_animator.preparation.parts import join

        print(f"{options.output}: {join(options.output)} clips and photos joined")
    elif options.input is None:
        pass
    elif options.format and options.annotators == "none":
        published(options)
    elif nobody_annotates(options):
        annotated_by_the_user(options)
    else:
        footage(options)
    if options.shards is not None and options.check is None:
        pack(options.output, options.shards)


def pack(folder: Path, megabytes: float) -> None:
    """The data set as tar shards beside its clips."""
    from meta_animator.data.shard_writer import write_shards
    from meta_animator.preparation.said import Bars

    with Bars() as bars:
        clips, tars = write_shards(folder, folder / "shards", megabytes, lambda done, of: bars("packing clips", done, of))
    print(f"{folder / 'shards'}: {clips} clips and photos in {tars} tar files; data.train=[{folder / 'shards'}], or its URL")


def published(options: argparse.Namespace) -> None:
    """The sequences of a published data set with the masks and keypoints that come with them."""
    from meta_animator.preparation.formats.recorded import TreeConfig, prepare_sequences
    from meta_animator.preparation.formats.sources import sequences_of
    from meta_animator.preparation.said import Bars

    size = tuple(options.size) if options.size else None
    config = TreeConfig(
        output=options.output, prompt=options.prompt, size=size, fps=options.fps, overwrite=options.overwrite
    )  # fmt: skip
    sequences = sequences_of(options.format, options.input[0], options.output)
    with Bars() as bars:
        summary = prepare_sequences(config, sequences, lambda done, of: bars("sequences", done, of))
    say_frames(options.output, summary)


def check(folder: str) -> None:
    """Says every fault of a data set; exit code 2 where there is one."""
    from meta_animator.preparation.check import check_folder

    found = check_folder(folder)
    for fault in found.faults:
        print(f"error: {fault}", file=sys.stderr)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{folder}: {found.clips} clips and photos, {found.frames} frames, {found.people} people; {len(found.faults)} faults")
    if found.faults:
        sys.exit(2)


def footage(options: argparse.Namespace) -> None:
    """From films and photos alone, with maps that the user may have."""
    from meta_animator.data.formats.maps import Given
    from meta_animator.errors import UserError
    from meta_animator.preparation.crop import Cut
    from meta_animator.preparation.footage_set import FootageConfig, NothingKept, prepare_footage
    from meta_animator.preparation.page import write_page
    from meta_animator.preparation.parts import join, prepare_part
    from meta_animator.preparation.quality import parse_limits
    from meta_animator.preparation.said import Bars, choose_annotators, left_off, say_summary, workers_of

    if options.no_crop and options.size:
        raise UserError("--no-crop: frames that are cut to the shape of --size are not whole; leave one of the two out")
    limits = parse_limits(options.limits)
    annotators = choose_annotators(options.annotators or "light", options.weights, options.device)
    size = tuple(options.size) if options.size else None
    points = {} if options.keypoints is None else {"keypoints": options.keypoints}
    config = FootageConfig(
        inputs=options.input or (),
        output=options.output,
        identity=options.identity,
        prompt=options.prompt,
        cut=Cut(size=size, crop=not options.no_crop, longest=options.longest),
        fps=options.fps,
        heldout=options.heldout_frames,
        limits=limits,
        least=options.least,
        alike=options.keep_alike,
        format=options.format,
        given=Given(paths=given(options) | points, bright=options.depth_bright, axes=options.normal_axes),
        suffix=f".{options.frames}",
        workers=workers_of(annotators, options.workers),
        overwrite=options.overwrite,
    )
    try:
        with Bars() as bars:
            if options.part is None:
                summary = prepare_footage(config, annotators, bars)
            else:
                config, summary = prepare_part(config, annotators, *options.part, bars)
    except NothingKept as error:
        if error.summary.records and not error.restored:
            page = write_page(config, error.summary, _command(), {}, annotators.licence_notes)
            raise UserError(f"{error}; {page} shows them") from None
        raise
    if summary is not None:
        lacking = left_off(summary.tasks, annotators.missing)
        write_page(config, summary, _command(), lacking, annotators.licence_notes)
        say_summary(config.output, summary, annotators)
    if options.part is not None and (clips := join(options.output, options.part[1])) is not None:
        print(f"{options.output}: all {options.part[1]} parts are there and joined: {clips} clips and photos")


def _command() -> str:
    """This one, without limits, and without replacing what it has made: that may be corrected by hand by then."""
    words = iter(["python", *(word for word in sys.argv if word != "--overwrite")])
    kept = []
    for word in words:
        if word == "--limits":
            word = next((other for other in words if "=" not in other or other.startswith("--")), "")
        kept += [shlex.quote(word)] if word else []
    return " ".join(kept)


def annotated_by_the_user(options: argparse.Namespace) -> None:
    """A film or photos of one person with the user's keypoints, or with nothing at all."""
    from tqdm import tqdm

    from meta_animator.data.formats.maps import Given
    from meta_animator.preparation.prepare import PrepareConfig, prepare

    config = PrepareConfig(
        inputs=options.input,
        output=options.output,
        keypoints=options.keypoints,
        given=Given(paths=given(options), bright=options.depth_bright, axes=options.normal_axes),
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
    say_frames(options.output, summary)


def say_frames(output: Path, summary: Any) -> None:
    print(f"{output}: {summary.frames} frames ({summary.heldout} held out); tasks: {', '.join(summary.tasks)}")
    if summary.skipped:
        print(f"no person found in {len(summary.skipped)} photos, skipped: {', '.join(summary.skipped)}")
    if summary.empty:
        share = f"{summary.empty} of {summary.of} frames ({summary.empty / summary.of:.0%})"
        print(f"no person found in {share} of the video; they were kept")
    for note in summary.notes:
        print(f"note: {note}")
    print(f"look at {output / 'sheets' / 'overview.png'}")


if __name__ == "__main__":
    run(main)
