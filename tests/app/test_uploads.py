"""What may be dropped, how much of it, and where it may lie."""

import io
import os
import sys
import time
import types
import zipfile

import av
import numpy as np
import pytest
from PIL import Image

from meta_animator.app import uploads
from meta_animator.app.folders import Folders, person_name
from meta_animator.errors import UserError

PNG = (held := io.BytesIO(), Image.new("RGB", (64, 64), "red").save(held, "PNG"))[0].getvalue()


@pytest.fixture
def draft(folders):
    return folders.draft(uploads.new_draft(folders))


def png(path, size=(8, 8)):
    Image.new("RGB", size, "red").save(path, "PNG")
    return path


def test_a_file_is_what_it_holds(draft, tmp_path, dropped):
    false = png(tmp_path / "really a png.JPG")
    faults = uploads.take_photos(draft, [false, dropped / "notes.txt", dropped / "broken.jpg"])
    assert [path.name for path in uploads.list_photos(draft)] == ["really_a_png.png"]
    assert faults[0] == "notes.txt: is a text file; expected photos (JPEG, PNG, WebP, HEIC) or one film of the person"
    assert faults[1].startswith("broken.jpg: is not a picture that can be read")
    again = uploads.take_photos(draft, [png(tmp_path / "really a png.png")])
    assert not again and len(uploads.list_photos(draft)) == 2, "one of the same name is another one"


@pytest.mark.parametrize("name", ["..", "....//x", "-rf", "a=b", "x\n", "$(id)", "<b>.y", "COM1 ;"])
def test_no_name_leaves_its_folder_or_reads_as_something_else(draft, tmp_path, name):
    source = png(tmp_path / "photo.png")
    target = uploads._free(draft, name, ".png")
    assert target.parent == draft and not set(target.stem) & set("/.=$<;- \n"), target
    uploads.copy_whole(source, target)


def test_numbers_and_sizes_are_bounded(draft, tmp_path, dropped, monkeypatch):
    photo = png(tmp_path / "a.png", (40, 40))
    monkeypatch.setattr(uploads, "MOST_PHOTOS", 2)
    assert uploads.take_photos(draft, [photo, png(tmp_path / "b.png"), png(tmp_path / "c.png")]) == [
        "1 photos left out: 2 at most"
    ]  # fmt: skip
    for name, value, said in (("PHOTO_PIXELS", 1000, "40 x 40 pixels"), ("PHOTO_BYTES", 20, "MB at most")):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, name, value)
            with pytest.raises(UserError, match=said):
                uploads.photo_suffix(photo)
    for name, value, said in (("FILM_FRAMES", 5, "lasts"), ("FILM_PIXELS", 99, "too large"), ("FILM_BYTES", 99, "MB at most")):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, name, value)
            with pytest.raises(UserError, match=said):
                uploads.motion_suffix(dropped / "dance.mp4")
    assert uploads.motion_suffix(dropped / "dance.mp4") == ".mp4" and uploads.motion_suffix(dropped / "wave.npz") == ".npz"


