"""The picture that an animation ends with: photos, motion and result."""

from pathlib import Path

import numpy as np

from meta_animator.data.manifest import find_clip, is_data_set, read_manifest
from meta_animator.evaluation.animation import driving_frames, read_frames
from meta_animator.evaluation.report import overview
from meta_animator.media.images import write_image

CELL = 224  # longer side of a picture


def animation_sheet(photos: Path, sampled: Path, driving: Path, clip: str, target: Path) -> None:
    """Writes the photos of a data set above the frames of a motion's film, the poses that drove, and what stage 3 made of them
    in the folder `sampled`, at the same moments."""
    frames = read_frames(sampled / "frames")
    numbers = driving_frames(sampled, len(frames))
    motion = None
    if is_data_set(driving) and (found := find_clip(driving, clip)).has_frames:
        some = {round(k) for k in np.linspace(0, len(numbers) - 1, min(8, len(numbers)))}
        motion = [found.load(number, ("frame",)).frame if k in some else frames[k] for k, number in enumerate(numbers)]
    pictures = [(one, k) for one in read_manifest(photos) for k in range(one.num_frames)]
    some = sorted({round(k) for k in np.linspace(0, len(pictures) - 1, min(8, len(pictures)))})
    shown = [pictures[k][0].load(pictures[k][1], ("frame",)).frame for k in some]
    write_image(target, overview(shown, list(read_frames(sampled / "driving")), list(frames), motion=motion, cell=CELL))
