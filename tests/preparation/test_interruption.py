"""Preparations that end early: what is there is valid, and what was done is not done again."""

from pathlib import Path

import pytest

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.preparation import footage_set
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.store import RUN
from tests.preparation.fakes import FakeAnnotators, film, picture
from tests.preparation.runs import Interrupted, files_of, prepare, without_times


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
    monkeypatch.setattr("meta_animator.preparation.folder.SOON", 0.0)  # seconds: else it depends on how fast the machine is
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
    assert [clip.id for clip in read_manifest(tmp_path / "out")] == ["a", "a.2"]
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
