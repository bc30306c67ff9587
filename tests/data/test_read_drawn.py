"""Drawn poses read back into keypoints: in the ways in which programs draw them, of several sizes, compressed."""

import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from meta_animator.data.read_drawn import read_drawn
from tests.data.pose_films import compressed, dance, draw_pose

WAYS = {
    "face dots": {},
    "eyes and ears": {"head": "ears"},
    "nose alone": {"head": "nose"},
    "body alone": {"head": "nose", "hands": False},
    "thick": {"stroke": 7, "dot": 6},
    "thin": {"stroke": 2, "dot": 3},
    "bright limbs": {"shade": 1.0, "head": "nose", "hands": False},
    "dark limbs": {"shade": 0.45},
    "blended": {"blended": True, "head": "ears"},
}
LIMBS = [*range(5, 9), *range(11, 17)]
WRISTS = [kp.LEFT_WRIST, kp.RIGHT_WRIST]


def read(points, size, **way):
    frames = compressed([draw_pose(each, *size, **way) for each in points])
    return read_drawn(lambda k: frames[k], len(frames))


def off(reading, points, which) -> np.ndarray:
    """How far those points that were read lie from where they are, in pixels."""
    far = np.hypot(*(reading.points - points)[:, which, :2].transpose(2, 0, 1))
    return far[reading.points[:, which, 2] > 0]


@pytest.mark.parametrize("size", [(512, 512), (320, 256)])
@pytest.mark.parametrize("way", WAYS)
def test_joints_are_read_to_a_pixel_and_a_half(way, size):
    points = dance(6, *size, seed=len(way))
    reading = read(points, size, **WAYS[way])
    assert reading.good and reading.drawn == 6
    assert (reading.points[:, LIMBS, 2] > 0).mean() > 0.97
    far = off(reading, points, LIMBS)
    assert np.median(far) <= 1.5 and np.percentile(far, 95) <= 6
    hidden = WAYS[way].get("hands", True)
    assert np.median(off(reading, points, WRISTS)) <= (12 if hidden else 1.5), "below a hand a wrist is guessed"


def test_a_face_is_read_where_its_dots_are_apart():
    points = dance(6, 1024, 1024)
    reading = read(points, (1024, 1024))
    assert (reading.points[:, kp.FACE, 2] > 0).mean() > 0.9
    far = off(reading, points, kp.FACE)
    assert np.median(far) <= 3 and np.percentile(far, 90) <= 9


def test_dots_that_run_into_each_other_are_no_face():
    assert not (read(dance(4, 256, 256), (256, 256)).points[:, kp.FACE, 2] > 0).any()


@pytest.mark.parametrize("head", ["ears", "nose"])
def test_what_a_film_does_not_show_is_left_open(head):
    reading = read(dance(4, 512, 512), (512, 512), head=head, hands=False)
    assert (reading.points[:, kp.NOSE, 2] > 0).all()
    assert not (reading.points[:, [*range(17, 133)], 2] > 0).any()
    assert (reading.points[:, 1:5, 2] > 0).mean() > 0.9 if head == "ears" else not (reading.points[:, 1:5, 2] > 0).any()


def test_a_joint_that_is_away_for_one_frame_is_left_out():
    points = np.repeat(dance(1, 512, 512), 5, axis=0)
    points[:, kp.RIGHT_ELBOW, 0] += 4 * np.arange(5)
    points[2, kp.LEFT_ANKLE, 0] += 60
    reading = read(points, (512, 512), head="nose", hands=False)
    assert (reading.points[:, kp.LEFT_ANKLE, 2] > 0).tolist() == [True, True, False, True, True]
    assert (reading.points[:, [kp.RIGHT_ELBOW, kp.LEFT_KNEE], 2] > 0).all()


def hand_of_dots() -> np.ndarray:
    """Someone whose hands are large enough for their dots to lie apart."""
    points = dance(4, 768, 768, seed=1)
    for hand, wrist in ((kp.LEFT_HAND, kp.LEFT_WRIST), (kp.RIGHT_HAND, kp.RIGHT_WRIST)):
        points[:, hand, :2] = np.trunc(points[:, [wrist], :2] + 2.2 * (points[:, hand, :2] - points[:, [wrist], :2]))
    return points


def test_hands_are_read_where_their_dots_are_apart():
    points = hand_of_dots()
    reading = read(points, (768, 768))
    for hand in (kp.LEFT_HAND, kp.RIGHT_HAND):
        assert (reading.points[:, hand, 2] > 0).mean() > 0.4
        assert np.median(off(reading, points, hand)) <= 6


def test_noise_and_boxes_are_no_poses():
    rng = np.random.default_rng(0)
    boxes = np.zeros((256, 256, 3), np.uint8)
    boxes[40:200, 60:110], boxes[90:240, 150:230] = (200, 30, 20), (20, 160, 60)
    noise = rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    for frame in (boxes, noise):
        assert not read_drawn(lambda k, frame=frame: frame, 3).good
    assert read_drawn(lambda k: np.zeros((64, 64, 3), np.uint8), 3).drawn == 0
