"""Inputs that cannot be read, and outputs that are something else."""

import shutil
from pathlib import Path

import pytest

from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.preparation.formats.sources import sequences_of
from meta_animator.preparation.prepare import PrepareConfig
from meta_animator.preparation.prepare import prepare as prepare_plainly
from meta_animator.training.lock import lock_folder
from tests.preparation.fakes import film, picture
from tests.preparation.runs import files_of, prepare


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


def test_a_film_that_is_damaged_in_the_middle_is_left_out(tmp_path):
    """It opens, and its last frame decodes: only reading it shows."""
    home = tmp_path / "in"
    home.mkdir()
    film(home / "good.mp4", 12)
    content = bytearray(film(home / "bad.mp4", 60).read_bytes())
    middle = len(content) // 3
    content[middle : middle + 2000] = bytes(2000)
    (home / "bad.mp4").write_bytes(content)
    summary, _ = prepare(home, tmp_path / "out")
    assert [clip.id for clip in summary.clips] == ["good"]
    ((path, said),) = summary.broken.items()
    assert Path(path).name == "bad.mp4" and "does not decode" in said
    again, _ = prepare(home, tmp_path / "out")
    assert [clip.id for clip in again.clips] == ["good"] and list(again.broken) == [path]
    with pytest.raises(UserError, match=r"bad\.mp4: frame \d+: does not decode"):
        prepare(home / "bad.mp4", tmp_path / "alone")


def test_a_folder_that_another_run_writes_is_left_as_it_is(tmp_path):
    """The clip that is just being written, above all."""
    path = film(tmp_path / "walk.mp4", 4)
    prepare(path, tmp_path / "out")
    part = tmp_path / "out" / "clips" / ".walk.part" / "frame" / "000000.png"
    part.parent.mkdir(parents=True)
    part.touch()
    with lock_folder(tmp_path / "out"), pytest.raises(UserError, match="another run is writing here"):
        prepare(path, tmp_path / "out")
    assert part.is_file()
    prepare(path, tmp_path / "out")
    assert not part.exists(), "nobody's"


def test_videos_of_one_name_are_told_apart_or_left_out(tmp_path, capsys):
    for name in ("train/a.mp4", "videos/a.mp4", "videos/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    assert [one.name for one in sequences_of("ubc", tmp_path / "in", tmp_path / "out")] == ["a", "b"]
    assert "videos/a.mp4: is named as " in capsys.readouterr().out
