"""What users put in the place of an annotator's answer is theirs, stays, and stays with its source."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import read_map, write_image
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.tracking import NOBODY
from tests.preparation.fakes import FakeAnnotators, film, is_red, picture
from tests.preparation.runs import files_of, prepare


def test_a_replaced_file_is_the_users_and_only_what_depends_on_it_is_redone(tmp_path):
    prepare(film(tmp_path / "walk.mp4"), tmp_path / "out")
    times = files_of(tmp_path / "out", times=True)
    store = tmp_path / "out" / "annotated" / "walk"
    mine = np.zeros((96, 128), np.uint8)
    mine[20:40, 30:50] = 255
    Image.fromarray(mine).save(store / "mask" / "000004.png")
    points = json.loads((store / "keypoints" / "000005.json").read_text())
    points["keypoints"][9][2] = 0.0
    (store / "keypoints" / "000005.json").write_text(json.dumps(points))
    summary, again = prepare(tmp_path / "walk.mp4", tmp_path / "out")
    assert again.detected == [] and again.annotated == [1] and again.only == [{"mask"}]  # that may depend on the points
    assert summary.made == 2
    (clip,) = read_manifest(tmp_path / "out")
    assert clip.load(4).mask.sum() == 400 and clip.load_keypoints(5)[9, 2] == 0 and clip.load_keypoints(4)[9, 2] > 0
    assert {record.index: record.made_by["mask"] for record in summary.records}[4] == "user"
    changed = {name for name, when in files_of(tmp_path / "out", times=True).items() if times.get(name) != when}
    assert not any("/frame/" in name for name in changed) and "clips/walk/mask/000004.png" in changed
    assert [name for name in changed if name.startswith("clips/walk/mask")] == ["clips/walk/mask/000004.png"]

    # another network: the user's stay, the others are made anew; an interrupted one does not take its own for the user's
    _, other = prepare(tmp_path / "walk.mp4", tmp_path / "out", FakeAnnotators(mask="redness 2"))
    assert other.detected == [] and sum(other.annotated) == 11 and set.union(*other.only) == {"mask"}
    assert (read_map(store / "mask" / "000004.png") == mine).all()
    (store / "mask" / "000004.png").unlink()
    _, other = prepare(tmp_path / "walk.mp4", tmp_path / "out", FakeAnnotators(mask="redness 2"))
    assert sum(other.annotated) == 1 and read_manifest(tmp_path / "out")[0].load(4).mask.sum() > 2000


@pytest.mark.parametrize("alpha", [False, True])
def test_a_mask_may_be_saved_in_colour(tmp_path, alpha):
    """As paint programs do; an alpha channel that hides nothing says nothing."""
    prepare(film(tmp_path / "walk.mp4", 4), tmp_path / "out", cut=Cut(crop=False))
    mine = np.zeros((96, 128, 4 if alpha else 3), np.uint8)
    mine[20:40, 30:50] = mine[..., 3:] = 255
    Image.fromarray(mine).save(tmp_path / "out" / "annotated" / "walk" / "mask" / "000002.png")
    summary, _ = prepare(tmp_path / "walk.mp4", tmp_path / "out", cut=Cut(crop=False))
    assert summary.clips[0].load(2).mask.sum() == 400


@pytest.mark.parametrize(("text", "message"), [
    ("{}", "cannot be read; expected"), ('{"keypoints": [[1, 2, 3]]}', r"shape \(1, 3\); expected \(133, 3\)"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_named(tmp_path, text, message):
    prepare(film(tmp_path / "walk.mp4", 4), tmp_path / "out")
    (tmp_path / "out" / "annotated" / "walk" / "keypoints" / "000002.json").write_text(text)
    with pytest.raises(UserError, match=f"000002.json: .*{message}"):
        prepare(tmp_path / "walk.mp4", tmp_path / "out")
    assert len(read_manifest(tmp_path / "out")) == 1


def test_a_file_that_was_not_there_is_the_users_and_says_that_somebody_is(tmp_path):
    path = film(tmp_path / "walk.mp4", 24, hidden=range(8, 16))
    before, _ = prepare(path, tmp_path / "out")
    store = tmp_path / "out" / "annotated" / "walk"
    for layer, suffix in (("keypoints", ".json"), ("mask", ".png")):
        shutil.copy(store / layer / f"000007{suffix}", store / layer / f"000008{suffix}")
    after, again = prepare(path, tmp_path / "out", least=1)
    assert again.annotated == [] and (before.frames, after.frames) == (16, 17)
    assert after.records[8].made_by == {"keypoints": "user", "mask": "user"} and after.records[9].reason == NOBODY


def test_another_file_of_the_same_name_is_annotated_anew(tmp_path, capsys):
    prepare(film(tmp_path / "walk.mp4", 6), tmp_path / "out")
    film(tmp_path / "walk.mp4", 7, fps=12)
    _, again = prepare(tmp_path / "walk.mp4", tmp_path / "out")
    assert sum(again.detected) == 7 and read_manifest(tmp_path / "out")[0].num_frames == 7
    assert "is another file than before" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "annotated").glob("walk.*/mask/*.png"))) == 6


def test_a_twin_takes_neither_name_nor_corrections(tmp_path, capsys):
    """Whoever comes or goes beside a photo, what is known of it stays."""
    home, store = tmp_path / "in", tmp_path / "out" / "annotated"
    home.mkdir()
    write_image(home / "a.png", picture())
    prepare(home, tmp_path / "out", alike=True)
    mine = np.zeros((96, 128), np.uint8)
    mine[20:40, 50:60] = 255
    write_image(store / "a" / "mask" / "000000.png", mine)
    film(home / "a.mp4", 5)
    write_image(home / "a-png.png", picture(30, seed=3))
    for gone in ((), ("a.mp4",), ("a-png.png",)):
        for name in gone:
            (home / name).unlink()
        summary, again = prepare(home, tmp_path / "out", alike=True)
        names = [wish.source.name for wish in summary.wishes]
        (own,) = [wish.source.name for wish in summary.wishes if wish.source.path.name == "a.png"]
        assert len(set(names)) == len(names) == len(list(home.iterdir()))
        assert {clip.id: clip.load(0).mask.sum() for clip in summary.clips}[own] == 200
        assert sum(again.detected) == (0 if gone else 6)
    assert names == ["a"] and "taken over" in capsys.readouterr().out


def test_a_source_that_takes_anothers_name_does_not_take_its_corrections(tmp_path):
    home, store = tmp_path / "in", tmp_path / "out" / "annotated"
    home.mkdir()
    write_image(home / "b.png", picture())
    prepare(home, tmp_path / "out")
    mine = np.zeros((96, 128), np.uint8)
    mine[20:40, 50:60] = 255
    write_image(store / "b" / "mask" / "000000.png", mine)
    (home / "b.png").rename(home / "a.png")
    write_image(home / "b.png", picture(30, seed=3))
    summary, again = prepare(home, tmp_path / "out", alike=True)
    masks = {clip.id: clip.load(0).mask.sum() for clip in summary.clips}
    assert list(masks) == ["a", "b"] and masks["a"] == 200 and masks["b"] > 2000 and sum(again.detected) == 1


def test_frames_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    prepare(film(tmp_path / "walk.mp4", 5), tmp_path / "out", cut=Cut(crop=False))
    mine = tmp_path / "out" / "annotated" / "walk" / "mask" / "000002.png"
    write_image(mine, read_map(mine)[:, ::-1])

    def link(file, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    summary, _ = prepare(tmp_path / "walk.mp4", tmp_path / "out", cut=Cut(crop=False))
    assert summary.made == 1 and is_red(summary.clips[0].load(4).frame).sum() > 2000
