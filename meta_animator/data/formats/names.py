"""Which file belongs to which picture: names without what tools add to them, and folders."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from meta_animator.errors import UserError

SUFFIX = re.compile(
    r"(\.(png|jpe?g|webp|bmp|tiff?|heic|heif|json|npz|mask)|[_-](keypoints|mask|person|depth|normal|parts))$", re.IGNORECASE
)

LEVELS = 3  # folders above a picture by which what belongs to it may be sorted


def picture_name(name: str) -> str:
    """The name of the picture that a file is about, without suffix: 0001 of 0001.png.json, 0001_keypoints.json,
    results_0001.json, 0001.png.mask.png, frames/0001.jpg."""
    name = re.split(r"[\\/]", name)[-1]
    name = name.removeprefix("results_") if name.lower().endswith(".json") else name
    while (shorter := SUFFIX.sub("", name)) != name and shorter:
        name = shorter
    return name


def natural_key(name: str) -> tuple:
    """Sorts names as people count: 2.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", name.lower())
    return tuple((0, int(part), "") if place % 2 else (1, 0, part) for place, part in enumerate(parts)), name


def folders_for(picture: Path, folder: Path) -> list[Path]:
    """Where in `folder` that which belongs to a picture or film may lie, the likeliest first: in folders named like those that it
    lies in itself (for ab/anna/1.jpg FOLDER/ab/anna, FOLDER/anna, FOLDER/ab), where there are such, then in `folder` itself."""
    above = Path(os.path.abspath(picture)).parent.parts[1:][-LEVELS:]
    spans = [above[first:end] for end in range(len(above), 0, -1) for first in range(end)]
    return [*(place for names in spans if (place := folder.joinpath(*names)).is_dir()), folder]


def refuse_twins(found: Iterable[tuple[Path, Path]], folder: Path) -> None:
    """Raises UserError where the same file below `folder` was found for two of (picture or film, file)."""
    owners: dict[Path, Path] = {}
    for picture, file in found:
        other = owners.setdefault(file, picture)
        if other == picture:
            continue
        apart = other.parent.name != picture.parent.name
        advice = f"put each one's into a folder of its person, such as {folder / picture.parent.name}" if apart else "rename one"
        raise UserError(f"{file}: would be both {other}'s and {picture}'s; {advice}")
