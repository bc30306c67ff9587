"""From footage to a data set with annotators that need no networks: complete, continued, corrected."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, read_map, write_image
from meta_animator.preparation import footage_set
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.footage import find_sources
from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.formats.sources import sequences_of
from meta_animator.preparation.photos import ALIKE
from meta_animator.preparation.prepare import PrepareConfig
from meta_animator.preparation.prepare import prepare as prepare_plainly
from meta_animator.preparation.quality import SMALL, Limits
from meta_animator.preparation.store import RUN
from meta_animator.preparation.tracking import NOBODY
from tests.data.people import tasks_shown_by
from tests.preparation.fakes import FakeAnnotators, film, is_red, picture

EASY = Limits(min_height=20, min_sharpness=0.0, blur_ratio=0.0)
TASKS = tasks_shown_by("frame", "mask", "keypoints")


def prepare(inputs, output, annotators=None, progress=lambda *_: None, **changes):
    """(summary, annotators) of a preparation of inputs, with the fakes."""
    annotators, changes = annotators or FakeAnnotators(), {"limits": EASY} | changes
    config = FootageConfig(inputs=[inputs] if isinstance(inputs, Path) else inputs, output=output, **changes)
    return prepare_footage(config, annotators, progress), annotators


def files_of(folder: Path, *, times: bool = False) -> dict:
    """What each file of a data set holds, or when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (".lock", "source.json")]
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if times else path.read_bytes()
        for path in files if not (times and path.parent.name == "sheets")
    }  # fmt: skip


def test_films_and_photos_of_several_people_become_one_data_set(tmp_path):
    home = tmp_path / "Anna Müller"
    (home / "ben").mkdir(parents=True)
    film(home / "ben" / "walk.mp4", 20, hidden=(5, 6), cuts=(12,))
    write_image(home / "ben" / "walk.jpg", picture(50))
    outline = np.zeros((96, 128), np.uint8)
    outline[4:92, 36:74] = 255
    Image.fromarray(np.dstack([picture(40), outline])).save(home / "cut out.png")
    write_image(home / "nobody.png", picture(person=False))
    seen = []
    summary, _ = prepare(home, tmp_path / "out", progress=lambda *done: seen.append(done))
    clips = {clip.id: clip for clip in read_manifest(tmp_path / "out")}
    assert {id: (c.identity, c.kind, c.num_frames) for id, c in clips.items()} == {
        "cut_out": ("Anna Müller", "photo", 1), "ben-walk-mp4": ("ben", "clip", 12), "ben-walk-mp4.2": ("ben", "clip", 8),
        "ben-walk-jpg": ("ben", "photo", 1),
    }  # fmt: skip
    assert {source.identity for source in find_sources([home], "Änne")} == {"Änne"}
    assert summary.tasks == TASKS and summary.frames == 22 and sum(summary.reasons.values()) == 1
    assert [(record.source, record.reason) for record in summary.records if not record.kept] == [("nobody", NOBODY)]
    walk = clips["ben-walk-mp4"]
    assert walk.made_by == {"keypoints": "points", "mask": "redness"} and walk.fps == 10
    assert clips["cut_out"].made_by == {"keypoints": "points", "mask": "transparency"}
    assert clips["cut_out"].load(0).mask.sum() == (outline > 0).sum()
    layers = walk.load(3)
    assert layers.frame.shape[:2] == (96, walk.width) and walk.width < 128  # around the person, never scaled up
    assert abs(layers.mask.sum() - 80 * 30) < 60 and (is_red(layers.frame) == layers.mask).mean() > 0.98
    nose = layers.keypoints[0, :2].round().astype(int)
    assert is_red(layers.frame)[nose[1], nose[0]]
    assert seen[-1] == ("storing frames", 22, 22) and ("looking for people", 23, 23) in seen


