"""The driving motion fitted to the reference person, and a sheet that shows how."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from meta_animator.data import retarget
from meta_animator.data.conditions import draw_condition, find_condition
from meta_animator.data.crops import figure_crop
from meta_animator.data.figures import Figure
from meta_animator.data.keypoints import person_box
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import find_clip, is_data_set, read_manifest
from meta_animator.data.transforms import Box
from meta_animator.errors import UserError
from meta_animator.media.sheets import grid
from meta_animator.sampling.driving import Driving

MOST_PHOTOS = 240  # pictures of the reference person that are measured, evenly chosen
COLUMNS, ROW = 6, 300  # frames on the sheet, and the height of each in pixels
DIMMED = 0.55  # brightness of pictures under a skeleton


@dataclasses.dataclass(frozen=True)
class Person:
    """The reference person in the output's pixels, also beyond its edges, which cut the photo and not the person.

    points  (133, 3) keypoints, scores as in the photo; None where it has none
    photos  (n, 133, 3) keypoints of all pictures of that person, each in its own pixels; None where there are no others
    box     around the drawn pose, for drawn poses that are fitted by their outline
    """

    points: np.ndarray | None
    photos: np.ndarray | None = None
    box: Box | None = None


def find_person(
    layers: Layers, figure: Figure | None, size: tuple[int, int], margin: float = 0.0, photos: np.ndarray | None = None
) -> Person:
    """The person whom a reference photo, as `read_reference` gives it, shows in an output of `size` (height, width)."""
    if layers.keypoints is None:
        return Person(None)
    left, top, right, bottom = figure_crop(figure, layers.size, size, margin)
    scale = np.array([size[1] / (right - left), size[0] / (bottom - top)])
    points = layers.keypoints.astype(np.float32)
    points[:, :2] = (layers.keypoints[:, :2] + 0.5 - [left, top]) * scale - 0.5
    found = retarget.drawn_box(draw_condition("dwpose", layers))
    if found is None:
        return Person(points, photos)
    corners = (np.reshape(found, (2, 2)) - [left, top]) * scale
    return Person(points, photos, tuple(float(value) for value in corners.ravel()))


def photo_points(path: str, clip_id: str = "") -> np.ndarray | None:
    """Keypoints (n, 133, 3) of all pictures in a reference data set that show the person of its clip `clip_id` or the first;
    None for a single photo, or where there are none."""
    if not is_data_set(path):
        return None
    identity = find_clip(path, clip_id).identity
    clips = [clip for clip in read_manifest(path) if clip.identity == identity and "keypoints" in clip.layers]
    frames = [(clip, k) for clip in clips for k in range(clip.num_frames)]
    some = np.unique(np.linspace(0, len(frames) - 1, min(MOST_PHOTOS, len(frames))).round().astype(int))
    return np.stack([frames[k][0].load_keypoints(frames[k][1]) for k in some]) if frames else None


def fit_to_reference(
    driving: Driving, person: Person, tasks: Sequence[str], how: str = "limbs", smooth: float = 1.0
) -> Driving:  # fmt: skip
    """The driving with its skeleton brought to the reference person, as `sample.fit_pose` and `sample.smooth_pose` say. Drawn
    poses without keypoints are fitted by their outline. Raises UserError without keypoints of that person, and for tasks that
    show more than a skeleton."""
    if other := [task for task in tasks if find_condition(task).needs != ("keypoints",)]:
        raise UserError(f"sample.fit_pose: moves skeletons, not '{other[0]}'; set sample.fit_pose=no or other sample.tasks")
    if person.points is None:
        raise UserError("sample.fit_pose: the reference has no keypoints; prepare it with scripts/prepare_data.py")
    own = driving.points()
    if own is not None and how == "limbs":
        fitted = retarget.fit_limbs(own, person.points, person.photos, driving.clip.timeline.rate, smooth)
        return dataclasses.replace(driving, keypoints=fitted)
    if own is not None:
        return dataclasses.replace(driving, keypoints=retarget.fit_keypoints(own, person.points))
    box = person.box or person_box(person.points)
    if box is None:
        raise UserError("sample.fit_pose: the reference photo shows no person to fit the poses to")
    task = next(task for task in tasks if task in driving.clip.conditions)
    fit = retarget.drawn_pose_fit((driving.drawn(task, k) for k in driving.order), box)
    return dataclasses.replace(driving, drawn_fit=fit)


def fit_sheet(driving: Driving, reference: Layers, task: str) -> np.ndarray:
    """Some frames side by side: the driving (where it has pictures), its skeleton, and the fitted skeleton over the reference
    photo: uint8 (h, w, 3)."""
    places = np.unique(np.linspace(0, len(driving) - 1, min(COLUMNS, len(driving))).round().astype(int)).tolist()
    clip, rows = driving.clip, {}
    if clip.has_frames:
        rows["driving"] = [clip.load(driving.order[k], ("frame",)).frame for k in places]
    own = [driving.drawn(task, driving.order[k]) for k in places]
    rows["its skeleton"] = [over(image, frame) for image, frame in zip(own, rows["driving"], strict=True)] if rows else own
    rows["fitted"] = [over(driving.condition(task, k), reference.frame) for k in places]
    pictures = [[_row_high(image) for image in row] for row in rows.values()]
    return grid(pictures, [str(driving.order[k]) for k in places], list(rows))


def _row_high(image: np.ndarray) -> np.ndarray:
    width = max(1, round(image.shape[1] * ROW / image.shape[0]))
    smaller = image.shape[0] > ROW
    return cv2.resize(image, (width, ROW), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def over(skeleton: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """A drawn skeleton over a dimmed picture of the same size: uint8 (h, w, 3)."""
    drawn = skeleton.max(-1, keepdims=True) / 255
    return (drawn * skeleton + (1 - drawn) * DIMMED * picture).round().astype(np.uint8)
