"""What users get wrong in films, photos and keypoints, and where their outcome goes."""

import runpy
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from meta_animator.media.images import write_image
from tests.bad_input.room import ROOT, Cases, Room

CASES = Cases()


@CASES.add("none.mp4: no such file")
def video_that_is_not_there(room):
    return ["prepare_data", "--input", "none.mp4", "--output", str(room.out)]


@CASES.add("film.mp4")
def video_that_was_cut_off(room):
    video = room.video(40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    return ["prepare_data", "--input", str(video), "--output", str(room.out)]


@CASES.add("is encoded in a way that no decoder here knows")
def video_of_an_unknown_codec(room):
    video = room.video()
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzzz"))
    return ["prepare_data", "--input", str(video), "--output", str(room.out)]


@CASES.add("--no-crop: frames that are cut to the shape of --size are not whole")
def whole_frames_of_a_size(room):
    return ["prepare_data", "--input", str(room.video()), "--output", str(room.out), "--size", "64", "64", "--no-crop"]


@CASES.add("empty.mp4: is empty")
def video_of_no_bytes(room):
    (room.folder / "empty.mp4").touch()
    return ["prepare_data", "--input", str(room.folder / "empty.mp4"), "--output", str(room.out)]


@CASES.add("keypoints for 4 frames, but")
def keypoints_of_another_length(room):
    video, points = room.video(), room.keypoints(4)
    return ["prepare_data", "--input", str(video), "--keypoints", str(points), "--output", str(room.out)]


@CASES.add("no person in any of the 6 frames")
def video_without_a_person(room):
    video, points = room.video(), room.keypoints(6, score=0.0)
    return ["prepare_data", "--input", str(video), "--keypoints", str(points), "--output", str(room.out)]


@CASES.add("exists and is not empty; choose another folder or add --overwrite")
def output_that_holds_something(room):
    video = room.video()
    room.out.mkdir()
    (room.out / "mine.txt").write_text("precious")
    return ["prepare_data", "--input", str(video), "--output", str(room.out)]


def preparing(room: Room, *arguments: str, video: Path | None = None) -> list[str]:
    return ["prepare_data", "--input", str(video or room.video()), "--output", str(room.out), *arguments]


@CASES.add("film.mp4")
def text_that_is_called_a_video(room):
    (room.folder / "film.mp4").write_text("not a video")
    return preparing(room, video=room.folder / "film.mp4")


@CASES.add("holds no photos")
def folder_without_photos(room):
    (room.folder / "empty").mkdir()
    return preparing(room, video=room.folder / "empty")


def photos(room: Room, name: str, content: bytes | None = None) -> list[str]:
    folder = room.folder / "photos"
    write_image(folder / "good.png", np.full((32, 32, 3), 90, np.uint8))
    if content is not None:
        (folder / name).write_bytes(content)
    return preparing(room, "--annotators", "none", video=folder)


def half_of(room: Room, mode: str, suffix: str, **options) -> list[str]:
    """A photo of another kind, cut off in the middle."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).convert(mode)
    picture.save(room.folder / f"whole{suffix}", **options)
    content = (room.folder / f"whole{suffix}").read_bytes()
    return photos(room, f"half{suffix}", content[: len(content) // 2])


@CASES.add("half.jpg: cannot be read as a picture")
def half_a_rotated_photo(room):
    exif = Image.Exif()
    exif[0x0112] = 6
    return half_of(room, "RGB", ".jpg", exif=exif)


@CASES.add("keypoints have shape (6, 17, 3); expected (frames, 133, 3)")
def keypoints_of_another_skeleton(room):
    np.savez(room.folder / "coco.npz", keypoints=np.zeros((6, 17, 3), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/coco.npz")


@CASES.add("cannot be read; expected an .npz with 'keypoints'")
def keypoints_that_are_a_pickle(room):
    np.savez(room.folder / "bad.npz", keypoints=np.array([{"x": 1}], dtype=object))
    return preparing(room, "--keypoints", f"{room.folder}/bad.npz")


@CASES.add("cannot be read; expected an .npz with 'keypoints'")
def keypoints_under_another_name(room):
    np.savez(room.folder / "bad.npz", points=np.zeros((6, 133, 3), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/bad.npz")


@CASES.add("none.npz: no such file")
def keypoints_that_are_not_there(room):
    return preparing(room, "--keypoints", "none.npz")


@CASES.add("was made for 64x64, but the video is 32x32")
def keypoints_of_another_size(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "other.npz", keypoints=points, width=64, height=64, fps=10.0)
    return preparing(room, "--keypoints", f"{room.folder}/other.npz")


@CASES.add("mask is float32 (6, 32, 32); expected uint8 (6, 32, 4), bits packed by row")
def masks_that_are_not_packed(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "mask.npz", keypoints=points, mask=np.zeros((6, 32, 32), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/mask.npz")


@CASES.add("needs 32 rows of 4: np.packbits(mask, axis=-1)")
def masks_of_photos_that_are_not_packed(room):
    np.savez(room.folder / "mask.npz", keypoints=np.load(room.keypoints(1))["keypoints"], mask=np.zeros((1, 32, 32), np.uint8))
    return [*photos(room, "none.png"), "--keypoints", f"{room.folder}/mask.npz"]


@CASES.add("no keypoint is beyond 0.87; expected pixels, not shares of the picture")
def keypoints_as_shares_of_the_picture(room):
    points = np.load(room.keypoints(6))["keypoints"] / [32, 32, 1]
    np.savez(room.folder / "shares.npz", keypoints=np.minimum(points, [0.9, 0.9, 1]))
    return preparing(room, "--keypoints", f"{room.folder}/shares.npz")


@CASES.add("mask is uint8 (5, 32, 4); expected uint8 (6, 32, 4)")
def masks_of_another_length(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "mask.npz", keypoints=points, mask=np.zeros((5, 32, 4), np.uint8))
    return preparing(room, "--keypoints", f"{room.folder}/mask.npz")


@CASES.add("--heldout-frames 4:9: expected A:B with 0 <= A < B <= 6")
def held_out_frames_beyond_the_end(room):
    return preparing(room, "--heldout-frames", "4:9")


@CASES.add("film.mp4: the video has 10 frames per second; expected more than 0 and at most that")
def more_frames_than_there_are(room):
    return preparing(room, "--fps", "60")


@CASES.add("--size 0 12: expected height and width, 16 to 8192 pixels")
def a_size_of_nothing(room):
    return preparing(room, "--size", "0", "12")


@CASES.add("--limits, --least, --part: without effect with --annotators none; leave them out, or say who annotates")
def selection_where_nobody_annotates(room):
    return preparing(room, "--annotators", "none", "--limits", "min_height=60", "--least", "9", "--part", "1/2")


@CASES.add("--frames: without effect with --keypoints alone; leave it out, or say who annotates, such as --annotators light")
def kind_of_frames_beside_keypoints_alone(room):
    return preparing(room, "--keypoints", str(room.keypoints(6)), "--frames", "jpg")


@CASES.add("--identity: without effect with --annotators none")
def identity_of_a_published_data_set(room):
    return preparing(room, "--annotators", "none", "--format", "tiktok", "--identity", "anna")


@CASES.add("2 inputs, 1 of them photos; give one video, or photos only")
def video_and_photo_together(room):
    photo = write_image(room.folder / "photo.png", np.zeros((32, 32, 3), np.uint8))
    return ["prepare_data", "--input", str(room.video()), str(photo), "--output", str(room.out), "--annotators", "none"]


@CASES.add("is a file; give the name of a new folder")
def output_that_is_a_file(room):
    room.out.write_text("precious")
    return preparing(room)


@CASES.add("holds other things than a data set and is not replaced")
def overwriting_what_is_no_data_set(room):
    room.out.mkdir()
    (room.out / "mine.txt").write_text("precious")
    return preparing(room, "--overwrite")


@CASES.add("file.txt: is a file; --into takes a folder")
def weights_into_a_file(room):
    (room.folder / "file.txt").write_text("mine")
    return ["get_weights", "light", "--dry-run", "--into", str(room.folder / "file.txt" / "below")]


CASES.table(photos, {
    "text_that_is_called_a_photo": ("bad.jpg", b"not a picture", "bad.jpg: cannot be read as a picture"),
    "photo_of_no_bytes": ("bad.png", b"", "bad.png: "),
})  # fmt: skip


CASES.table(half_of, {
    "half_a_transparent_photo": ("RGBA", ".png", "half.png: cannot be read as a picture"),
    "half_a_grey_photo": ("L", ".png", "half.png: cannot be read as a picture"),
    "half_a_16_bit_photo": ("I;16", ".png", "half.png: cannot be read as a picture"),
    "half_a_cmyk_photo": ("CMYK", ".jpg", "half.jpg: cannot be read as a picture"),
})  # fmt: skip


test_bad_input_is_one_line = CASES.test()


def test_photos_without_a_person_are_named_skipped_and_counted(room, capsys, monkeypatch):
    points = np.random.default_rng(0).uniform(4, 28, (3, 133, 3)).astype(np.float32)
    points[..., 2] = np.array([1.0, 0.0, 1.0])[:, None]
    np.savez(room.folder / "photos.npz", keypoints=points)
    for k in range(3):
        write_image(room.folder / "photos" / f"photo-{k}.png", np.full((32, 32, 3), 90, np.uint8))
    arguments = ["--input", f"{room.folder}/photos", "--keypoints", f"{room.folder}/photos.npz", "--output", str(room.out)]
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *arguments])
    runpy.run_path(str(ROOT / "scripts" / "prepare_data.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "no person found in 1 photos, skipped: photo-1.png" in printed
    assert len((room.out / "manifest.jsonl").read_text().splitlines()) == 2
