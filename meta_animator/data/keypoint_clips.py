"""Files of keypoints as clips to drive from; they have no frames."""

from pathlib import Path

from meta_animator.data.clips import Clip, read_keypoints, read_numbers
from meta_animator.data.formats.following import main_person
from meta_animator.data.formats.keypoint_json import read_poses
from meta_animator.errors import UserError
from meta_animator.media.timeline import check_fps


def keypoint_clip(path: Path) -> Clip:
    """The clip of an .npz with keypoints (frames, 133, 3), width, height and fps. Raises UserError where it lacks one."""
    keypoints = read_keypoints(path)
    facts = read_numbers(path)
    if len(facts) < 3:
        raise UserError(f"driving {path}: lacks width, height or fps; add these three numbers to the file")
    return Clip(
        folder=path.parent, id=path.stem, identity="", num_frames=len(keypoints), layers={"keypoints": path.name}, **facts,
    )  # fmt: skip


def json_clip(path: Path, fps: float) -> Clip:
    """The clip of the main person in keypoint JSON of others, at `fps` frames per second; says where it has to guess the size of
    the pictures. Raises UserError for what is none, and for `fps` that are no rate."""
    poses = read_poses(path)
    if not fps:
        raise UserError(f"driving {path}: keypoint JSON does not say its frames per second; set sample.driving_fps=25 or so")
    check_fps(fps, "sample.driving_fps")
    size = next((size for size in poses.sizes if size is not None), None)
    if size is None:
        points = main_person(poses.people)
        furthest = points[points[..., 2] > 0][:, :2].max(0, initial=1.0)
        size = int(furthest[1]) + 2, int(furthest[0]) + 2
        taken = f"{size[1]}x{size[0]} holds all points, and is taken"
        print(f"note: driving {path}: does not say how large its pictures are; {taken}")
    layers = {"keypoints": path.name}
    return Clip(
        folder=path.parent, id=path.stem, identity="", num_frames=len(poses.people), layers=layers, fps=fps, width=size[1],
        height=size[0],
    )  # fmt: skip
