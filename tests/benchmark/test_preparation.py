"""The benchmark of preparation measures what it says: every frame decoded once, every part timed."""

import numpy as np
import pytest

from meta_animator.annotators.base import Detection
from meta_animator.benchmark import preparation
from meta_animator.benchmark.preparation import DRAWN, measure
from meta_animator.data.layers import Layers
from meta_animator.errors import UserError
from meta_animator.media.video import VideoSource, write_video
from tests.data.people import layers_of_person


@pytest.fixture
def truth():
    known = layers_of_person(96, 64)
    return Layers(frame=known.frame, mask=known.mask, keypoints=known.keypoints)


@pytest.fixture
def film(tmp_path, truth):
    write_video(tmp_path / "person.mp4", [np.roll(truth.frame, k, 1) for k in range(5)], 10)
    return tmp_path / "person.mp4"


class Annotators:
    """Sees the person in every frame but the first."""

    names, choice = ("eye", "hand"), "fake"

    def __init__(self, truth, people=1):
        self.truth, self.people, self.frames = truth, people, 0

    def one(self, name):
        return self

    def detect(self, frames):
        self.frames += 1
        return [[Detection(box=np.zeros(4), score=1.0)] * (self.people if self.frames > 1 else 0)]

    def annotate(self, frames, people, known):
        return [{"keypoints": self.truth.keypoints, "mask": self.truth.mask}]


def test_without_networks_every_frame_is_decoded_once_and_what_can_be_drawn_is(film, truth, monkeypatch):
    decoded, read = [], VideoSource.read
    monkeypatch.setattr(VideoSource, "read", lambda self, indices: decoded.extend(indices) or read(self, indices))
    drawn = []
    monkeypatch.setattr(preparation, "draw_condition", lambda task, layers: drawn.append((task, layers.size)))
    timing = measure(film, 48, 4, None, truth)
    assert (timing.frames, timing.size, timing.networks) == (4, (96, 64), {})
    assert decoded == [0, 1, 2, 3] and drawn == [(task, (48, 48)) for task in DRAWN] * 4
    assert set(timing.without) == {"decode", "crop", *(f"draw {task}" for task in DRAWN)}
    assert set(DRAWN) >= {"dwpose", "pose_hamer", "fg_inpainting", "bg_outpainting", "canny", "blurred"}


def test_annotators_are_timed_by_name_and_must_see_somebody(film, truth):
    timing = measure(film, 48, 9, Annotators(truth))
    assert timing.frames == 5 and set(timing.networks) == {"eye", "hand"} and timing.without["draw canny"] > 0
    with pytest.raises(UserError, match="nobody is seen in its first 5 frames"):
        measure(film, 48, 9, Annotators(truth, people=0))