def test_nothing_is_done_twice_and_a_deleted_file_is_made_anew(tmp_path):
    prepare(film(tmp_path / "walk.mp4"), tmp_path / "out")
    before, times = files_of(tmp_path / "out"), files_of(tmp_path / "out", times=True)
    summary, again = prepare(tmp_path / "walk.mp4", tmp_path / "out")
    assert again.detected == again.annotated == [] and summary.made == 0
    assert files_of(tmp_path / "out", times=True) == times
    store = tmp_path / "out" / "annotated" / "walk"
    (store / "mask" / "000004.png").unlink()
    (store / "keypoints" / "000007.json").unlink()
    summary, again = prepare(tmp_path / "walk.mp4", tmp_path / "out")
    assert again.detected == [] and sum(again.annotated) == 2 and again.only == [{"mask"}, {"keypoints"}]
    assert without_times(files_of(tmp_path / "out")) == without_times(before)


def without_times(files: dict) -> dict:
    return {name: content for name, content in files.items() if "/frames/" not in name or "annotated" not in name}


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


class Interrupted(Exception):
    pass


def test_what_an_interrupted_run_has_left_is_nobodys(tmp_path):
    """Of a first run, and of one with another network whose masks differ."""
    path = film(tmp_path / "walk.mp4", 40)
    for version in ("redness 1", "redness 2"):
        stopped = FakeAnnotators(mask=version)
        answer, calls = stopped.annotate, []

        def annotate(*arguments, answer=answer, calls=calls):
            calls.append(1)
            if len(calls) == 2:
                raise Interrupted
            return answer(*arguments)

        stopped.annotate = annotate
        with pytest.raises(Interrupted):
            prepare(path, tmp_path / "out", stopped)
        assert (tmp_path / "out" / "annotated" / "walk" / "mask" / "000003.png").is_file()
        summary, _ = prepare(path, tmp_path / "out", FakeAnnotators(mask=version))
        assert {record.made_by["mask"] for record in summary.records} == {"redness"}
        assert (summary.clips[0].load(3).mask.sum() < 2300) == (version == "redness 2")


def test_the_data_set_is_valid_while_a_clip_is_replaced(tmp_path, monkeypatch):
    home = tmp_path / "in"
    home.mkdir()
    for name in ("a", "b"):
        film(home / f"{name}.mp4", 5)
    prepare(home, tmp_path / "out")

    def rename(path, target):
        raise Interrupted

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Path, "rename", rename)
        prepare(home, tmp_path / "out", cut=Cut(size=(32, 32)))
    assert [(clip.id, clip.height) for clip in read_manifest(tmp_path / "out")] == [("b", 96)]
    assert len(prepare(home, tmp_path / "out")[0].clips) == 2


def test_an_interrupted_preparation_leaves_a_valid_data_set_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(footage_set, "SPAN", RUN)
    home = tmp_path / "in"
    home.mkdir()
    for name, count in (("a", RUN + 30), ("b", 8), ("c", 8)):
        film(home / f"{name}.mp4", count)
    prepare(home, tmp_path / "whole" / "out")

    def stop(what, frames, of):
        if what == where and frames > after:
            raise Interrupted

    for stopped in (("looking for people", RUN), ("storing frames", RUN + 30)):
        where, after = stopped
        with pytest.raises(Interrupted):
            prepare(home, tmp_path / "out", progress=stop)
    assert [clip.id for clip in read_manifest(tmp_path / "out")] == ["a"]
    _, again = prepare(home, tmp_path / "out")
    assert again.detected == again.annotated == []
    assert without_times(files_of(tmp_path / "out")) == without_times(files_of(tmp_path / "whole" / "out"))
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_what_was_seen_before_an_interruption_is_not_seen_again(tmp_path, monkeypatch):
    monkeypatch.setattr(footage_set, "SPAN", RUN)

    def stop(what, frames, of):
        if frames > RUN:
            raise Interrupted

    path = film(tmp_path / "a.mp4", 2 * RUN)
    with pytest.raises(Interrupted):
        prepare(path, tmp_path / "out", progress=stop)
    _, again = prepare(path, tmp_path / "out")
    assert sum(again.detected) == RUN


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


