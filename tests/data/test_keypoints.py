import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from tests.data.people import standing_person


def test_five_points_are_in_arcface_order():
    points = kp.five_points(standing_person(400, 300))
    assert points.shape == (5, 2) and points.dtype == np.float32
    eye_l, eye_r, nose, mouth_l, mouth_r = points
    assert eye_l[0] < nose[0] < eye_r[0] and mouth_l[0] < nose[0] < mouth_r[0]
    assert eye_l[1] < nose[1] < mouth_l[1]
    assert eye_l == pytest.approx([150 - 0.02 * 400, 0.135 * 400], abs=1e-3)


def test_five_points_need_every_part_of_the_face():
    person = standing_person(400, 300)
    for hidden in (slice(36, 42), slice(30, 31), slice(54, 55)):
        seen = person.copy()
        seen[kp.FACE][hidden, 2] = 0.1
        assert kp.five_points(seen) is None
    one_lid_hidden = person.copy()
    one_lid_hidden[kp.FACE][36:38, 2] = 0
    assert kp.five_points(one_lid_hidden) is not None


def test_a_mirrored_face_is_no_face():
    person = standing_person(400, 300)
    person[:, 0] = 299 - person[:, 0]  # mirrored without exchanging the names: the back of a head
    assert kp.five_points(person) is None
    upside_down = standing_person(400, 300)
    upside_down[:, :2] = [299, 399] - upside_down[:, :2]
    assert kp.five_points(upside_down) is not None


def test_boxes_hold_their_points():
    person = standing_person(400, 300)
    person[kp.LEFT_WRIST] = (5000, 5000, 0.0)
    for box, points in ((kp.face_box(person), person[kp.FACE]), (kp.person_box(person), person[person[:, 2] > 0.3])):
        x0, y0, x1, y1 = box
        assert x0 < points[:, 0].min() and points[:, 0].max() < x1 < 400
        assert y0 < points[:, 1].min() and points[:, 1].max() < y1 < 500
    person[:, 2] = 0
    assert kp.face_box(person) is None and kp.person_box(person) is None


def test_flip_order_pairs_left_and_right():
    order = np.array(kp.FLIP_ORDER)
    assert np.array_equal(order[order], np.arange(133)) and len(set(kp.FLIP_ORDER)) == 133
    assert order[kp.LEFT_WRIST] == kp.RIGHT_WRIST and order[kp.LEFT_HEEL] == kp.RIGHT_HEEL
    assert order[91] == 112 and order[23 + 36] == 23 + 45 and order[23 + 48] == 23 + 54


def test_flipping_a_symmetric_person_gives_the_same_person():
    person = standing_person(401, 301)
    person[:, 0] -= 0.5  # the middle of 301 pixels, counted from pixel centres, is 150
    assert np.allclose(kp.flip_keypoints(person, 301), person, atol=1e-3)
