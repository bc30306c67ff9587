"""Both interfaces list the same nodes; a link in custom_nodes finds them; what the nodes of pictures and prompts give."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator import comfyui
from meta_animator.annotators.base import detection_of
from meta_animator.comfyui import nodes, pictures
from meta_animator.comfyui.nodes import NODES
from meta_animator.data import retarget
from meta_animator.data.conditions import draw_condition
from meta_animator.data.keypoints import sees_person
from meta_animator.errors import UserError
from meta_animator.puppets.rendering.render import render_clip
from tests.comfyui.conftest import COMFYUI, save_run

ROOM = Path(comfyui.__file__).parent
SIZE = (96, 80)


def test_both_interfaces_list_the_same_nodes():
    async def third() -> list:
        return await (await comfyui.comfy_entrypoint()).get_node_list()

    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in asyncio.run(third())}
    assert list(schemas) == list(comfyui.NODE_CLASS_MAPPINGS) == list(comfyui.NODE_DISPLAY_NAME_MAPPINGS)
    for name, node in comfyui.NODE_CLASS_MAPPINGS.items():
        asked, schema = node.INPUT_TYPES(), schemas[name]
        told = {one: kind for part in asked.values() for one, kind in part.items()}
        assert list(told) == [one.id for one in schema.inputs] and hasattr(node, node.FUNCTION)
        for one in schema.inputs:
            kind, values = told[one.id]
            assert one.io_type == ("COMBO" if isinstance(kind, list) else kind)
            there = one.as_dict() if COMFYUI else one.named
            assert one.id in asked["optional" if there.get("optional") else "required"]
            assert not {key: value for key, value in values.items() if there[key] != value}
            assert not isinstance(kind, list) or there["options"] == kind
        assert list(node.RETURN_TYPES) == [one.io_type for one in schema.outputs]
        assert list(node.RETURN_NAMES) == [one.display_name for one in schema.outputs]
        assert schema.display_name == comfyui.NODE_DISPLAY_NAME_MAPPINGS[name]


def test_either_interface_runs_the_node_and_asks_what_changed(world):
    folder = str(world[1] / "run")
    plain = comfyui.NODE_CLASS_MAPPINGS["MetaAnimatorPrompt"]

    async def third() -> list:
        return await (await comfyui.comfy_entrypoint()).get_node_list()

    new = next(node for node in asyncio.run(third()) if node.GET_SCHEMA().node_id == "MetaAnimatorPrompt")
    assert getattr(plain(), plain.FUNCTION)(folder=folder) == tuple(new.execute(folder=folder).args)
    assert plain.IS_CHANGED(folder=folder, person="") == new.fingerprint_inputs(folder=folder, person="")


def test_a_link_in_custom_nodes_finds_the_package_and_loads_no_library(tmp_path):
    (tmp_path / "meta_animator").symlink_to(ROOM)
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("custom_x_node", {str(tmp_path / "meta_animator" / "__init__.py")!r},
                                              submodule_search_locations=[])
module = sys.modules["custom_x_node"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(*module.NODE_CLASS_MAPPINGS, callable(module.comfy_entrypoint))
"""
    bare = [sys.executable, "-S", "-c", program]  # without site-packages: neither this project nor any library is there
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [*(node.id for node in NODES), "True"], done.stderr


def test_the_prompt_calls_up_the_person(world, tmp_path):
    network, folder = world
    for place in ("run", "loras", "loras/dwpose", "merged"):
        assert nodes.prompt(str(folder / place)) == ("Person looks like sks, a red coat", "sks")
    assert nodes.prompt(str(folder / "run"), "bert") == ("Person looks like ohwx,", "ohwx")
    assert nodes.prompt(str(folder / "run"), template="{identifier} dances") == ("sks dances", "sks")
    save_run(tmp_path / "stage0", network, person="", description="")
    for place, person in ((folder / "run", "clara"), (tmp_path / "stage0", "")):
        with pytest.raises(UserError, match="it knows: anna, bert"):
            nodes.prompt(str(place), person)


class Annotators:
    """Stands in for a set of networks: tells what it was given of each frame, in the order of the frames."""

    layers, licence_notes, missing = ("keypoints", "mask"), (), {"depth": "to have it, add depth=depth-anything"}

    def __init__(self, clip, absent=()):
        self.clip, self.absent, self.asked = list(clip), absent, []
        self.left = iter(range(len(self.clip)))

    def detect(self, frames):
        found = [next(self.left) for _ in frames]
        return [[] if k in self.absent else [detection_of(self.clip[k].keypoints)] for k in found]

    def annotate(self, frames, people, known=None, only=None):
        start = sum(len(some) for some in self.asked)
        self.asked.append(people)
        return [
            {} if k in self.absent or person is None else {name: getattr(self.clip[k], name) for name in only or self.layers}
            for k, person in enumerate(people, start)
        ]


