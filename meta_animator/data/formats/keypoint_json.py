"""Keypoints as JSON of others, recognised by what is in it; one file for a film or picture, or a folder with a file for each.

OpenPose      {"people": [{"pose_keypoints_2d": 18 or 25 times x, y, score; "face_keypoints_2d", "hand_left_keypoints_2d",
              "hand_right_keypoints_2d"}]}, one file per frame; a list of such for a film, with canvas_width and
              canvas_height where the writer knew them
MMPose        {"meta_info", "instance_info": [...]} of its demos, or the list alone of its inferencer: for a film
              {"frame_id", "instances": [...]}, for a picture the instances {"keypoints": [[x, y], ...], "keypoint_scores"}
rtmlib        has no format; its arrays are read as {"keypoints": (people, 133, 2), "scores": (people, 133)}, for a film a list
              of these
COCO          {"images", "annotations"} with keypoints, foot_kpts, face_kpts, lefthand_kpts, righthand_kpts
AlphaPose     [{"image_id": "12.jpg", "keypoints": [x, y, score, ...]}, ...] of all people in all frames, like results of COCO
DisCo         [{"keypoints": 17 times [x, y, score]}], one file per frame
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.formats.conventions import from_coco, from_openpose, wholebody
from meta_animator.data.formats.names import natural_key, picture_name
from meta_animator.errors import UserError, check_handles
from meta_animator.file_kinds import refuse_impostor

People = list[np.ndarray]  # (133, 3) each
SHARES = 2.0  # as far as points go that are shares of the canvas
EXPECTED = "expected keypoints as JSON of OpenPose, MMPose, rtmlib or COCO"
BROKEN = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


@dataclasses.dataclass(frozen=True)
class Poses:
    """Everybody in each frame or picture.

    people  of each, a list of float32 (133, 3)
    sizes   (height, width) of each in pixels; None where the file does not say
    names   of the pictures without their suffix, or empty where the file does not say
    """

    people: list[People]
    sizes: list[tuple[int, int] | None]
    names: list[str] = dataclasses.field(default_factory=list)


def holds_json(path: Path) -> bool:
    """Whether a file is JSON by its first character, or a folder holds .json files and no .npz."""
    if path.is_dir():
        return bool(json_files(path)) and not any(path.glob("*.npz"))
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def json_files(folder: Path) -> list[Path]:
    """The .json files of a folder in the order of their names (2 before 10), but for hidden ones."""
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".json" and not file.name.startswith(".")]
    return sorted(files, key=lambda file: natural_key(file.name))


def read_poses(path: Path) -> Poses:
    """What a file of keypoints, or a folder with a file for each frame, says. Raises UserError, one line, for what is none."""
    if not path.is_dir():
        return _read_file(path)
    files = json_files(path)
    if not files:
        raise UserError(f"{path}: holds no .json; {EXPECTED}, a file for each frame")
    people, sizes, names = [], [], []
    for file in files:
        poses = _read_file(file)
        if len(poses.people) != 1:
            raise UserError(f"{file}: is of {len(poses.people)} frames; in a folder each file is of one")
        people += poses.people
        sizes += poses.sizes
        names.append(picture_name(file.name))
    return Poses(people, sizes, names)


def _read_file(path: Path) -> Poses:
    refuse_impostor(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {EXPECTED}") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        check_handles(error, path)
        reason = f"{error.msg} at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "no UTF-8 text"
        raise UserError(f"{path}: is not JSON ({reason}); {EXPECTED}") from error
    try:
        return _parse(value)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = re.sub(r"\s+", " ", str(error))[:80]
        raise UserError(f"{path}: cannot be understood ({type(error).__name__}: {reason}); {EXPECTED}") from error


def _parse(value: Any) -> Poses:
    if isinstance(value, dict) and "images" in value and "annotations" in value:
        return _coco(value)
    if isinstance(value, dict) and "instance_info" in value:
        return _parse(value["instance_info"])
    if isinstance(value, dict) and ("people" in value or "keypoints" in value):
        return _frames([value])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"is JSON, but no keypoints; {EXPECTED}")
    if value and all("instances" in item for item in value):
        return _numbered(value)
    if value and all("image_id" in item for item in value):
        return _detections(value)
    if value and all(map(_is_frame, value)):
        return _frames(value)
    return Poses([[_instance(item) for item in value]], [None])


def _is_frame(item: dict) -> bool:
    """Whether it is of all people in a frame, and not of one of them."""
    return "people" in item or "frame" in item or not len(item["keypoints"]) or np.ndim(item["keypoints"]) == 3


def _frames(items: Sequence[dict]) -> Poses:
    people, sizes = [], []
    for item in items:
        if "people" in item:
            size = _canvas(item)
            people.append([_openpose_person(person, size) for person in item["people"] if _body(person)])
        else:
            size = None
            people.append(_arrays(item))
        sizes.append(size)
    return Poses(people, sizes)


def _numbered(items: Sequence[dict]) -> Poses:
    """Frames with numbers, from 0 or 1 on; those left out show nobody."""
    numbers = [int(item.get("frame_id", place)) for place, item in enumerate(items)]
    first = min(0 if 0 in numbers else 1, *numbers)
    if len(set(numbers)) < len(numbers) or first < 0 or max(numbers) - first >= 100 * len(numbers) + 1000:
        raise UserError("frame_id is given twice, is below 0 or leaves out nearly all frames; expected a number per frame")
    people: list[People] = [[] for _ in range(max(numbers) - first + 1)]
    for number, item in zip(numbers, items, strict=True):
        people[number - first] = [_instance(instance) for instance in item["instances"]]
    return Poses(people, [None] * len(people))


def _detections(items: Sequence[dict]) -> Poses:
    """People with the name or number of their picture; where all are numbers, those left out show nobody."""
    by_name: dict[str, People] = {}
    for item in items:
        by_name.setdefault(picture_name(str(item["image_id"])), []).append(_instance(item))
    names = sorted(by_name, key=natural_key)
    if all(name.isdecimal() for name in names):
        numbered = _numbered([{"frame_id": int(name), "instances": []} for name in names])
        people, first = numbered.people, int(names[-1]) - len(numbered.people) + 1
        for name in names:
            people[int(name) - first] = by_name[name]
        numbers = {int(name): name for name in names}
        return Poses(people, numbered.sizes, [numbers.get(first + k, str(first + k)) for k in range(len(people))])
    return Poses([by_name[name] for name in names], [None] * len(names), names)


def _instance(item: dict) -> np.ndarray:
    points = np.asarray(item["keypoints"], np.float64)
    points = points.reshape(-1, 3) if points.ndim == 1 else points
    return wholebody(_with_scores(points, item.get("keypoint_scores", item.get("scores"))))


def _arrays(item: dict) -> People:
    points = np.asarray(item["keypoints"], np.float64)
    if points.size == 0:
        return []
    scores = item.get("keypoint_scores", item.get("scores"))
    if points.ndim == 2:
        return [wholebody(_with_scores(points, scores))]
    scores = [None] * len(points) if scores is None else scores
    return [wholebody(_with_scores(person, own)) for person, own in zip(points, scores, strict=True)]


def _with_scores(points: np.ndarray, scores: Any) -> np.ndarray:
    """(n, 3) of (n, 2) and scores (n,), or of (n, 3)."""
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise UserError(f"keypoints have shape {points.shape}; expected (n, 2) with scores, or (n, 3), for each person")
    if scores is None:
        if points.shape[1] == 2:
            raise UserError("keypoints without scores; expected 'keypoint_scores', or x, y, score for each")
        return points
    scores = np.asarray(scores, np.float64)
    if scores.shape != points.shape[:1]:
        raise UserError(f"{len(points)} keypoints with scores of shape {scores.shape}; they must be as many")
    return np.concatenate([points[:, :2], scores[:, None]], axis=1)


def _canvas(item: dict) -> tuple[int, int] | None:
    if item.get("canvas_width") is None or item.get("canvas_height") is None:
        return None
    return int(item["canvas_height"]), int(item["canvas_width"])


def _body(person: dict) -> Any:
    return person.get("pose_keypoints_2d") or person.get("pose_keypoints")


def _openpose_person(person: dict, canvas: tuple[int, int] | None) -> np.ndarray:
    def points(name: str) -> np.ndarray | None:
        flat = person.get(f"{name}_2d") or person.get(name)
        return None if not flat else np.asarray(flat, np.float64).reshape(-1, 3)

    hands = points("hand_left_keypoints"), points("hand_right_keypoints")
    found = from_openpose(points("pose_keypoints"), points("face_keypoints"), *hands)
    if canvas is not None and np.abs(found[:, :2]).max() <= SHARES:
        found[:, :2] *= canvas[::-1]
    return found


def _coco(value: dict) -> Poses:
    images = sorted(value["images"], key=lambda image: natural_key(str(image["file_name"])))
    people: dict[Any, People] = {image["id"]: [] for image in images}
    parts = ("foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    for annotation in value["annotations"]:
        if annotation["image_id"] not in people:
            raise UserError(f"an annotation is of image_id {annotation['image_id']!r}, which is not among the images")
        if not annotation.get("keypoints") or annotation.get("iscrowd"):
            continue
        body, *rest = (
            None if annotation.get(name) is None else np.asarray(annotation[name], np.float64).reshape(-1, 3)
            for name in ("keypoints", *parts)
        )
        people[annotation["image_id"]].append(from_coco(body, *rest))
    sizes = [(int(i["height"]), int(i["width"])) if "height" in i and "width" in i else None for i in images]
    return Poses([people[image["id"]] for image in images], sizes, [picture_name(str(image["file_name"])) for image in images])
