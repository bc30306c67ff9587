import dataclasses
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from meta_animator.data.conditions import CONDITIONS, draw_condition, find_conditions
from meta_animator.data.conditions.colour_order import recognise_colour_order
from meta_animator.data.conditions.maps import PART_COLOURS
from meta_animator.data.conditions.pose import openpose_colour
from meta_animator.data.layers import PARTS, Layers
from meta_animator.errors import UserError
from meta_animator.settings import TASKS
from tests.data.people import layers_of_person, standing_person, tasks_shown_by

ORDER = ["dwpose", "pose_hamer", "depth", "normal", "seg", "fg_inpainting", "bg_outpainting", "canny", "blurred"]


def posed(height: int = 512, width: int = 512) -> Layers:
    return Layers(frame=np.zeros((height, width, 3), np.uint8), keypoints=standing_person(height, width))


def at(image: np.ndarray, point: np.ndarray) -> tuple[int, ...]:
    x, y = np.rint(point[:2]).astype(int)
    return tuple(int(value) for value in image[y, x])


def between(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return (points[a] + points[b]) / 2


@pytest.mark.parametrize("size", [(96, 64), (200, 301), (512, 512)])
@pytest.mark.parametrize("task", CONDITIONS)
def test_every_task_draws(task, size):
    layers = layers_of_person(*size)
    before = {field.name: getattr(layers, field.name).copy() for field in dataclasses.fields(layers)}
    image = draw_condition(task, layers)
    assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert image.std() > 3
    assert np.array_equal(image, draw_condition(task, layers))
    assert all(np.array_equal(getattr(layers, name), value) for name, value in before.items())


def test_registry_begins_in_the_order_of_the_method():
    assert list(CONDITIONS)[: len(ORDER)] == ORDER == list(TASKS)
    six = ["dwpose", "pose_hamer", "fg_inpainting", "bg_outpainting", "canny", "blurred"]
    assert tasks_shown_by("frame", "mask", "keypoints")[:6] == six and tasks_shown_by("frame")[:2] == six[4:]
    assert tasks_shown_by("depth", "mask", "normal", "parts")[:3] == ["depth", "normal", "seg"]
    assert {c.name for c in CONDITIONS.values() if c.sided} >= {"dwpose", "pose_hamer", "normal", "seg"}
    assert {c.group for c in CONDITIONS.values()} == {"foreground", "background", "global"}
    assert CONDITIONS["bg_outpainting"].group == "background"


def tasks_of(folder: Path, **files: str) -> dict:
    """The conditions of a package of these files: names of tasks, separated by spaces; `from x` takes those of file x."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, tasks in files.items():
        lines = ["from meta_animator.data.conditions.condition import Condition"]
        for k, task in enumerate(tasks.split()):
            lines.append(f"T{k} = Condition({task!r}, 'global', ('frame',), lambda layers: layers.frame)")
        if tasks.startswith("from "):
            lines = [f"from {folder.name}.{tasks[5:]} import T0"]
        (folder / f"{name}.py").write_text("\n".join(lines))
    return find_conditions(folder.name, [str(folder)])


def test_a_file_in_the_folder_is_a_task(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert list(tasks_of(tmp_path / "own_tasks", a="zebra canny", b="dwpose apes", c="", d="from a")) == [
        "dwpose", "canny", "apes", "zebra",
    ]  # fmt: skip
    for k, (files, where) in enumerate({("a b", "b c"): "in a.py and b.py", ("", "b b"): r"in b\.py;"}.items()):
        with pytest.raises(UserError, match=rf"\A[^\n]*two Meta-Tasks are called 'b', {where}[^\n]*\Z"):
            tasks_of(tmp_path / f"twice_{k}", **dict(zip("ab", files, strict=True)))


def test_unknown_task_and_missing_layer():
    with pytest.raises(UserError, match=r"Did you mean 'dwpose'.*pose_hamer"):
        draw_condition("dw_pose", posed())
    with pytest.raises(UserError, match="'depth' needs depth and mask"):
        draw_condition("depth", posed())


def test_openpose_colours():
    assert [openpose_colour(i) for i in (0, 1, 2, 3, 6, 12, 17)] == [
        (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (0, 255, 0), (0, 0, 255), (255, 0, 85),
    ]  # fmt: skip


def test_limbs_have_the_published_colours():
    layers = posed()
    image, points = draw_condition("dwpose", layers), layers.keypoints
    limbs = {
        (kp.RIGHT_SHOULDER, kp.RIGHT_ELBOW): (153, 102, 0),
        (kp.LEFT_SHOULDER, kp.LEFT_ELBOW): (102, 153, 0),
        (kp.RIGHT_ELBOW, kp.RIGHT_WRIST): (153, 153, 0),
        (kp.RIGHT_HIP, kp.RIGHT_KNEE): (0, 153, 51),
        (kp.LEFT_KNEE, kp.LEFT_ANKLE): (0, 51, 153),
    }
    for (a, b), colour in limbs.items():
        assert at(image, between(points, a, b)) == colour
    assert at(image, points[kp.RIGHT_SHOULDER]) == (255, 170, 0)
    assert at(image, points[kp.LEFT_SHOULDER]) == (85, 255, 0)
    assert at(image, points[kp.FACE][8]) == (255, 255, 255)
    assert at(image, points[kp.LEFT_HAND][12]) == (0, 0, 255)
    assert at(image, (0, 0)) == (0, 0, 0)


def test_unseen_points_are_not_drawn():
    layers = posed()
    layers.keypoints[kp.RIGHT_ELBOW, 2] = 0.29
    image = draw_condition("dwpose", layers)
    assert at(image, layers.keypoints[kp.RIGHT_ELBOW]) == (0, 0, 0)
    assert at(image, between(layers.keypoints, kp.RIGHT_SHOULDER, kp.RIGHT_ELBOW)) == (0, 0, 0)
    layers.keypoints[:, 2] = 0
    assert draw_condition("dwpose", layers).max() == 0 and draw_condition("pose_hamer", layers).max() == 0


def test_wild_points_do_not_break_the_drawing():
    layers = posed(128, 96)
    layers.keypoints[kp.LEFT_WRIST] = (np.nan, 3, 0.9)
    layers.keypoints[kp.RIGHT_WRIST] = (1e30, -1e30, 0.9)
    layers.keypoints[kp.LEFT_HAND, :2] += 10_000
    for task in ("dwpose", "pose_hamer"):
        assert draw_condition(task, layers).max() > 0


def test_strokes_scale_with_the_picture():
    small, large = draw_condition("dwpose", posed(256, 256)), draw_condition("dwpose", posed(1024, 1024))
    share = [image.mean() for image in (small, large)]
    assert share[0] == pytest.approx(share[1], rel=0.12)


def test_hands_are_solid_and_shaded():
    layers = posed()
    image = draw_condition("pose_hamer", layers)
    x0, y0 = layers.keypoints[kp.LEFT_HAND][:, :2].min(0).astype(int) - 3
    x1, y1 = layers.keypoints[kp.LEFT_HAND][:, :2].max(0).astype(int) + 4
    patch = image[y0:y1, x0:x1].astype(int)
    grey = (np.ptp(patch, axis=-1) < 15) & (patch.mean(-1) > 60)
    assert grey.mean() > 0.2
    assert patch[grey].mean(-1).std() > 8
    lone = dataclasses.replace(layers, keypoints=layers.keypoints.copy())
    lone.keypoints[kp.LEFT_HAND, 2] = 0
    assert draw_condition("pose_hamer", lone)[y0:y1, x0:x1][grey].mean() < 30  # only the arm's end is left


def test_depth_is_brighter_when_nearer_and_grey_outside():
    layers = layers_of_person(128, 96)
    image = draw_condition("depth", layers).astype(int)
    assert (image[~layers.mask] == 100).all()
    column = image[layers.mask[:, 48], 48].sum(-1)
    assert column[-1] > column[len(column) // 2] > column[0]
    assert image[layers.mask][0, 2] > image[layers.mask][0, 1]  # far in inferno is purple, in RGB


def test_normals_parts_and_cutouts():
    layers = layers_of_person(128, 96)
    normal = draw_condition("normal", layers)
    assert tuple(normal[64, 48]) == (204, 128, 230) and normal[~layers.mask].max() == 0
    seg = draw_condition("seg", layers)
    assert tuple(seg[0, 0]) == PART_COLOURS["background"] and tuple(seg[64, 50]) == PART_COLOURS["torso"]
    assert set(PART_COLOURS) == set(PARTS) and len(set(PART_COLOURS.values())) == len(PARTS)
    person, scene = draw_condition("fg_inpainting", layers), draw_condition("bg_outpainting", layers)
    assert np.array_equal(person + scene, layers.frame)
    assert person[~layers.mask].max() == 0 and scene[layers.mask].max() == 0


def test_canny_and_blur():
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[:, 60:] = 255
    edges = draw_condition("canny", Layers(frame=frame))
    assert set(np.unique(edges)) == {0, 255} and edges[50, 58:62].max() == 255 and edges[:, :50].max() == 0
    blurred = draw_condition("blurred", Layers(frame=frame)).astype(int)
    assert 100 < blurred[50, 60, 0] < 155 and 0 < blurred[50, 57, 0] < blurred[50, 63, 0] < 255


def test_colour_order_of_drawn_poses():
    frames = [draw_condition("dwpose", posed(320, 256)), draw_condition("pose_hamer", posed(320, 256))]
    assert recognise_colour_order(frames) == "rgb"
    assert recognise_colour_order([frame[..., ::-1] for frame in frames]) == "bgr"
    assert recognise_colour_order([np.zeros((64, 64, 3), np.uint8)]) is None
    assert recognise_colour_order([layers_of_person(200, 200).frame]) is None
    assert recognise_colour_order([]) is None
