"""What a set of annotators does with layers that are known already, and how it says which of them would answer otherwise."""

import numpy as np
import pytest

from meta_animator.annotators import sets
from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.sets import AnnotatorSet, Entry

PERSON = Detection(box=np.array([0.0, 0.0, 4.0, 4.0]), score=1.0)


class Fake(Annotator):
    def __init__(self, files=None, device="cpu"):
        self.asked = []


class Points(Fake):
    name, gives = "points", ("keypoints", "mask")

    def annotate(self, frames, people, known):
        self.asked.append(len(frames))
        return [{"keypoints": np.full((133, 3), 7.0), "mask": np.ones((4, 4), bool)} for _ in frames]


class Near(Fake):
    """Depth of what the mask shows."""

    name, gives = "near", ("depth",)

    def annotate(self, frames, people, known):
        self.asked.append(len(frames))
        return [{"depth": layers["mask"].astype(np.float32)} for layers in known]


@pytest.fixture
def both(monkeypatch):
    kinds = Points, Near
    here = {kind.name: Entry(place=f"{__name__}:{kind.__name__}", gives=kind.gives, weights=(), install="") for kind in kinds}
    monkeypatch.setattr(sets, "ANNOTATORS", here | {"blaze-people": sets.ANNOTATORS["blaze-people"]})
    made = AnnotatorSet("light,keypoints=points,mask=points,depth=near")
    made._ready = {"points": Points(), "near": Near(), "blaze-people": None}
    return made


def test_known_layers_stay_and_later_ones_are_told_from_them(both):
    frames, mine = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    first, second = both.annotate(frames, [PERSON, PERSON], [{"mask": mine}, {}])
    assert first["mask"] is mine and not first["depth"].any() and (first["keypoints"] == 7).all()
    assert second["mask"].all() and second["depth"].all()
    (only,) = both.annotate(frames[:1], [PERSON], [{"mask": mine, "keypoints": first["keypoints"]}], only=["depth"])
    assert set(only) == {"mask", "keypoints", "depth"}
    assert [both._ready[name].asked for name in ("points", "near")] == [[2], [2, 1]]


def test_a_version_changes_with_the_code_of_its_annotator_alone(both, monkeypatch):
    before = both.versions
    assert set(before) == {"people", "keypoints", "mask", "depth"} and before["mask"].startswith("points ")

    def annotate(self, frames, people, known):
        return [{"depth": np.ones((4, 4), np.float32)} for _ in frames]

    monkeypatch.setattr(Near, "annotate", annotate)
    after = AnnotatorSet(both.choice).versions
    assert {role for role in after if after[role] != before[role]} == {"depth"}