def clip_of(person, frames=20):
    return render_clip(person, person, frames, 12, SIZE)


@pytest.fixture
def seen(monkeypatch):
    """seen(clip, absent) -> the IMAGE of a puppets' clip, whose layers are what annotators will tell."""

    def show(clip, absent=()):
        told = Annotators(clip, absent)
        monkeypatch.setattr(pictures, "AnnotatorSet", lambda choice: told)
        return pictures.to_image([one.frame for one in clip])

    return show


def test_conditions_are_those_that_the_stages_train_on(seen):
    clip = clip_of(3)
    for task in ("dwpose", "fg_inpainting", "canny"):
        drawn = pictures.draw(task, seen(clip), None)
        assert drawn.shape == (20, *SIZE, 3) and drawn.dtype == torch.float32 and 0.5 < drawn.max() <= 1
        expected = np.stack([draw_condition(task, one) for one in clip])
        np.testing.assert_array_equal((drawn * 255).round().numpy(), expected)
    with pytest.raises(UserError, match="depth: to have it, add depth=depth-anything"):
        pictures.draw("depth", seen(clip), None)
    with pytest.raises(UserError, match="connect image, or layers"):
        pictures.draw("canny", None, None)


def test_pictures_come_and_go_without_loss():
    frames = [np.random.default_rng(k).integers(0, 256, (5, 7, 3), np.uint8) for k in range(2)]
    image = pictures.to_image(frames)
    transparent = torch.cat([image, torch.rand(2, 5, 7, 1)], -1)
    for given in (image, transparent):
        np.testing.assert_array_equal(np.stack(pictures.to_frames(given)), np.stack(frames))


def test_a_film_has_empty_frames_where_nobody_is_seen_but_not_only_such(seen, capsys):
    clip = clip_of(4)
    layers = pictures.read_layers(seen(clip, absent=(7, 8)), "light")
    assert [bool(sees_person(one.keypoints)) for one in layers] == [k not in (7, 8) for k in range(20)]
    assert "keypoints cannot be told in 2 of 20 frames" in capsys.readouterr().out
    assert not pictures.draw("dwpose", None, layers)[7].any() and pictures.draw("dwpose", None, layers)[6].any()
    with pytest.raises(UserError, match="nobody whose keypoints can be told in any of the 20 frames"):
        pictures.read_layers(seen(clip, absent=range(20)), "light")


def test_reading_tells_comfyuis_bar_how_far_it_is(seen, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total):
            bars.append([total])

        def update(self, done):
            bars[-1].append(done)

    monkeypatch.setattr("comfy.utils.ProgressBar", Bar)
    pictures.read_layers(seen(clip_of(3)), "light")
    assert bars == [[40, 16, 4, 16, 4]]  # all frames are looked for people, then annotated


def test_a_motion_is_fitted_to_the_persons_body(seen):
    motion, person = clip_of(5), clip_of(6, frames=3)
    layers = pictures.read_layers(seen(motion), "light")
    photos = pictures.read_layers(seen(person, absent=(0,)), "light", "photos")
    fitted = pictures.fit(layers, photos, SIZE[1], SIZE[0], fps=12)
    points = np.stack([one.keypoints for one in motion])
    expected = retarget.fit_limbs(points, person[1].keypoints, np.stack([one.keypoints for one in photos]), 12, 1.0)
    np.testing.assert_allclose(np.stack([one.keypoints for one in fitted]), expected, atol=1e-3)
    assert np.abs(expected[..., :2] - points[..., :2]).max() > 3 and {one.size for one in fitted} == {SIZE}
    larger = pictures.fit(layers, photos, 2 * SIZE[1], 2 * SIZE[0], fps=12)
    assert pictures.draw("dwpose", None, larger).shape == (20, 2 * SIZE[0], 2 * SIZE[1], 3)
    whole = pictures.fit(layers, photos, SIZE[1], SIZE[0], "whole")
    np.testing.assert_allclose(
        np.stack([one.keypoints for one in whole]), retarget.fit_keypoints(points, person[1].keypoints), atol=1e-3
    )
    with pytest.raises(UserError, match="person: no person in any of the 1 photos"):
        pictures.fit(layers, photos[:1], SIZE[1], SIZE[0])
    with pytest.raises(UserError, match="task 'fg_inpainting' needs mask"):
        pictures.draw("fg_inpainting", None, fitted)
