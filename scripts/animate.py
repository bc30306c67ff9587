"""From photos of a person and a film of a motion to a video of that person in that motion: see animate.sh beside.

bash scripts/animate.sh PHOTOS MOTION [OUT.mp4] [options] [key=value ...]
"""

import argparse
import os
from pathlib import Path

from meta_animator.cli import run
from meta_animator.entry import STARTED_IN, users_folder
from meta_animator.errors import UserError

USAGE = "bash scripts/animate.sh PHOTOS MOTION [OUT.mp4] [options] [key=value ...]"


def parse() -> tuple[argparse.Namespace, list[Path], list[str]]:
    """Options, the files as the user named them, and the overrides."""
    parser = argparse.ArgumentParser(usage=USAGE, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", metavar="PHOTOS MOTION [OUT.mp4] [key=value ...]", help="see animate.sh")
    parser.add_argument("--person", default="", help="the person's name; by default that of PHOTOS")
    parser.add_argument("--annotators", default="light", help="who looks at the pictures, as in prepare_data.py")
    parser.add_argument("--weights", default="", metavar="DIR", help="folder of their networks, as in prepare_data.py")
    parser.add_argument("--same-person", action="store_true", help="MOTION shows the person of the photos: compare in numbers")
    options = parser.parse_intermixed_args()
    places = [text for text in options.arguments if "=" not in text or users_path(text).exists()]
    overrides = [text for text in options.arguments if text not in places]
    if not 2 <= len(places) <= 3:
        raise UserError(f"expected PHOTOS and MOTION, and maybe OUT.mp4, got {len(places)} names: {USAGE}")
    return options, [users_path(place) for place in places], overrides


def users_path(text: str) -> Path:
    """A path that starts where the user stands; scripts/env.sh has gone to the repository's root."""
    return Path(os.environ.get(STARTED_IN, "")) / text


def config_folder(text: str) -> Path:
    """A folder of configs: the user's, or else this repository's."""
    return users_path(text) if users_path(text).is_dir() else Path(text)


def main() -> None:
    options, places, overrides = parse()
    from meta_animator.stages.animate import Job, animate

    job = Job(
        photos=places[0], motion=places[1], output=places[2] if len(places) > 2 else None, overrides=overrides,
        configs=config_folder(os.environ.get("CONFIG") or "configs/demo"),
        root=users_path(os.environ["ANIMATE_DIR"]) if os.environ.get("ANIMATE_DIR") else Path("outputs/animate"),
        person=options.person, annotators=options.annotators,
        weights=users_path(options.weights) if options.weights else None, same_person=options.same_person,
        started_in=users_folder(),
    )  # fmt: skip
    animate(job)


if __name__ == "__main__":
    run(main)
