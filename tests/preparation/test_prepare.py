import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image
from meta_animator.media.video import write_video
from meta_animator.preparation.prepare import PrepareConfig, prepare
from meta_animator.preparation.sources import find_photos
from tests.data.people import layers_of_person, tasks_shown_by

COUNT, HEIGHT, WIDTH = 12, 96, 128
TASKS = tasks_shown_by("frame", "mask", "keypoints")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A person who walks to the right by 2 pixels per frame, and film.npz beside it."""
    base = layers_of_person(HEIGHT, WIDTH)
    frames, points, masks = [], [], []
    for index in range(COUNT):
        frame = np.full((HEIGHT, WIDTH, 3), 30 + 10 * index, np.uint8)
        mask = np.roll(base.mask, 2 * index, axis=1)
        frame[mask] = (200, 60, 40)
        frames.append(frame)
        masks.append(np.packbits(mask, axis=-1))
        points.append(base.keypoints + np.array([2 * index, 0, 0]))
    write_video(tmp_path / "film.mp4", frames, fps=10)
    about = {"width": WIDTH, "height": HEIGHT, "fps": 10.0}
    np.savez(tmp_path / "film.npz", keypoints=np.array(points, np.float32), mask=np.array(masks), **about)
    return tmp_path / "film.mp4"


def config(film: Path, **changes: object) -> PrepareConfig:
    defaults = {"inputs": [film], "keypoints": film.with_suffix(".npz"), "output": film.parent / "out"}
    return PrepareConfig(**(defaults | changes))


def grey_of(clip, index: int) -> int:
    return round(float(clip.load(index).frame[0, 0].mean()))


def test_a_film_becomes_a_data_set(film):
    seen = []
    summary = prepare(config(film, identity="anna", prompt="outside"), lambda done, of: seen.append((done, of)))
    assert (summary.frames, summary.heldout, summary.tasks, summary.empty) == (COUNT, 0, TASKS, 0)
    assert seen == [(i + 1, COUNT) for i in range(COUNT)]
    (clip,) = read_manifest(film.parent / "out")
    assert (clip.id, clip.identity, clip.prompt, clip.fps, clip.num_frames) == ("film", "anna", "outside", 10, COUNT)
    assert clip.available_tasks() == TASKS
    for index in (0, 5, 11):
        layers = clip.load(index)
        assert abs(grey_of(clip, index) - (30 + 10 * index)) <= 3
        assert np.abs(layers.frame[layers.mask].mean(0) - (200, 60, 40)).max() < 12
        assert layers.keypoints[0, 0] == pytest.approx(WIDTH / 2 + 2 * index)
    sheets = film.parent / "out" / "sheets"
    assert sorted(path.stem for path in sheets.iterdir()) == sorted([*TASKS, "overview"])
    assert read_image(sheets / "overview.png").shape[0] > 7 * 100


def test_held_out_frames_are_apart(film):
    summary = prepare(config(film, heldout=(4, 7)))
    clips = {clip.id: clip for clip in read_manifest(film.parent / "out")}
    assert summary.heldout == 3 and {c.id: (c.split, c.num_frames) for c in clips.values()} == {
        "film": ("train", 4), "film-2": ("train", 5), "film-heldout": ("heldout", 3),
    }  # fmt: skip
    assert abs(grey_of(clips["film-heldout"], 0) - 70) <= 3 and abs(grey_of(clips["film-2"], 0) - 100) <= 3
    for bad in ((7, 4), (0, COUNT), (5, 99)):
        with pytest.raises(UserError, match="heldout"):
            prepare(config(film, heldout=bad, overwrite=True))


def test_cropping_follows_the_person_and_keeps_the_camera_still(film):
    prepare(config(film, size=(64, 32), fps=5, heldout=(8, 12)))
    train, heldout = read_manifest(film.parent / "out")
    assert (train.fps, train.num_frames, heldout.num_frames, train.height, train.width) == (5, 4, 2, 64, 32)
    noses = [train.load(i).keypoints[0, 0] for i in range(4)] + [heldout.load(i).keypoints[0, 0] for i in range(2)]
    assert np.allclose(np.diff(noses), 4 * 64 / 96, atol=1e-3)
    assert 0 < noses[0] < noses[-1] < 32
    with pytest.raises(UserError, match="10 frames per second"):
        prepare(config(film, fps=60, overwrite=True))


def test_faces_that_a_crop_cuts_off_are_said(film):
    """The person walks 22 pixels; a box of 24 x 96 holds a face of 11 pixels in some of the frames."""
    assert not prepare(config(film, size=(96, 96))).notes
    (note,) = prepare(config(film, size=(96, 24), overwrite=True)).notes
    assert "faces are cut off in film.mp4 at 24x96 (" in note


def test_annotations_of_another_film_are_refused(film):
    good = dict(np.load(film.with_suffix(".npz")))
    other = film.parent / "other.npz"
    for changes, message in (
        ({"keypoints": good["keypoints"][:9]}, "keypoints for 9 frames, but .*film.mp4 has 12"),
        ({"keypoints": good["keypoints"][:, :17]}, r"shape \(12, 17, 3\); expected \(frames, 133, 3\)"),
        ({"mask": good["mask"][:, :50]}, r"mask is uint8 \(12, 50, 16\); expected uint8 \(12, 96, 16\)"),
        ({"width": 64}, "made for 64x96, but the video is 128x96"),
        ({"keypoints": good["keypoints"] * [1, 1, 0]}, "no person in any of the 12 frames"),
    ):
        np.savez(other, **(good | changes))
        with pytest.raises(UserError, match=message) as caught:
            prepare(config(film, keypoints=other))
        assert "\n" not in str(caught.value)
    other.write_text("not a zip")
    with pytest.raises(UserError, match=r"other\.npz: cannot be read"):
        prepare(config(film, keypoints=other))
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        prepare(config(film, keypoints=film.parent / "none.npz"))
    assert not (film.parent / "out").exists()


def test_photos_without_a_person_are_named_and_skipped(tmp_path):
    folder = tmp_path / "photos of anna"
    folder.mkdir()
    points = []
    for number, size in enumerate([(96, 64), (80, 80), (64, 96)]):
        layers = layers_of_person(*size)
        alpha = (layers.mask * 255).astype(np.uint8)
        Image.fromarray(np.dstack([layers.frame, alpha])).save(folder / f"{number}.png")
        points.append(layers.keypoints)
    points[1] = points[1] * [1, 1, 0.1]
    np.savez(tmp_path / "p.npz", keypoints=points)
    made = PrepareConfig(inputs=[folder], keypoints=tmp_path / "p.npz", output=tmp_path / "out")
    summary = prepare(made)
    assert summary.skipped == ["1.png"] and summary.frames == 2 and summary.tasks == TASKS
    clips = read_manifest(tmp_path / "out")
    assert [(c.id, c.kind, c.height, c.width) for c in clips] == [
        ("photos_of_anna-000", "photo", 96, 64), ("photos_of_anna-002", "photo", 64, 96),
    ]  # fmt: skip
    assert np.array_equal(clips[1].load(0).mask, layers.mask)
    assert {clip.identity for clip in clips} == {"photos of anna"}


def test_files_beside_the_photos_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("meta_animator.preparation.sources.can_read_heic", lambda: False)
    for name in ("2.png", "1.JPG"):
        write_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    for name in ("IMG_3.HEIC", "IMG_4.heif", "._1.JPG", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"\x00" * 20)
    assert [path.name for path in find_photos([tmp_path])] == ["1.JPG", "2.png"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "note: " in said[0] and "2 HEIC photos cannot be read (IMG_3.HEIC, IMG_4.heif)" in said[0]
    assert "left out 1 that are no photos (notes.txt)" in said[1]
    monkeypatch.undo()
    monkeypatch.setattr("meta_animator.preparation.sources.can_read_heic", lambda: True)
    assert [path.name for path in find_photos([tmp_path])] == ["1.JPG", "2.png", "IMG_3.HEIC", "IMG_4.heif"]


def test_what_is_odd_about_a_photo_is_a_note_of_the_script(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png", icc_profile=b"no profile")
    command = [sys.executable, "scripts/prepare_data.py", "--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    command += ["--annotators", "none"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, env={"PYTHONPATH": "."})
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert done.returncode == 0 and "Warning" not in done.stderr
    assert len(notes) == 1 and "a.png: its colour profile cannot be used" in notes[0] and "read as sRGB" in notes[0]


def test_inputs_that_are_neither(tmp_path, film):
    (tmp_path / "none").mkdir()
    photo = write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    for inputs, message in (
        ([tmp_path / "none"], "holds no photos"),
        ([tmp_path / "no.mp4"], "no such file"),
        ([film, photo], "one video, or photos only"),
        ([], "no input"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(config(film, inputs=inputs))


@pytest.mark.parametrize(("option", "value"), [
    ("--shards", "nan"), ("--shards", "inf"), ("--shards", "0"), ("--longest", "-5"), ("--least", "0"), ("--workers", "-1"),
    ("--workers", "two"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(monkeypatch, capsys, option, value):
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "prepare_data.py"))
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", "--input", "a.mp4", "--output", "out", option, value])
    with pytest.raises(SystemExit) as stopped:
        script["parse"]()
    assert stopped.value.code == 2 and f"argument {option}: expected a" in capsys.readouterr().err


def test_the_script(film):
    root = Path(__file__).parents[2]
    command = [sys.executable, "scripts/prepare_data.py", "--input", film, "--output", film.parent / "set"]
    for extra, code, text in ((["--keypoints", film.with_suffix(".npz")], 0, "12 frames"), ([], 2, "--overwrite")):
        done = subprocess.run(
            [*map(str, command), *map(str, extra)], cwd=root, capture_output=True, text=True, env={"PYTHONPATH": "."}
        )
        assert done.returncode == code and text in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
