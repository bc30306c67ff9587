"""Choosing annotators by one word and by name: what is given, by whom, what is missing, and what is wrong with a choice."""

import pickle
import sys

import pytest

from meta_animator import published
from meta_animator.annotators import sets
from meta_animator.annotators.base import Annotator, Detector
from meta_animator.annotators.sets import ANNOTATORS, LAYERS, PEOPLE, AnnotatorSet, parse_choice
from meta_animator.errors import UserError


def test_the_light_set_says_what_it_gives_and_what_would_give_the_rest():
    light = AnnotatorSet("light")
    assert light.made_by == {"keypoints": "blaze", "mask": "blaze"} and light.layers == ("keypoints", "mask")
    assert set(light.missing) == {"depth", "normal", "parts"} and "depth=depth-anything" in light.missing["depth"]
    assert light.names == ("blaze-people", "blaze") and light.licence_notes == []


def test_annotators_are_mixed_by_name():
    mixed = AnnotatorSet("light, mask=sam2,parts=segformer,depth=none")
    assert mixed.made_by == {"keypoints": "blaze", "mask": "sam2", "parts": "segformer"}
    assert set(mixed.missing) == {"depth", "normal"}
    (note,) = mixed.licence_notes
    assert "segformer" in note and "non-commercial" in note
    assert parse_choice("full,people=blaze-people")[PEOPLE] == "blaze-people"


@pytest.mark.parametrize(
    "choice, words",
    [
        ("lite", ["'lite'", "Did you mean 'light'?", "light, full"]),
        ("light,mask", ["'mask' is no LAYER=NAME"]),
        ("light,mask=sam3", ["annotator of mask 'sam3'", "Did you mean 'sam2'?", "none"]),
        ("light,mask=moge", ["annotator of mask 'moge'", "blaze, sam2"]),
        ("light,frame=blaze", ["layer 'frame'", "keypoints, mask"]),
        ("full,people=none", ["annotator of people 'none'", "blaze-people, yolox"]),
    ],
)
def test_names_that_are_not_there_are_told_with_those_that_are(choice, words):
    with pytest.raises(UserError) as error:
        AnnotatorSet(choice)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(published, "find", lambda name, folder, fetch: tmp_path / name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"'blaze-people' needs .* pip install ai-edge-litert"):
        AnnotatorSet("light").load()


def test_a_file_that_is_no_network_is_refused_in_one_line(monkeypatch, tmp_path):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(published, "find", lambda name, folder, fetch: tmp_path / "poor.tflite")
    (tmp_path / "poor.tflite").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"poor\.tflite: cannot be read as a TFLite network"):
        AnnotatorSet("light").load()


@pytest.mark.parametrize("name", ANNOTATORS)
def test_every_annotator_of_the_table_is_there(name):
    kind = AnnotatorSet("light")._class(name)
    entry = ANNOTATORS[name]
    assert set(entry.weights) <= set(published.published())
    assert issubclass(kind, Detector) if entry.gives == (PEOPLE,) else issubclass(kind, Annotator) and kind.gives == entry.gives
    assert entry.gives == (PEOPLE,) or set(entry.gives) <= set(LAYERS)


def test_a_set_goes_to_other_processes_without_its_networks():
    light = AnnotatorSet("light,mask=none", fetch=False)
    light._ready = {"blaze": open(__file__)}  # noqa: SIM115, cannot be pickled
    again = pickle.loads(pickle.dumps(light))
    light._ready["blaze"].close()
    assert again.made_by == light.made_by and again.fetch is False and again._ready == {}
    assert sets.SETS["light"]["mask"] == "blaze"  # a choice leaves the sets as they are
