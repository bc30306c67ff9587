"""Keypoints of OpenPose, MMPose, rtmlib, COCO and DisCo, written here as their tools write them, come back as our 133 points."""

import json
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.annotations import read_film, read_photos
from meta_animator.data.clips import read_keypoints
from meta_animator.data.formats.keypoint_json import read_poses
from meta_animator.data.formats.names import natural_key
from meta_animator.data.keypoints import FACE, FEET, LEFT_HAND, RIGHT_HAND
from meta_animator.errors import UserError
from tests.data.people import standing_person

SIZE = (240, 160)
# Where OpenPose's body points stand in COCO's order, by name: nose, neck, right arm, left arm, right leg, left leg, eyes, ears.
RIGHT_ARM, LEFT_ARM, RIGHT_LEG, LEFT_LEG = (6, 8, 10), (5, 7, 9), (12, 14, 16), (11, 13, 15)
EYES_AND_EARS = (2, 1, 4, 3)


def person(scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """(133, 3); each point has a score of its own, so that a wrong order shows."""
    points = standing_person(*SIZE) * [scale, scale, 1]
    points[:, :2] += shift
    points[:, 2] = np.linspace(0.4, 0.95, len(points))
    return points.astype(np.float32)


def flat(points: np.ndarray) -> list[float]:
    return [float(value) for value in points.reshape(-1)]


def openpose(points: np.ndarray, body: int = 25) -> dict:
    neck, hip = (points[[a, b]].mean(0, keepdims=True) for a, b in ((5, 6), (11, 12)))
    limbs = [points[list(limb)] for limb in (RIGHT_ARM, LEFT_ARM, RIGHT_LEG, LEFT_LEG, EYES_AND_EARS)]
    nose, hips = points[:1], [hip] if body == 25 else []
    feet = [points[FEET]] if body == 25 else []
    ordered = np.concatenate([nose, neck, *limbs[:2], *hips, *limbs[2:], *feet])
    assert len(ordered) == body
    pupils = np.array([[1.0, 1.0, 0.9]] * 2)
    return {
        "pose_keypoints_2d": flat(ordered),
        "face_keypoints_2d": flat(np.concatenate([points[FACE], pupils])),
        "hand_left_keypoints_2d": flat(points[LEFT_HAND]),
        "hand_right_keypoints_2d": flat(points[RIGHT_HAND]),
    }


def mmpose(points: np.ndarray) -> dict:
    x0, y0, x1, y1 = *points[:, :2].min(0), *points[:, :2].max(0)
    box = [[float(x0), float(y0), float(x1), float(y1)]]
    return {"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist(), "bbox": box, "bbox_score": 0.9}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def film(path: Path, count: int = 2) -> np.ndarray:
    return np.stack([entry.keypoints for entry in read_film(path, count, Path("film.mp4"), SIZE)])


def test_openpose_writes_a_file_for_each_frame(tmp_path):
    people = [person(), person(shift=(4, 0))]
    for index, points in enumerate(people):
        write(tmp_path / f"walk_{index:012d}_keypoints.json", {"version": 1.3, "people": [openpose(points)]})
    assert np.allclose(film(tmp_path), people, atol=1e-4)
    bare = person()
    bare[FEET] = 0
    write(tmp_path / "one.json", [{"people": [openpose(bare, body=18)], "canvas_width": 160, "canvas_height": 240}])
    assert np.allclose(read_poses(tmp_path / "one.json").people[0], bare, atol=1e-4)
    shares = openpose(bare / [160, 240, 1], body=18) | {"hand_left_keypoints_2d": None}
    write(tmp_path / "one.json", {"people": [shares], "canvas_width": 160, "canvas_height": 240})
    bare[LEFT_HAND] = 0
    assert np.allclose(read_poses(tmp_path / "one.json").people[0], bare, atol=1e-3)


def test_points_that_openpose_and_disco_do_not_find_are_unknown(tmp_path):
    points = person()
    points[7] = 0  # OpenPose writes 0, 0, 0
    found = read_poses(write(tmp_path / "a.json", {"people": [openpose(points)]})).people[0][0]
    assert np.array_equal(found[7], [0, 0, 0]) and found[9, 2] > 0
    seventeen = points[:17].astype(int).astype(float)
    seventeen[:, 2], seventeen[9] = points[:17, 2], -1  # DisCo writes -1, -1, -1
    found = read_poses(write(tmp_path / "0001.png.json", [{"keypoints": seventeen.tolist()}])).people[0][0]
    seventeen[9] = 0
    assert np.allclose(found[:17], seventeen, atol=1e-4) and not found[17:].any()


def test_mmpose_films(tmp_path):
    """Its demo counts frames from 1, its inferencer from 0; a frame that is left out shows nobody."""
    people = [person(), person(shift=(4, 0))]
    demo = [{"frame_id": k + 1, "instances": [mmpose(points)]} for k, points in enumerate(people)]
    path = write(tmp_path / "results_walk.json", {"meta_info": {"dataset_name": "coco_wholebody"}, "instance_info": demo})
    assert np.allclose(film(path), people)
    inferred = [{"frame_id": 2 * k, "instances": [mmpose(points)]} for k, points in enumerate(people)]
    found = film(write(tmp_path / "walk.json", inferred), 3)
    assert np.allclose(found[[0, 2]], people) and not found[1].any()
    with pytest.raises(UserError, match=r"keypoints for 3 frames, but film.mp4 has 5"):
        film(tmp_path / "walk.json", 5)


@pytest.mark.parametrize("count", [26, 134, 136])
def test_other_orders_of_mmpose(tmp_path, count):
    points = person()
    if count in (26, 136):  # Halpe: toes of both feet, then heels; head, neck and hip between
        feet = points[FEET][[0, 3, 1, 4, 2, 5]]
        given = np.concatenate([points[:17], points[[0, 5, 11]], feet, points[23:]])[:count]
        points[23:] *= count == 136
    else:
        limbs = [points[list(limb)] for limb in (RIGHT_ARM, LEFT_ARM, RIGHT_LEG, LEFT_LEG, EYES_AND_EARS)]
        given = np.concatenate([points[:1], points[5:6], *limbs, points[17:]])
    assert len(given) == count
    found = read_poses(write(tmp_path / "a.json", [mmpose(given)])).people[0][0]
    assert np.allclose(found, points, atol=1e-4)


def test_rtmlib_arrays(tmp_path):
    people = np.stack([person(), person(0.5)])
    frame = {"keypoints": people[..., :2].tolist(), "scores": people[..., 2].tolist()}
    none = {"keypoints": [], "scores": []}
    poses = read_poses(write(tmp_path / "a.json", [frame, none]))
    assert np.allclose(poses.people[0], people) and poses.people[1] == []
    assert np.allclose(read_poses(write(tmp_path / "b.json", frame)).people[0], people)


def test_coco_annotations_belong_to_pictures_by_name(tmp_path):
    points = person()
    points[:, 2] = 1
    hidden = points.copy()
    hidden[3] = 0
    parts = {"keypoints": slice(0, 17), "foot_kpts": FEET, "face_kpts": FACE}
    parts |= {"lefthand_kpts": LEFT_HAND, "righthand_kpts": RIGHT_HAND}
    annotation = {name: flat(hidden[part] * [1, 1, 2]) for name, part in parts.items()}
    small = {"keypoints": flat(person(0.4)[:17] * [1, 1, 2])}
    images = [{"id": 7, "file_name": "train/b.jpg", "width": 160, "height": 240}, {"id": 3, "file_name": "train/a.jpg"}]
    annotations = [{"image_id": 7, **small}, {"image_id": 7, **annotation}, {"image_id": 3, **annotation}]
    path = write(tmp_path / "coco.json", {"images": images, "annotations": annotations})
    first, second = read_photos(path, [Path("photos/b.jpg"), Path("photos/a.jpg")])
    assert np.allclose(first.keypoints, hidden) and first.size == SIZE and second.size is None
    with pytest.raises(UserError, match=r"coco.json: names no entry for c.jpg; its names: a, b"):
        read_photos(path, [Path("c.jpg")])


def test_alphapose_lists_people_by_picture(tmp_path):
    """The second of four frames shows nobody, and is not in the list."""

    def item(name: str, points: np.ndarray) -> dict:
        return {"image_id": name, "category_id": 1, "keypoints": flat(points), "score": 2.5}

    people = [person(), person(shift=(3, 0)), person(shift=(6, 0))]
    for first in (0, 1):
        numbered = [item(f"{first + k}.jpg", points) for k, points in zip((0, 2, 3), people, strict=True)]
        found = film(write(tmp_path / "b.json", numbered[::-1]), 4)
        assert np.allclose(found[[0, 2, 3]], people) and not found[1].any()
    named = [item("anna/b.png", people[1]), item("anna/a.png", people[0]), item("anna/b.png", person(0.3))]
    entries = read_photos(write(tmp_path / "c.json", named), [Path("a.png"), Path("b.png")])
    assert np.allclose([entry.keypoints for entry in entries], people[:2])


def test_photos_find_their_file_under_any_tools_name(tmp_path):
    names = {"1.jpg": "1_keypoints.json", "2.png": "results_2.json", "3.png": "3.png.json"}
    values = [{"people": [openpose(person())]}, {"instance_info": [mmpose(person(0.9))]}, [mmpose(person(0.8))]]
    for name, value in zip(names.values(), values, strict=True):
        write(tmp_path / name, value)
    entries = read_photos(tmp_path, [Path(name) for name in names])
    assert [round(float(entry.keypoints[16, 1])) for entry in entries] == [round(216 * scale) for scale in (1, 0.9, 0.8)]
    with pytest.raises(UserError, match=r"names no entry for 4.png"):
        read_photos(tmp_path, [Path("4.png")])
    with pytest.raises(UserError, match=r"1.jpg and 1.png would share one entry"):
        read_photos(tmp_path, [Path("1.jpg"), Path("1.png")])


def test_names_are_sorted_as_people_count_whatever_is_in_them():
    names = ["10 m².jpg", "2 m².jpg", "m²10.jpg", "M²9.jpg", "³.jpg"]
    assert sorted(names, key=natural_key) == ["2 m².jpg", "10 m².jpg", "M²9.jpg", "m²10.jpg", "³.jpg"]


def test_the_largest_person_is_followed_and_others_are_said(tmp_path, capsys):
    """She crosses a smaller one, is missed in one frame, and is first in the list or last."""
    frames, large = [], [person(0.9, (4.0 * k, 0)) for k in range(8)]
    small = [person(0.5, (60 - 4.0 * k, 30)) for k in range(8)]
    for k in range(8):
        people = [small[k]] if k == 4 else [large[k], small[k]] if k % 2 else [small[k], large[k]]
        frames.append({"frame_id": k, "instances": [mmpose(points) for points in people]})
    path = write(tmp_path / "walk.json", frames)
    found = read_keypoints(path)
    assert not found[4].any()
    assert np.allclose(np.delete(found, 4, axis=0), np.delete(np.stack(large), 4, axis=0))
    assert "several people in 7 of 8 frames; the largest is followed" in capsys.readouterr().out


def test_a_passer_by_does_not_fill_a_gap_and_after_a_cut_the_main_person_is_found_again(tmp_path):
    here, there = person(0.6), person(0.6, (90, 40))
    shown = [here, here, here, person(0.2, (100, 100)), there, there]
    frames = [{"frame_id": k, "instances": [mmpose(points)]} for k, points in enumerate(shown)]
    found = read_keypoints(write(tmp_path / "walk.json", frames))
    assert not found[3].any()
    assert np.allclose(found[[0, 1, 2, 4, 5]], [here, here, here, there, there])


def test_somebody_who_comes_while_the_main_person_is_not_seen_is_somebody_else(tmp_path):
    here, there = person(0.6), person(0.6, (90, 40))
    shown = [[here]] * 4 + [[there]] + [[there, here]] * 3
    frames = [{"frame_id": k, "instances": [mmpose(points) for points in people]} for k, people in enumerate(shown)]
    found = read_keypoints(write(tmp_path / "walk.json", frames))
    assert not found[4].any() and np.allclose(np.delete(found, 4, axis=0), here)


BAD = {
    "is not JSON": "{",
    "is JSON, but no keypoints": '{"a": 1}',
    "18 keypoints of a person; expected 17, 26, 133, 134, 136": json.dumps([{"keypoints": [[1, 2, 0.5]] * 18}]),
    "keypoints without scores": json.dumps([{"keypoints": [[1, 2]] * 17}]),
    "17 keypoints with scores of shape": json.dumps([{"keypoints": [[1, 2]] * 17, "scores": [1]}]),
    "19 points of a body": json.dumps({"people": [{"pose_keypoints_2d": [1] * 57}]}),
    "cannot be understood": json.dumps({"people": [{"pose_keypoints_2d": [1] * 56}]}),
    "image_id 5, which is not among": json.dumps({"images": [], "annotations": [{"image_id": 5}]}),
    "frame_id is given twice": json.dumps([{"frame_id": 1, "instances": []}] * 2),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_keypoints_is_one_line(tmp_path, message):
    path = tmp_path / "a.json"
    path.write_text(BAD[message])
    with pytest.raises(UserError, match=message) as caught:
        read_poses(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