def test_settings_redo_what_depends_on_them(tmp_path):
    path = film(tmp_path / "walk.mp4")
    prepare(path, tmp_path / "out")
    whole = read_manifest(tmp_path / "out")[0]
    summary, again = prepare(path, tmp_path / "out", prompt="outside", identity="anna")
    assert again.detected == [] and summary.made == 0 and summary.clips[0].prompt == "outside"
    summary, again = prepare(path, tmp_path / "out", cut=Cut(size=(48, 32)), heldout=(8, 12))
    assert again.annotated == [] and {c.id: (c.split, c.num_frames, c.height, c.width) for c in summary.clips} == {
        "walk": ("train", 8, 48, 32), "walk.heldout": ("heldout", 4, 48, 32),
    }  # fmt: skip
    summary, again = prepare(path, tmp_path / "out", cut=Cut(crop=False), suffix=".jpg", fps=5)
    (clip,) = summary.clips
    assert (clip.height, clip.width, clip.num_frames, clip.fps) == (96, 128, 6, 5) and whole.width < 128
    assert [path.name for path in (tmp_path / "out" / "clips").iterdir()] == ["walk"]
    assert (tmp_path / "out" / "clips" / "walk" / "frame" / "000000.jpg").is_file()
    assert abs(read_image(tmp_path / "out" / "clips" / "walk" / "frame" / "000002.jpg").astype(int) - picture(24, 60)).mean() < 8


def test_a_damaged_clip_is_made_again(tmp_path):
    path = film(tmp_path / "walk.mp4", 6)
    prepare(path, tmp_path / "out")
    before = files_of(tmp_path / "out" / "clips")
    for name in ("frame/000005.png", "mask/000001.png", "keypoints.npz"):
        (tmp_path / "out" / "clips" / "walk" / name).write_bytes(b"junk")
        prepare(path, tmp_path / "out")
        assert files_of(tmp_path / "out" / "clips") == before


