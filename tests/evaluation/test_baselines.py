import numpy as np
import pytest

from meta_animator.evaluation.baselines import first_photo, nearest_photo, pose_distance

PHOTOS = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)])


def pose(seed, scale=1.0, shift=0.0):
    points = np.random.default_rng(seed).normal(size=(133, 2)) * scale + shift
    return np.concatenate([points, np.ones((133, 1))], 1).astype(np.float32)


def test_first_photo_repeats():
    assert first_photo(PHOTOS, 5)[:, 0, 0, 0].tolist() == [10] * 5


def test_nearest_photo_ignores_place_and_size():
    frames = [pose(2, 40, 100), pose(0, 3, -7), pose(1), None]
    chosen = nearest_photo(PHOTOS, [pose(0), pose(1), pose(2)], frames)
    assert chosen[:, 0, 0, 0].tolist() == [30, 10, 20, 10]


def test_only_points_visible_in_both_count():
    a, b = pose(0), pose(0, 5, 9)
    b[5] = 1000, 1000, 0
    assert pose_distance(a, b) == pytest.approx(0, abs=1e-5)
    b[2:, 2] = 0
    assert pose_distance(a, b) == float("inf")
    mirrored = pose(0)
    mirrored[:, :2] *= -1
    assert pose_distance(a, mirrored) == pytest.approx(2)


def test_every_photo_needs_its_pose():
    with pytest.raises(ValueError, match="photo_keypoints"):
        nearest_photo(PHOTOS, [pose(0)], [pose(0)])