def test_heic_photos_are_bounded_too(tmp_path, monkeypatch):
    module = types.ModuleType("pillow_heif")  # a stand-in: the library need not be installed
    module.open_heif = lambda path: types.SimpleNamespace(size=(20_000, 20_000))
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(uploads, "can_read_heic", lambda: True)
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(300))
    with pytest.raises(UserError, match=r"a\.heic: has 20000 x 20000 pixels"):
        uploads.photo_suffix(tmp_path / "a.heic")
    module.open_heif = lambda path: types.SimpleNamespace(size=(4000, 3000))
    assert uploads.photo_suffix(tmp_path / "a.heic") == ".heic"


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "POINTS_BYTES", 100_000)
    held = io.BytesIO()
    np.save(held, np.zeros(10**6, np.uint8))
    with zipfile.ZipFile(tmp_path / "points.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keypoints.npy", held.getvalue())
    assert (tmp_path / "points.npz").stat().st_size < 100_000
    with pytest.raises(UserError, match="larger than it seems"):
        uploads.motion_suffix(tmp_path / "points.npz")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "is a text file"),
        ("a.mp4", b"<html></html>", "is a web page"),
        ("a.json", b"{", "not valid JSON"),
        ("a.npz", b"PK\x03\x04", "zip archive"),
        ("a.mp4", b"", "is empty"),
        ("a.exe", b"MZ\x90\x00" + bytes(300), "not a film of a known kind"),
        ("a.mp4", b"ffconcat version 1.0\n#\xff\nfile a.mp4\n", "cannot be read as a film"),
        ("a.mp4", PNG, "cannot be read as a film"),
    ],
)
def test_what_is_no_motion_is_refused_in_one_line(draft, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        uploads.take_motion(draft, tmp_path / name)
    assert str(error.value).startswith(f"{name}: ") and "\n" not in str(error.value) and uploads.find_motion(draft) is None


def test_a_full_disk_loses_nothing_and_half_a_file_is_none(draft, dropped, monkeypatch):
    uploads.take_motion(draft, dropped / "wave.npz")
    (draft / "photos").mkdir()
    for part in (draft / "photos" / ".photo.png.part", draft / "motion" / ".a.7.part.mp4"):  # of one who was killed
        part.touch()
    assert not uploads.list_photos(draft) and uploads.find_motion(draft).name == "wave.npz"

    def full(source, target):
        target.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(uploads.shutil, "copyfile", full)
        for take, what in ((uploads.take_motion, dropped / "dance.mp4"), (uploads.take_photos, [dropped / "dance.mp4"])):
            with pytest.raises(UserError, match="No space left"):
                take(draft, what)
    assert not uploads.list_photos(draft) and uploads.find_motion(draft).name == "wave.npz"
    uploads.take_motion(draft, dropped / "dance.mp4")
    assert [path.name for path in (draft / "motion").iterdir()] == ["dance.mp4"]


def test_photos_or_one_film(draft, dropped):
    photos = sorted((dropped / "photos").iterdir())
    with pytest.raises(UserError, match=r"dance\.mp4: either photos or one film"):
        uploads.take_photos(draft, [photos[0], dropped / "dance.mp4"])
    uploads.take_photos(draft, [dropped / "dance.mp4"])
    with pytest.raises(UserError, match="is a film of the person already"):
        uploads.take_photos(draft, photos)


def test_drafts_that_nobody_asked_for_are_forgotten(folders, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_DRAFTS", 3)
    for _ in range(5):
        uploads.new_draft(folders)
    assert len(list(folders.drafts.iterdir())) == 3
    monkeypatch.setattr(uploads, "DRAFT_SECONDS", -1)
    last = uploads.new_draft(folders)
    assert [path.name for path in folders.drafts.iterdir()] == [last]


def test_uploads_that_were_broken_off_do_not_fill_the_disk(folders):
    (folders.served / "0123").mkdir()
    for name, age in (("tmpabc", 4000), ("0123/film.mp4", 4000), ("tmpdef", 10)):
        (folders.served / name).write_bytes(b"x")
        os.utime(folders.served / name, (time.time() - age,) * 2)
    uploads.new_draft(folders)
    assert [path.name for path in folders.served.rglob("*") if path.is_file()] == ["tmpdef"]


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "../jobs", "a/b", None, 7, ["a"], "motions/../a", "out"])
def test_a_chosen_name_lies_in_the_folder(folders, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (folders.people / "out").symlink_to(tmp_path / "elsewhere")
    (folders.people / "anna").mkdir()
    assert folders.person("anna") == folders.people / "anna"
    for find in (folders.person, folders.job, folders.draft):
        with pytest.raises(UserError, match="there is no such"):
            find(name)


def test_names_of_people():
    assert person_name(" Änne  O'Neil ") == "Änne_O_Neil" and len(person_name("x" * 500)) == 40


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "a=b"):
        with pytest.raises(UserError, match="name another folder"):
            Folders(root).make()


def test_a_film_that_does_not_say_how_long_it_is_is_bounded_too(tmp_path, monkeypatch):
    """As a browser records it: a WebM that was streamed."""
    with av.open(str(tmp_path / "live.webm"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width = stream.height = 32
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "live.webm")) as container:
        assert not container.duration and not container.streams.video[0].frames
    assert uploads.motion_suffix(tmp_path / "live.webm") == ".webm"
    for name, value in (("FILM_FRAMES", 20), ("FILM_SECONDS", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, name, value)
            with pytest.raises(UserError, match=r"live\.webm: lasts 3 s"):
                uploads.motion_suffix(tmp_path / "live.webm")
