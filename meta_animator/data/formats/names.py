"""Which file belongs to which picture: names without what tools add to them."""

import re

SUFFIX = re.compile(
    r"(\.(png|jpe?g|webp|bmp|tiff?|heic|heif|json|npz|mask)|[_-](keypoints|mask|person|depth|normal|parts))$", re.IGNORECASE
)


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
