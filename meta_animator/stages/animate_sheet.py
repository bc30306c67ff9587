"""The picture that an animation ends with: photos, motion and result."""

from pathlib import Path

import numpy as np

from meta_animator.data.manifest import find_clip, is_data_set, read_manifest
from meta_animator.evaluation.animation import driving_frames, frame_files
from meta_animator.evaluation.report import overview
from meta_animator.media.images import read_image, write_image

SHOWN = 8  # pictures in a row
CELL = 224  # longer side of a picture


def animation_sheet(photos: Path, sampled: Path, driving: Path, clip: str, target: Path) -> None:
    """Writes the photos of a data set above the frames of a motion's film, the poses that drove, and what stage 3 made of them
    in the folder `sampled`, at the same moments."""
    made, poses = (frame_files(sampled / name) for name in ("frames", "driving"))
    numbers, some, motion = driving_frames(sampled, len(made)), _spread(len(made)), None
    if is_data_set(driving) and (found := find_clip(driving, clip)).has_frames:
        motion = [found.load(numbers[k], ("frame",)).frame for k in some]
    pictures = [(one, k) for one in read_manifest(photos) for k in range(one.num_frames)]
    shown = [pictures[k][0].load(pictures[k][1], ("frame",)).frame for k in _spread(len(pictures))]
    driven, frames = ([read_image(files[k]) for k in some] for files in (poses, made))
    write_image(target, overview(shown, driven, frames, motion=motion, cell=CELL))


def _spread(count: int) -> list[int]:
    """At most SHOWN numbers of `count`, evenly, first and last included."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(SHOWN, count))})
