"""Drawn poses are told from films, from other drawings and from poses on another ground."""

import numpy as np
import pytest

from meta_animator.data.conditions import draw_condition
from meta_animator.data.drawn_pose import find_fault
from meta_animator.data.layers import Layers
from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from tests import tiny
from tests.data.people import layers_of_person, standing_person


def drawn(size: int, zoom: float = 1.0, task: str = "dwpose") -> np.ndarray:
    points = standing_person(size, size)
    points[:, :2] = (points[:, :2] - [size / 2, 0.15 * size]) * zoom + [size / 2, 0.3 * size]
    return draw_condition(task, Layers(frame=np.zeros((size, size, 3), np.uint8), keypoints=points))


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("zoom", [0.3, 1.0, 3.0])
def test_drawn_poses_pass_near_and_far_large_and_small(size, zoom):
    black = np.zeros((size, size, 3), np.uint8)
    assert find_fault([black, drawn(size, zoom), drawn(size, zoom)[..., ::-1]]) is None
    assert find_fault([drawn(size, zoom, "pose_hamer")], strokes=False) is None
    assert find_fault([black]) is None, "nothing can be told of black frames"


def test_what_is_no_drawn_pose_is_said_as_what_it_is():
    person = layers_of_person(256, 256)
    pose = drawn(256)
    white, grey = (np.where(pose.max(-1, keepdims=True) < 40, ground, pose).astype(np.uint8) for ground in (255, 70))
    for frame, message in (
        (person.frame, "looks like a film, not like drawn poses (0% of its pixels are black)"),
        (white, "on a ground that is not black (RGB 255, 255, 255)"),
        (grey, "on a ground that is not black (RGB 70, 70, 70)"),
        (draw_condition("fg_inpainting", person), "looks like a film"),
        (np.pad(draw_condition("fg_inpainting", person), ((0, 0), (200, 200), (0, 0))), "are not the coloured strokes of a"),
        (np.repeat(draw_condition("canny", Layers(frame=white)).max(-1, keepdims=True), 3, -1), "not the coloured strokes"),
    ):
        assert message in find_fault([frame] * 3)


def test_drawn_conditions_of_a_data_set_are_looked_at_before_training(tmp_path, make_config):
    layers = layers_of_person(96, 96)
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add(id="a", identity="a", layers=[layers] * 2, fps=8, conditions={"dwpose": [layers.frame] * 2})
    with pytest.raises(UserError, match="clip 'a', drawn dwpose: this looks like a film, not like drawn poses"):
        tiny.make_stage(make_config(data__train=f"[{tmp_path / 'data'}]", model__tasks="[dwpose]"))
