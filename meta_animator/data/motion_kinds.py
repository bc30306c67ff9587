"""What gives a motion: a data set, keypoints, a film of drawn poses, or a film."""

from pathlib import Path

import numpy as np

from meta_animator.data.drawn_pose import find_fault
from meta_animator.data.formats.keypoint_json import holds_json
from meta_animator.data.manifest import is_data_set
from meta_animator.errors import UserError
from meta_animator.media.video import VideoSource

LOOKS = 6  # frames of a film that are looked at, to tell whether it shows drawn poses


def kind_of(motion: Path) -> str:
    """What gives the motion: "data set", "keypoints", "drawn" (a film of drawn poses) or "film". UserError for none of these."""
    if is_data_set(motion):
        return "data set"
    if motion.exists() and (motion.suffix == ".npz" or holds_json(motion)):
        return "keypoints"
    if not motion.is_file():
        raise UserError(f"{motion}: expected a film, keypoints (.npz, JSON) or a data set that shows the motion")
    film = VideoSource(motion)
    some = film.read(sorted({round(k) for k in np.linspace(0, film.num_frames - 1, min(LOOKS, film.num_frames))}))
    film.close()
    return "drawn" if find_fault(list(some)) is None else "film"