def test_frames_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    prepare(film(tmp_path / "walk.mp4", 5), tmp_path / "out", cut=Cut(crop=False))
    mine = tmp_path / "out" / "annotated" / "walk" / "mask" / "000002.png"
    write_image(mine, read_map(mine)[:, ::-1])

    def link(file, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    summary, _ = prepare(tmp_path / "walk.mp4", tmp_path / "out", cut=Cut(crop=False))
    assert summary.made == 1 and is_red(summary.clips[0].load(4).frame).sum() > 2000


def test_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("meta_animator.preparation.pool.WORTH", 0)
    path = film(tmp_path / "walk.mp4", 20, cuts=(10,))
    prepare(path, tmp_path / "one" / "out")
    prepare(path, tmp_path / "two" / "out", workers=2)
    assert without_times(files_of(tmp_path / "one")) == without_times(files_of(tmp_path / "two"))


def test_memory_does_not_grow_with_the_film(tmp_path, monkeypatch):
    monkeypatch.setattr(footage_set, "write_overview", lambda folder, clips: [])

    def peak(count: int) -> float:
        path = film(tmp_path / f"{count}.mp4", count)
        tracemalloc.start()
        prepare(path, tmp_path / f"out{count}")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(90) < 1.3 * peak(30)


def test_what_cannot_be_read_is_said_and_the_rest_is_done(tmp_path):
    home = tmp_path / "in"
    home.mkdir()
    write_image(home / "1.png", picture())
    (home / "2.png").write_bytes(b"no picture at all, whatever its name")
    (home / "3.mp4").write_bytes(b"no film")
    summary, _ = prepare(home, tmp_path / "out")
    assert len(summary.clips) == 1 and sorted(Path(path).name for path in summary.broken) == ["2.png", "3.mp4"]
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UserError, match=r"3\.mp4: cannot be read as a video"):
        prepare(home / "3.mp4", tmp_path / "out")
    write_image(home / "1.png", picture(person=False))
    with pytest.raises(UserError, match=r"none of 1 frames can be kept: nobody is seen \(1\)"):
        prepare(home / "1.png", tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    for overwrite, message in ((False, "exists and is not empty"), (True, "holds other things than a data set")):
        with pytest.raises(UserError, match=message):
            prepare(film(tmp_path / "walk.mp4", 4), tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years"


def test_what_is_overwritten_is_there_until_the_new_is(tmp_path):
    prepare(film(tmp_path / "walk.mp4", 5), tmp_path / "out")
    before = files_of(tmp_path / "out")
    write_image(tmp_path / "nobody.png", picture(person=False))
    with pytest.raises(UserError, match="none of 1 frames") as caught:
        prepare(tmp_path / "nobody.png", tmp_path / "out", overwrite=True)
    assert caught.value.restored and files_of(tmp_path / "out") == before

    def stop(*_):
        raise Interrupted

    with pytest.raises(Interrupted):
        prepare(tmp_path / "walk.mp4", tmp_path / "out", progress=stop, overwrite=True)
    assert files_of(tmp_path / "out") == before
    summary, _ = prepare(film(tmp_path / "other.mp4", 6), tmp_path / "out", overwrite=True)
    assert [clip.id for clip in summary.clips] == ["other"] and not (tmp_path / "out" / "annotated" / "walk").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nobody.png", "other.mp4", "out", "walk.mp4"]


def test_input_and_output_are_apart(tmp_path):
    (tmp_path / "in").mkdir()
    prepare(film(tmp_path / "in" / "walk.mp4", 5), tmp_path / "out")
    before = files_of(tmp_path)
    photo = tmp_path / "out" / "clips" / "walk" / "frame"
    plain = {"keypoints": None, "overwrite": True}
    for inputs, output, message in (
        (tmp_path / "out", tmp_path / "out", "lies in the output"),
        (photo, tmp_path / "out", "lies in the output"),
        (photo / "000000.png", tmp_path / "in" / ".." / "out", "lies in the output"),
        (tmp_path / "in", tmp_path / "in" / "set", "lies in the input"),
    ):
        for make in (
            lambda: prepare(inputs, output, overwrite=True),  # noqa: B023
            lambda: prepare_plainly(PrepareConfig(inputs=[inputs], output=output, **plain)),  # noqa: B023
            *([lambda: sequences_of("tiktok", inputs, output)] if output.name == "out" else ()),  # noqa: B023
        ):
            with pytest.raises(UserError, match=message):
                make()
    assert files_of(tmp_path) == before


def test_frames_are_rejected_for_what_is_measured_of_them(tmp_path):
    """The person is 80 pixels high; photos of the same are one; a film's frames that stand alone make no clip."""
    home = tmp_path / "in"
    home.mkdir()
    for name in ("1.png", "2.png"):
        write_image(home / name, picture())
    film(home / "walk.mp4", 30, hidden=(*range(9, 17), *range(19, 27)))
    summary, _ = prepare(home, tmp_path / "out")
    assert summary.reasons == {NOBODY: 16, "fewer than 4 good frames in a row": 5, ALIKE: 1}
    assert [(clip.id, clip.num_frames) for clip in summary.clips] == [("1", 1), ("walk", 9)]
    summary, again = prepare(home, tmp_path / "out", alike=True, least=2)
    assert [clip.id for clip in summary.clips] == ["1", "2", "walk", "walk.2", "walk.3"] and again.annotated == []
    with pytest.raises(UserError, match=f"none of 32 frames can be kept: {SMALL} .16., {NOBODY} .16."):
        prepare(home, tmp_path / "out", limits=Limits(min_height=90))
    assert len(read_manifest(tmp_path / "out")) == 5


def test_a_killed_process_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("meta_animator.preparation.pool.WORTH", 0)
    with pytest.raises(UserError, match=r"one of 2 processes was killed, .* fewer --workers"):
        prepare(film(tmp_path / "walk.mp4", 4), tmp_path / "out", Killer(), workers=2)


class Killer(FakeAnnotators):
    def detect(self, frames):
        os._exit(137)
