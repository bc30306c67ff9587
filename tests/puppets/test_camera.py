"""The moving camera: off it changes nothing; on, scene and layers move smoothly and together."""

import dataclasses

import cv2
import numpy as np
import pytest

from meta_animator.data.manifest import read_manifest
from meta_animator.puppets.dataset import HELDOUT, make_driving
from meta_animator.puppets.rendering import make_camera, make_identity, make_scene, render_clip
from meta_animator.puppets.rendering.camera import place
from meta_animator.puppets.rendering.scene import backdrop
from meta_animator.settings import PuppetsConfig

SIZE = (64, 64)


def test_a_camera_without_motion_stands_where_it_stood():
    still, moving = make_camera(3), make_camera(3, 1.0)
    assert still == make_camera(3, 0.0) and still == dataclasses.replace(moving, drift=None)
    views = [place(still, make_identity(3), SIZE, time) for time in (0.0, 2.0)]
    assert np.array_equal(views[0].position, views[1].position) and np.array_equal(views[0].frame, views[1].frame)
    clips = [render_clip(3, 3, 2, size=SIZE, **options) for options in ({}, {"camera_motion": 0.0})]
    for before, after in zip(*clips, strict=True):
        assert np.array_equal(before.frame, after.frame) and np.array_equal(before.keypoints, after.keypoints)


@pytest.mark.parametrize("seed", range(6))
def test_a_moving_camera_moves_smoothly_and_looks_at_the_person(seed: int):
    camera, identity = make_camera(seed, 1.0), make_identity(seed)
    views = [place(camera, identity, (128, 128), time) for time in np.arange(0, 6, 1 / 12)]
    places = np.array([view.position for view in views])
    assert np.ptp(places, axis=0).max() > 0.1 and np.abs(np.diff(places, axis=0)).max() < 0.06
    assert np.abs(np.diff(places, n=2, axis=0)).max() < 0.02
    for view in views:
        assert np.allclose(view.frame.T @ view.frame, np.eye(3))
        x, y = view.project(view.to_camera(np.array([0.0, 0.9 * identity.height, 0.0])))
        assert 40 < x < 88 and 0 < y < 50


def test_the_scene_moves_little_from_frame_to_frame():
    scene, identity, camera = make_scene(1), make_identity(1), make_camera(1, 1.0)
    pictures = [backdrop(scene, place(camera, identity, SIZE, time)).colour for time in (0.0, 1 / 24, 1.5)]
    step, far = (np.abs(pictures[0] - other).mean() for other in pictures[1:])
    assert 0 < step < 0.25 * far


def test_layers_follow_the_moving_camera():
    for seed in range(4):
        for layers in render_clip(seed, seed, 3, fps=1, size=(128, 128), camera_motion=1.0):
            x, y = np.round(layers.keypoints[layers.keypoints[:, 2] > 0, :2]).astype(int).T
            near = cv2.dilate(layers.mask.astype(np.uint8), np.ones((3, 3), np.uint8))
            assert len(x) > 20 and near[y, x].all()
            assert np.array_equal(layers.mask, layers.depth > 0) and np.array_equal(layers.mask, layers.parts > 0)


@pytest.mark.parametrize("motion", [-0.1, 1.5])
def test_camera_motion_is_a_share(motion: float):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        make_camera(0, motion)


def test_data_sets_take_the_camera_motion(tmp_path):
    config = PuppetsConfig(driving_frames=3, fps=2, height=32, width=32, camera_motion=0.8)
    make_driving(config, tmp_path)
    wanted = render_clip(HELDOUT, HELDOUT, 3, 2, (32, 32), "dance", camera_motion=0.8)
    stored = read_manifest(tmp_path)[0].load(2, ("frame",)).frame
    assert np.array_equal(stored, wanted[2].frame)
    assert not np.array_equal(stored, render_clip(HELDOUT, HELDOUT, 3, 2, (32, 32), "dance")[2].frame)
