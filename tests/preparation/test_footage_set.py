"""From footage to a data set with annotators that need no networks: complete, once, as the settings say."""

import numpy as np
import pytest
from PIL import Image

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.footage import find_sources
from meta_animator.preparation.photos import ALIKE
from meta_animator.preparation.quality import SMALL, Limits
from meta_animator.preparation.tracking import NOBODY
from tests.data.people import tasks_shown_by
from tests.preparation.fakes import film, is_red, picture
from tests.preparation.runs import files_of, prepare, without_times

TASKS = tasks_shown_by("frame", "mask", "keypoints")


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
