"""What a clip is cut to: around the person, heads whole, with hair, from behind too, and without black bars."""

import numpy as np
import pytest

from meta_animator.data.keypoints import BODY, FACE, face_box, person_box
from meta_animator.preparation.boxes import clip_box, find_figure
from meta_animator.preparation.quality import measure
from meta_animator.puppets.rendering import render_clip
from tests.data.people import standing_person

HAVE = (720, 1280)


def person_at(x: float, y: float, tall: float) -> np.ndarray:
    points = standing_person(100, 0)
    points[:, :2] = points[:, :2] * tall / 100 + (x, y)
    return points


def box_facts(left, top, right, bottom):
    return {"left": left, "top": top, "right": right, "bottom": bottom}


def holds(box, inner, slack=1e-6) -> bool:
    return box[0] <= inner[0] + slack and box[1] <= inner[1] + slack and inner[2] <= box[2] + slack and inner[3] <= box[3] + slack


def test_a_person_at_the_side_of_a_wide_film_is_in_the_middle_and_whole():
    points = np.stack([person_at(x, 150, 400) for x in (980, 1000, 1020)])
    figure = find_figure(points, [], HAVE)
    for size in ((512, 512), (640, 448), None):
        box = clip_box(figure, HAVE, size)
        assert all(holds(box, person_box(one, margin=0.0)) for one in points)
        assert (box[0] + box[2]) / 2 == pytest.approx(1000, abs=25)
        if size is not None:
            assert (box[3] - box[1]) / (box[2] - box[0]) == pytest.approx(size[0] / size[1]) and box[2] - box[0] >= size[1] - 1e-6
    free = clip_box(figure, HAVE)
    assert free[3] - free[1] < 720 and free[2] - free[0] < 640 and not any(value % 1 for value in free)
    assert (free[2] - free[0]) % 2 == (free[3] - free[1]) % 2 == 0
    body = person_box(points[1], margin=0.0)
    assert body[0] - free[0] == pytest.approx(0.2 * 400, abs=40), "the margin is a share of the person"


def test_a_head_is_never_cut_where_the_person_does_not_fit():
    """A tall person in a portrait film that is to be square, going down and up."""
    have = (1280, 720)
    points = np.stack([person_at(360, 60 + down, 1150 - down) for down in (0, 60, 120)])
    box = clip_box(find_figure(points, [], have), have, (512, 512))
    assert box[2] - box[0] == box[3] - box[1] == 720
    assert all(holds(box, face_box(one)) for one in points)


@pytest.mark.parametrize("size", [(512, 512), None])
def test_from_behind_the_head_is_known_by_the_persons_outline(size):
    """Where no point of the head is seen, shoulders are highest; a square of a tall film would begin there."""
    have = (1280, 720)
    points = person_at(360, 60, 1150)
    points[BODY.start : 5, 2] = points[FACE, 2] = 0
    shoulders = float(points[5, 1])
    facts = box_facts(250, 130, 470, 1160)
    box = clip_box(find_figure(points[None], [facts], have), have, size)
    assert box[1] <= 130 < shoulders
    without = clip_box(find_figure(points[None], [{}], have), have, size)
    assert without[1] > 130 or size is None, "this test needs a head that no point tells of"
    assert clip_box(find_figure(None, [facts], have), have, size)[1] <= 130, "by the outline alone"


def test_hair_and_hats_belong_to_the_head():
    points = person_at(360, 60, 1150)
    top = face_box(points)[1] - 40
    box = clip_box(find_figure(points[None], [box_facts(250, top, 470, 1160)], (1280, 720)), (1280, 720), (512, 512))
    assert box[1] <= top


def test_a_head_that_rises_once_is_whole():
    """One frame in forty does not make the person's box larger; a head, or a hat on it, does."""
    have, low = (1280, 720), box_facts(250, 500, 470, 1160)
    behind = person_at(360, 430, 780)
    behind[BODY.start : 5, 2] = behind[FACE, 2] = 0
    up = behind + np.float32([0, -300, 0])
    facts = [low] * 40 + [box_facts(250, 200, 470, 1160)]
    assert 199 <= clip_box(find_figure(np.stack([behind] * 40 + [up]), facts, have), have, margin=0)[1] <= 200
    front = np.stack([person_at(360, 430, 780)] * 41)
    top = face_box(front[0])[1]
    hats = [box_facts(250, top, 470, 1160)] * 40 + [box_facts(250, top - 60, 470, 1160)]
    assert clip_box(find_figure(front, hats, have), have, margin=0)[1] <= top - 60


def test_a_box_is_never_empty():
    """Points that all lie in one place, and pictures of a few pixels."""
    points = np.full((1, 133, 3), 5, np.float32)
    for have in ((40, 60), (1, 30), (9, 1), (1, 1), (8, 8)):
        x0, y0, x1, y1 = clip_box(find_figure(points, [], have), have)
        assert 0 <= x0 < x1 <= have[1] and 0 <= y0 < y1 <= have[0]
        assert x1 - x0 >= min(10, have[1]) and y1 - y0 >= min(10, have[0] - have[0] % 2)


def test_black_bars_stay_outside():
    points = np.stack([person_at(200, 110, 480)])
    within = (160.0, 100.0, 1120.0, 620.0)
    for size in ((512, 512), None):
        box = clip_box(find_figure(points, [], HAVE), HAVE, size, within=within)
        assert holds(within, box) and holds(box, face_box(points[0]))
    assert clip_box(None, HAVE, within=within) == within
    assert clip_box(None, HAVE, (512, 512), within=within) == (380.0, 100.0, 900.0, 620.0)


def test_a_turning_puppet_is_whole_in_every_frame_by_what_is_measured():
    clip = render_clip(0, 0, 8, 3, (128, 96), "turn")
    points = np.stack([layers.keypoints for layers in clip])
    facts = [measure(layers.frame, {"keypoints": layers.keypoints, "mask": layers.mask}) for layers in clip]
    x0, y0, x1, y1 = (int(value) for value in clip_box(find_figure(points, facts, (128, 96)), (128, 96)))
    assert all(layers.mask[y0:y1, x0:x1].sum() >= 0.99 * layers.mask.sum() for layers in clip)
