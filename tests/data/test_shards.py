"""Tar shards hold what the folder held, read in place: locally, and through fsspec (memory://)."""

import itertools
import json
import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from meta_animator.data import shards
from meta_animator.data.layers import LAYER_NAMES, Layers
from meta_animator.data.manifest import DatasetWriter, find_clip, is_data_set, read_manifest
from meta_animator.data.samples import SampleSet, read_clips
from meta_animator.data.shard_writer import write_shards
from meta_animator.data.tasks import Draw
from meta_animator.errors import UserError
from meta_animator.media.video import write_video
from meta_animator.preparation.check import check_folder
from meta_animator.settings import DataConfig
from tests.data.people import layers_of_person

SIZE = (48, 40)
FRAMES = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip with all layers, whose id has a dot; one whose frames and poses are films; a photo."""
    with DatasetWriter(tmp_path / "set") as writer:
        frames = [layers_of_person(*SIZE, seed=k) for k in range(FRAMES)]
        writer.add(id="walk.1", identity="anna", layers=frames, fps=12.5, prompt="in a park\u2028at noon")
        plain = [Layers(frame=layers.frame) for layers in frames]
        drawn = [np.full((*SIZE, 3), 60 * k, np.uint8) for k in range(FRAMES)]
        writer.add(id="film", identity="ben", layers=plain, fps=25, conditions={"dwpose": drawn})
        writer.add(id="photo", identity="anna", layers=frames[:1], fps=1, kind="photo", split="heldout")
    home = tmp_path / "set" / "clips" / "film"
    for place, images in ((home / "frame", [layers.frame for layers in frames]), (home / "conditions" / "dwpose", drawn)):
        shutil.rmtree(place)
        write_video(place.with_suffix(".mp4"), images, 25)
    manifest = tmp_path / "set" / "manifest.jsonl"
    text = manifest.read_text().replace('"prompt": "in', '"made_by": {"mask": "sam2"}, "prompt": "in')
    text = text.replace("film/frame", "film/frame.mp4").replace("conditions/dwpose", "conditions/dwpose.mp4")
    manifest.write_text(text)
    return tmp_path / "set"


@pytest.fixture
def in_memory(folder: Path):
    """The shards of `folder` at a URL, packed so that each clip has a tar of its own."""
    assert write_shards(folder, folder.parent / "shards", 0.001) == (3, 3)
    system = fsspec.filesystem("memory")
    system.put(str(folder.parent / "shards"), "/sets/dance", recursive=True)
    yield "memory://sets/dance"
    system.rm("/sets", recursive=True)


def test_shards_hold_what_the_folder_held(folder, in_memory):
    for place in (str(folder.parent / "shards"), in_memory):
        assert is_data_set(place)
        for packed, clip in zip(read_manifest(place), read_manifest(folder), strict=True):
            assert (packed.id, packed.identity, packed.prompt, packed.fps) == (clip.id, clip.identity, clip.prompt, clip.fps)
            assert (packed.kind, packed.split, packed.available_tasks()) == (clip.kind, clip.split, clip.available_tasks())
            assert packed.made_by == clip.made_by
            for index, name in itertools.product(range(clip.num_frames), LAYER_NAMES):
                found, wanted = (getattr(one.load(index), name) for one in (packed, clip))
                assert found is wanted is None or np.array_equal(found, wanted)
            for task, index in itertools.product(clip.available_tasks(), range(clip.num_frames)):
                assert np.array_equal(packed.load_condition(task, index), clip.load_condition(task, index))
    assert find_clip(in_memory, "photo").split == "heldout"


def test_batches_are_those_of_the_folder(folder, in_memory):
    config = DataConfig(height=32, width=32, random_crop=0.3, flip=0.0, num_frames=2)
    for frames in (None, 2):
        sets = [
            SampleSet(read_clips([str(place)], "train"), config, seed=3, identifiers={}, num_frames=frames)
            for place in (folder, in_memory)
        ]
        assert len(sets[0]) == len(sets[1]) > 0 and sets[0].by_task(["dwpose"]) == sets[1].by_task(["dwpose"])
        for number in range(len(sets[0])):
            mine, packed = (one[Draw(sample=number, task="dwpose", number=number)] for one in sets)
            assert mine.keys() == packed.keys()
            assert all(torch.equal(mine[key], packed[key]) for key in mine if isinstance(mine[key], torch.Tensor))
            assert mine["prompts"] == packed["prompts"]


def test_a_check_of_shards_looks_into_them(folder, in_memory):
    found = check_folder(in_memory)
    assert (found.clips, found.people, found.faults) == (3, 2, check_folder(folder).faults)
    system = fsspec.filesystem("memory")
    tar = bytearray(system.cat("/sets/dance/00002.tar"))
    start = tar.index(b"\x89PNG")
    tar[start : start + 60] = bytes(60)
    system.pipe("/sets/dance/00002.tar", bytes(tar))
    fault, *_ = check_folder(in_memory).faults
    assert "line 3: 'photo': frame of frame 0 cannot be read" in fault


def test_webdataset_reads_a_clip_as_one_sample(folder, in_memory):
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in (folder.parent / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["id"] for sample in samples] == ["walk.1", "film", "photo"]
    walk = read_manifest(folder)[0]
    assert np.array_equal(samples[0]["frame.000002.png"], walk.load(2).frame)
    assert {key for key in samples[2] if key.startswith("frame.")} == {"frame.000000.png"}
    assert samples[0]["keypoints.npz"]["keypoints"].shape == (FRAMES, 133, 3)


def test_the_same_data_make_the_same_bytes_and_other_content_another_stamp(folder):
    homes = [folder.parent / name for name in ("a", "b")]
    for home in homes:
        write_shards(folder, home, 100)
    assert len({(home / "00000.tar").read_bytes() for home in homes}) == 1
    before = [clip.stamp() for clip in read_manifest(homes[0])]
    assert before == [clip.stamp() for clip in read_manifest(homes[1])] and len(set(before)) == 3
    picture = folder / "clips" / "photo" / "mask" / "000000.png"
    content = bytearray(picture.read_bytes())
    content[-1] ^= 1
    picture.write_bytes(content)  # as long as before
    write_shards(folder, homes[0], 100)
    after = [clip.stamp() for clip in read_manifest(homes[0])]
    assert after[:2] == before[:2] and after[2] != before[2]


def test_clips_travel_to_workers(in_memory):
    clip = read_manifest(in_memory)[0]
    sent = pickle.loads(pickle.dumps(clip))
    assert np.array_equal(sent.load(1).frame, clip.load(1).frame) and sent.stamp() == clip.stamp()


def damage(line: dict, change: str) -> None:
    frame = line["stored"]["frame"]
    if change == "gone":
        del line["stored"]["frame"]
    elif change == "fewer":
        frame["offsets"], frame["sizes"] = frame["offsets"][:-1], frame["sizes"][:-1]
    elif change == "beyond":
        frame["offsets"][0] = 10**9
    elif change == "uneven":
        frame["sizes"] = frame["sizes"][:-1]
    elif change == "outside":
        line["shard"] = "../00000.tar"
    elif change == "plain":
        del line["shard"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("gone", "line 1: 'frame' points to 'frame', which 'stored' does not have"),
        ("fewer", "line 1: 'frame' has frames 2, the manifest says 3"),
        ("beyond", r"00000.tar: has \d+ bytes, shards.jsonl counts on at least"),
        ("uneven", "line 1: 'stored' is not {path"),
        ("outside", "line 1: lacks 'shard', the name of a tar"),
        ("plain", "line 1: lacks 'shard', the name of a tar"),
    ],
)
def test_an_index_that_does_not_fit_is_one_line(folder, change, said):
    home = folder.parent / "shards"
    write_shards(folder, home, 100)
    lines = [json.loads(text) for text in (home / "shards.jsonl").read_text().split("\n") if text]
    damage(lines[0], change)
    (home / "shards.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=said) as caught:
        read_manifest(home)
    assert "\n" not in str(caught.value)


def test_a_request_that_fails_is_made_again(in_memory, monkeypatch):
    clip = read_manifest(in_memory)[0]
    wanted = clip.load(1).frame
    real, failures = MemoryFileSystem.cat_file, [OSError("reset by peer"), TimeoutError()]

    def cat_file(self, *arguments, **options):
        if failures:
            raise failures.pop()
        return real(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(shards, "RETRIES", (0.0, 0.0))
    assert np.array_equal(read_manifest(in_memory)[0].load(1).frame, wanted) and not failures
    failures += [PermissionError("forbidden")]
    with pytest.raises(UserError, match=r"cannot be read \(forbidden\)"):
        clip.load(1, ("frame",))
    failures += [OSError("reset by peer")] * 3
    with pytest.raises(UserError, match=r"frame/000001\.png: cannot be read \(reset by peer\)"):
        clip.load(1, ("frame",))


def test_each_tar_has_a_clip_and_sizes_are_numbers(folder):
    assert write_shards(folder, folder.parent / "shards", 1e-9) == (3, 3)
    for size in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="megabytes: expected a number above 0"):
            write_shards(folder, folder.parent / "shards", size)


def test_what_is_not_there_is_one_line(folder, in_memory):
    with pytest.raises(UserError, match=r"memory://nowhere/shards.jsonl: no such file; expected tar shards"):
        read_manifest("memory://nowhere")
    with pytest.raises(UserError, match=r"nosuch://a/shards.jsonl: cannot be read \(Protocol not known"):
        read_manifest("nosuch://a")
    system = fsspec.filesystem("memory")
    clip = read_manifest(in_memory)[0]
    system.pipe("/sets/dance/00000.tar", system.cat("/sets/dance/00000.tar")[:1000])
    with pytest.raises(UserError, match=r"dance/00000.tar/frame/000002.png: is cut off"):
        clip.load(2)
    with pytest.raises(UserError, match=r"00000.tar: has 1000 bytes"):
        read_manifest(in_memory)
    with pytest.raises(UserError, match="holds other things than tar shards"):
        write_shards(folder, folder, 100)
