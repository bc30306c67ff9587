"""Preparation by several processes, and how much memory it takes."""

import gc
import os
import tracemalloc

import pytest

from meta_animator.errors import UserError
from meta_animator.preparation import footage_set
from tests.preparation.fakes import FakeAnnotators, film
from tests.preparation.runs import files_of, prepare, without_times


def test_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("meta_animator.preparation.pool.WORTH", 0)
    path = film(tmp_path / "walk.mp4", 20, cuts=(10,))
    prepare(path, tmp_path / "one" / "out")
    prepare(path, tmp_path / "two" / "out", workers=2)
    assert without_times(files_of(tmp_path / "one")) == without_times(files_of(tmp_path / "two"))


def test_a_killed_process_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("meta_animator.preparation.pool.WORTH", 0)
    with pytest.raises(UserError, match=r"one of 2 processes was killed, .* fewer --workers"):
        prepare(film(tmp_path / "walk.mp4", 4), tmp_path / "out", Killer(), workers=2)


class Killer(FakeAnnotators):
    def detect(self, frames):
        os._exit(137)


def test_memory_does_not_grow_with_the_film(tmp_path, monkeypatch):
    """What is held, that is: garbage goes as soon as it is told of frames. When Python comes to it by itself depends on all that
    the process has done before."""
    monkeypatch.setattr(footage_set, "write_overview", lambda folder, clips: [])

    def peak(count: int) -> float:
        path = film(tmp_path / f"{count}.mp4", count)
        gc.collect()
        gc.freeze()  # what was there before is not looked through again and again
        tracemalloc.start()
        try:
            prepare(path, tmp_path / f"out{count}", progress=lambda *_: gc.collect())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.unfreeze()

    peak(4)
    assert peak(90) < 1.3 * peak(30)
