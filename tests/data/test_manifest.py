import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.conditions import CONDITIONS, draw_condition
from meta_animator.data.layers import LAYER_NAMES, Layers
from meta_animator.data.manifest import DatasetWriter, driving_clip, read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from tests.data.people import layers_of_person, tasks_shown_by

SIZE = (48, 36)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips of two frames; the second has frames only and a drawn dwpose."""
    with DatasetWriter(tmp_path / "set") as writer:
        frames = [layers_of_person(*SIZE, seed=i) for i in range(2)]
        writer.add(id="walk", identity="anna", layers=frames, fps=12.5, prompt="in a park")
        plain = [Layers(frame=layers.frame) for layers in frames]
        drawn = [np.full((*SIZE, 3), 7 * i, np.uint8) for i in range(2)]
        writer.add(id="b", identity="ben", layers=plain, fps=25, split="heldout", conditions={"dwpose": drawn})
    return tmp_path / "set"


def edit(folder: Path, line: int, **changes: object) -> None:
    path = folder / "manifest.jsonl"
    entries = [json.loads(text) for text in path.read_text().splitlines()]
    for key, value in changes.items():
        if value is None:
            del entries[line - 1][key]
        else:
            entries[line - 1][key] = value
    path.write_text("\n".join(json.dumps(entry) for entry in entries))


def test_what_is_written_comes_back(folder):
    walk, other = read_manifest(folder)
    assert (walk.id, walk.identity, walk.prompt, walk.fps, walk.num_frames) == ("walk", "anna", "in a park", 12.5, 2)
    assert (walk.width, walk.height, walk.kind, walk.split, other.split) == (36, 48, "clip", "train", "heldout")
    for index in range(2):
        loaded, original = walk.load(index), layers_of_person(*SIZE, seed=index)
        for name in ("frame", "mask", "keypoints", "parts"):
            assert np.array_equal(getattr(loaded, name), getattr(original, name))
            assert getattr(loaded, name).dtype == getattr(original, name).dtype
        assert np.abs(loaded.depth - original.depth).max() < 1e-4 and loaded.depth.dtype == np.float32
        assert np.abs(loaded.normal - original.normal).max() < 0.01 and loaded.normal.dtype == np.float32
    with pytest.raises(IndexError, match="2"):
        walk.load(2)


def test_a_line_ends_at_a_newline_and_nowhere_else(folder):
    """Other separators of Unicode may stand in a prompt; editors may add a byte order mark and carriage returns."""
    prompt, path = "one\u2028two\x85three\u2029", folder / "manifest.jsonl"
    entries = [json.loads(text) for text in path.read_text().splitlines()]
    lines = [json.dumps(entry | {"prompt": prompt}, ensure_ascii=False) for entry in entries]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert [clip.prompt for clip in read_manifest(folder)] == [prompt, prompt]


def test_only_the_layers_asked_for_are_loaded(folder):
    layers = read_manifest(folder)[0].load(0, ("mask",))
    assert layers.keypoints is None and layers.mask is not None and layers.frame.max() == 0
    assert layers.size == SIZE


def test_tasks_and_conditions(folder):
    walk, other = read_manifest(folder)
    assert walk.available_tasks() == list(CONDITIONS)
    assert other.available_tasks() == ["dwpose", *tasks_shown_by("frame")]
    assert (other.load_condition("dwpose", 1) == 7).all()
    assert np.array_equal(walk.load_condition("seg", 1), draw_condition("seg", walk.load(1)))
    with pytest.raises(UserError, match="needs parts"):
        other.load_condition("seg", 0)
    assert other.load(0, LAYER_NAMES).keypoints is None


def test_clips_travel_to_workers_and_have_stamps(folder):
    walk, other = read_manifest(folder)
    assert pickle.loads(pickle.dumps(walk)) == walk
    assert walk.stamp() != other.stamp() and walk.stamp() == read_manifest(folder)[0].stamp()
    write_image(folder / "clips/walk/frame/000000.png", np.zeros((*SIZE, 3), np.uint8))
    assert walk.stamp() != read_manifest(folder)[0].stamp()


BAD_VALUES = {
    "key 'fps' is missing": {"fps": None},
    "'width' is \"wide\"": {"width": "wide"},
    "'num_frames' is -2": {"num_frames": -2},
    "unknown key 'colour'": {"colour": "red"},
    "'kind' is 'film'": {"kind": "film"},
    "'split' is 'test'": {"split": "test"},
    "'identity' is empty": {"identity": " "},
    "id '../x' may hold": {"id": "../x"},
    "id 'walk' is used twice": {"id": "walk"},
    "unknown layer 'alpha'": {"layers": {"alpha": "x"}},
    "leaves the data-set folder": {"layers": {"frame": "../set/clips/b/frame"}},
    "/etc.*leaves the data-set folder": {"layers": {"frame": "/etc"}},
    "which does not exist": {"layers": {"frame": "clips/none"}},
    "unknown task 'dw'": {"conditions": {"dw": "clips/b/frame"}},
    "has frames 2, the manifest says 3": {"num_frames": 3},
    "has size 36x48, the manifest says 36x50": {"height": 50},
    "a photo has 1 frame": {"kind": "photo"},
    "has no 'frame' layer": {"layers": {}, "conditions": {}},
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_errors_name_the_line(folder, message):
    edit(folder, 2, **BAD_VALUES[message])
    with pytest.raises(UserError, match=f"manifest.jsonl, line 2: .*{message}") as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_broken_files_name_the_line(folder):
    manifest = folder / "manifest.jsonl"
    good = manifest.read_text()
    manifest.write_text(good + '{"id": \n')
    with pytest.raises(UserError, match="line 3: is not JSON"):
        read_manifest(folder)
    manifest.write_text(good + "[1]\n")
    with pytest.raises(UserError, match="line 3: is a JSON list"):
        read_manifest(folder)
    manifest.write_text(good)
    np.savez(folder / "clips/walk/keypoints.npz", keypoints=np.zeros((2, 17, 3)))
    with pytest.raises(UserError, match=r"line 1: .*shape \(2, 17, 3\)"):
        read_manifest(folder)
    np.savez(folder / "clips/walk/keypoints.npz", keypoints=np.zeros((5, 133, 3)))
    with pytest.raises(UserError, match="line 1: 'keypoints' has frames 5, the manifest says 2"):
        read_manifest(folder)
    os.rename(folder / "clips/b/frame/000001.png", folder / "clips/b/frame/000007.png")
    manifest.write_text(good.splitlines()[1])
    with pytest.raises(UserError, match=r"000001\.png is missing"):
        read_manifest(folder)
    with pytest.raises(UserError, match="no such file"):
        read_manifest(folder / "clips")


def test_links_may_not_leave_the_folder(folder, tmp_path):
    (tmp_path / "secret").mkdir()
    for i in range(2):
        write_image(tmp_path / "secret" / f"{i:06d}.png", np.zeros((*SIZE, 3), np.uint8))
    os.symlink(tmp_path / "secret", folder / "clips/link")
    edit(folder, 2, layers={"frame": "clips/link"})
    with pytest.raises(UserError, match=r"line 2: .*leaves"):
        read_manifest(folder)
    (folder / "clips/b/frame/000001.png").unlink()
    os.symlink(tmp_path / "secret/000001.png", folder / "clips/b/frame/000001.png")
    edit(folder, 2, layers={"frame": "clips/b/frame"})
    with pytest.raises(UserError, match=r"line 2: .*link that leaves"):
        read_manifest(folder)


def test_a_later_frame_of_another_size_is_named(folder):
    write_image(folder / "clips/walk/mask/000001.png", np.zeros((5, 5), np.uint8))
    walk = read_manifest(folder)[0]
    with pytest.raises(UserError, match="mask of frame 1 is 5x5"):
        walk.load(1)


def test_videos_as_layers_and_driving_only(folder, tmp_path):
    frames = [np.full((48, 36, 3), 40 * i, np.uint8) for i in range(2)]
    write_video(folder / "clips/b/pose.mp4", frames, fps=25)
    edit(folder, 2, layers={"frame": "clips/b/pose.mp4"}, conditions={"dwpose": "clips/b/pose.mp4"})
    clip = read_manifest(folder)[1]
    assert abs(int(clip.load(1).frame.mean()) - 40) < 3
    edit(folder, 2, layers={})
    driving = read_manifest(folder)[1]
    assert not driving.has_frames and driving.available_tasks() == ["dwpose"]
    with pytest.raises(UserError, match="'b' has no frames, only dwpose"):
        driving.load(0)
    for clip in (driving, driving_clip(folder / "clips/b/pose.mp4")):
        assert abs(int(clip.load_condition("dwpose", 1).mean()) - 40) < 3
    assert driving_clip(folder / "clips/b/pose.mp4").num_frames == 2


def test_writer_leaves_nothing_half_written(tmp_path):
    def breaks():
        yield layers_of_person(*SIZE)
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "new") as writer:
        writer.add(id="a", identity="x", layers=breaks(), fps=5)
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_what_does_not_fit(tmp_path):
    person = layers_of_person(*SIZE)
    with DatasetWriter(tmp_path / "new") as writer:
        for layers, message in (
            ([], "no frames"),
            ([person, Layers(frame=person.frame)], "frame 1"),
            ([person, person, layers_of_person(10, 10)], "frame 2"),
        ):
            with pytest.raises(ValueError, match=message):
                writer.add(id="a", identity="x", layers=layers, fps=5)
        writer.add(id="a", identity="x", layers=[person], fps=5)
        with pytest.raises(ValueError, match="used already"):
            writer.add(id="a", identity="x", layers=[person], fps=5)
    assert [clip.id for clip in read_manifest(tmp_path / "new")] == ["a"]


def test_overwriting_only_what_is_a_data_set(folder, tmp_path):
    with pytest.raises(UserError, match="--overwrite"):
        DatasetWriter(folder)
    with DatasetWriter(folder, overwrite=True) as writer:
        writer.add(id="n", identity="new", layers=[layers_of_person(*SIZE)], fps=1, kind="photo")
    assert [clip.id for clip in read_manifest(folder)] == ["n"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not replaced"):
        DatasetWriter(tmp_path / "home", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "set"]
