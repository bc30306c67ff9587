"""What users bring takes the place of what annotators would make, and lies in the store as theirs."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.formats.maps import Given
from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.media.images import write_image
from meta_animator.preparation.crop import Cut
from meta_animator.preparation.footage_set import FootageConfig, prepare_footage
from meta_animator.preparation.formats.sources import sources_of
from meta_animator.preparation.parts import prepare_part
from meta_animator.preparation.quality import Limits
from tests.data.people import standing_person
from tests.preparation.fakes import HEIGHT, WIDTH, FakeAnnotators, film, picture

COUNT = 8
EASY = Limits(min_height=20, min_sharpness=0.0, blur_ratio=0.0)
HALF = np.zeros((HEIGHT, WIDTH), np.uint8)
HALF[:, : WIDTH // 2] = 255


def prepare(output: Path, *inputs: Path, given: Given, sources=None):
    config = FootageConfig(inputs=inputs, output=output, given=given, cut=Cut(crop=False), limits=EASY)
    return prepare_footage(config, FakeAnnotators(), sources=sources)


def test_maps_of_a_film_take_the_annotators_place(tmp_path):
    walk = film(tmp_path / "walk.mp4", COUNT)
    for index in range(COUNT):
        write_image(tmp_path / "masks" / f"{index}.png", HALF)
        write_image(tmp_path / "depth" / f"{index}.png", np.full((HEIGHT, WIDTH), 20 * index + 50, np.uint8))
    given = Given(paths={"mask": tmp_path / "masks", "depth": tmp_path / "depth"})
    summary = prepare(tmp_path / "out", walk, given=given)
    assert "depth" in summary.tasks and "normal" not in summary.tasks
    layers = read_manifest(tmp_path / "out")[0].load(3)
    assert np.array_equal(layers.mask, HALF > 0) and layers.keypoints is not None
    assert np.allclose(layers.depth, (110 / 255) * (HALF > 0), atol=1e-3)
    # a correction by hand stays, another map is taken over, and nothing else is made anew
    corrected = next((tmp_path / "out" / "annotated").glob("*/mask/000002.png"))
    write_image(corrected, 255 - HALF)
    write_image(tmp_path / "masks" / "5.png", np.roll(HALF, 10, axis=1))
    again = prepare(tmp_path / "out", walk, given=given)
    clip = read_manifest(tmp_path / "out")[0]
    assert again.made > 0 and np.array_equal(clip.load(2).mask, HALF == 0)
    assert np.array_equal(clip.load(5).mask, np.roll(HALF, 10, axis=1) > 0) and np.array_equal(clip.load(4).mask, HALF > 0)


def test_keypoints_of_the_user_stand_beside_the_annotators_masks(tmp_path, capsys):
    """Where the user's show nobody, the annotators' are taken; a file of another film, or of nobody at all, is refused."""
    walk = film(tmp_path / "walk.mp4", COUNT)
    points = np.stack([standing_person(70, 30) + np.array([22 + index, 12, 0]) for index in range(COUNT)]).astype(np.float32)
    points[5, :, 2] = 0
    people = [[{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()}] for p in points]
    (tmp_path / "walk.json").write_text(json.dumps([{"frame_id": k, "instances": p} for k, p in enumerate(people)]))
    prepare(tmp_path / "out", walk, given=Given(paths={"keypoints": tmp_path / "walk.json"}))
    clip = read_manifest(tmp_path / "out")[0]
    assert clip.num_frames == COUNT and clip.made_by == {"keypoints": "given", "mask": "redness"}
    for index in (0, 4, 7):
        assert np.allclose(clip.load_keypoints(index), points[index], atol=0.01)
    assert clip.load_keypoints(5)[0, 2] > 0.5
    assert "walk.json: nobody is seen in 1 of 8 frames of walk.mp4; there the annotators say" in capsys.readouterr().out
    np.savez(tmp_path / "nobody.npz", keypoints=points * [1, 1, 0])
    with pytest.raises(UserError, match=r"nobody\.npz: no person in any of the 8 frames of walk\.mp4"):
        prepare(tmp_path / "new", walk, given=Given(paths={"keypoints": tmp_path / "nobody.npz"}))
    np.savez(tmp_path / "nobody.npz", keypoints=points[:1] * [1, 1, 0])
    photo = write_image(tmp_path / "photo.png", picture())
    with pytest.raises(UserError, match=r"nobody\.npz: no person in any of the 1 photos"):
        prepare(tmp_path / "new", photo, given=Given(paths={"keypoints": tmp_path / "nobody.npz"}))
    with pytest.raises(UserError, match=r"walk\.json: keypoints for 8 frames, but .*short\.mp4 has 6"):
        prepare(tmp_path / "new", film(tmp_path / "short.mp4", 6), given=Given(paths={"keypoints": tmp_path / "walk.json"}))


def test_keypoints_and_masks_of_photos_in_one_file(tmp_path):
    photos = [write_image(tmp_path / f"{k}.png", picture(30 + 10 * k)) for k in range(2)]
    points = [standing_person(70, 30) + np.array([32 + 10 * k, 12, 0], np.float32) for k in range(2)]
    masks = np.packbits(np.stack([HALF > 0, HALF == 0]), axis=-1)
    np.savez(tmp_path / "photos.npz", keypoints=points, mask=masks)
    prepare(tmp_path / "out", *photos, given=Given(paths={"keypoints": tmp_path / "photos.npz"}))
    clips = read_manifest(tmp_path / "out")
    assert [clip.made_by for clip in clips] == [{"keypoints": "given", "mask": "given"}] * 2
    assert np.allclose(clips[1].load_keypoints(0), points[1], atol=0.01) and np.array_equal(clips[1].load(0).mask, HALF == 0)


def test_several_films_and_photos_find_their_maps_by_name(tmp_path):
    inputs = [film(tmp_path / f"{name}.mp4", COUNT) for name in ("a", "b")]
    inputs.append(write_image(tmp_path / "c.png", picture(40)))
    for name, mask in (("a", HALF), ("b", 255 - HALF)):
        for index in range(COUNT):
            write_image(tmp_path / "masks" / name / f"{index}.png", mask)
    write_image(tmp_path / "masks" / "c.png", np.roll(HALF, 9, axis=1))
    prepare(tmp_path / "out", *inputs, given=Given(paths={"mask": tmp_path / "masks"}))
    found = {clip.id: clip.load(0).mask for clip in read_manifest(tmp_path / "out")}
    assert np.array_equal(found["a"], HALF > 0) and np.array_equal(found["b"], HALF == 0)
    assert np.array_equal(found["c"], np.roll(HALF, 9, axis=1) > 0)
    (tmp_path / "masks" / "b").rename(tmp_path / "masks" / "d")
    with pytest.raises(UserError, match=r"masks: has 0 entries for b\.mp4; of several films each has"):
        prepare(tmp_path / "new", *inputs, given=Given(paths={"mask": tmp_path / "masks"}))


def test_maps_that_are_given_no_more_are_forgotten_but_for_corrections(tmp_path):
    """As if they had never been there; so are a film's keypoints in whose place come some that show nobody in a frame."""
    walk = film(tmp_path / "walk.mp4", COUNT)
    for index in range(COUNT):
        write_image(tmp_path / "masks" / f"{index}.png", HALF)
    points = np.stack([standing_person(70, 30) + np.array([22 + index, 12, 0]) for index in range(COUNT)])
    np.savez(tmp_path / "walk.npz", keypoints=points)
    given = {"mask": tmp_path / "masks", "keypoints": tmp_path / "walk.npz"}
    prepare(tmp_path / "out", walk, given=Given(paths=given))
    write_image(next((tmp_path / "out" / "annotated").glob("*/mask/000002.png")), 255 - HALF)
    points[4, :, 2] = 0
    np.savez(tmp_path / "walk.npz", keypoints=points)
    summary = prepare(tmp_path / "out", walk, given=Given(paths={"keypoints": tmp_path / "walk.npz"}))
    made = {record.index: record.made_by for record in summary.records}
    assert made[2] == {"keypoints": "given", "mask": "user"} and made[3] == {"keypoints": "given", "mask": "redness"}
    assert made[4] == {"keypoints": "points", "mask": "redness"}
    prepare(tmp_path / "out", walk, given=Given())
    prepare(tmp_path / "never", walk, given=Given())
    clip, other = (read_manifest(tmp_path / name)[0] for name in ("out", "never"))
    assert np.array_equal(clip.load(2).mask, HALF == 0)
    for index in (0, 3, 7):
        assert np.array_equal(clip.load(index).mask, other.load(index).mask)
        assert np.array_equal(clip.load_keypoints(index), other.load_keypoints(index))


def test_same_names_of_two_people_find_their_own_by_folder_or_are_refused(tmp_path):
    both, maps = tmp_path / "ab", tmp_path / "maps"
    points = {name: standing_person(70, 30) + np.array([32 + 9 * k, 12, 0]) for k, name in enumerate(("anna", "bob"))}
    for k, name in enumerate(points):
        write_image(both / name / "IMG_1.jpg", picture(30 + 9 * k, seed=k))
        film(both / name / "walk.mp4", COUNT)
    write_image(maps / "IMG_1.png", HALF)
    np.savez(maps / "IMG_1.npz", keypoints=points["anna"])
    shared = r"IMG_1\.png: would be both .*IMG_1\.jpg's and .*IMG_1\.jpg's; put each one's into a folder of .*bob"
    photos = sorted(both.rglob("*.jpg"))
    with pytest.raises(UserError, match=shared):
        prepare(tmp_path / "out", *photos, given=Given(paths={"mask": maps}))
    with pytest.raises(UserError, match=r"IMG_1\.jpg and IMG_1\.jpg would share IMG_1\.npz"):
        prepare(tmp_path / "out", *photos, given=Given(paths={"keypoints": maps}))
    for name, mask in (("anna", HALF), ("bob", 255 - HALF)):
        write_image(maps / name / "IMG_1.png", mask)
        np.savez(maps / name / "IMG_1.npz", keypoints=points[name])
    for index in range(COUNT):
        write_image(maps / "walk" / f"{index}.png", HALF)
    with pytest.raises(UserError, match=r"walk: would be both .*walk\.mp4's and .*walk\.mp4's; put each"):
        prepare(tmp_path / "out", both, given=Given(paths={"mask": maps}))
    config = FootageConfig(inputs=[both], output=tmp_path / "shares", given=Given(paths={"mask": maps}), limits=EASY)
    with pytest.raises(UserError, match="walk: would be both"):  # though they are prepared apart from each other
        for part in range(1, 9):
            prepare_part(config, FakeAnnotators(), part, 8)
    shutil.copytree(maps / "walk", maps / "anna" / "walk")
    prepare(tmp_path / "out", both, given=Given(paths={"mask": maps}))
    prepare(tmp_path / "points", *photos, given=Given(paths={"mask": maps, "keypoints": maps}))
    found = {clip.identity: clip for clip in read_manifest(tmp_path / "out") if clip.kind == "photo"}
    assert np.array_equal(found["anna"].load(0).mask, HALF > 0) and np.array_equal(found["bob"].load(0).mask, HALF == 0)
    for name, clip in zip(points, read_manifest(tmp_path / "points"), strict=True):
        assert np.allclose(clip.load_keypoints(0), points[name], atol=0.01)


def test_the_script_takes_json_and_masks_and_packs_shards(tmp_path):
    walk = film(tmp_path / "walk.mp4", COUNT)
    (tmp_path / "json").mkdir()
    for index in range(COUNT):
        points = standing_person(80, 30) + np.array([20 + index, 8, 0])
        people = [{"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist()}]
        (tmp_path / "json" / f"{index}.json").write_text(json.dumps(people))
        write_image(tmp_path / "masks" / f"{index}.png", HALF)
    command = [sys.executable, "scripts/prepare_data.py", "--input", walk, "--output", tmp_path / "out", "--shards", "10"]
    command += ["--keypoints", tmp_path / "json", "--masks", tmp_path / "masks"]
    root = Path(__file__).parents[2]
    done = subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True, env={"PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr
    assert "1 clips and photos in 1 tar files" in done.stdout
    clip = read_manifest(tmp_path / "out" / "shards")[0]
    assert np.allclose(clip.load_keypoints(3)[:, 0], standing_person(80, 30)[:, 0] + 23, atol=1e-3)
    assert np.array_equal(clip.load(3).mask, HALF > 0)


@pytest.fixture
def tiktok(tmp_path: Path) -> Path:
    for name, shade in (("00001", 90), ("00336", 150)):
        for index in range(COUNT):
            write_image(tmp_path / "TikTok_dataset" / name / "images" / f"{index + 1:04d}.png", picture(20 + index, shade))
            write_image(tmp_path / "TikTok_dataset" / name / "masks" / f"{index + 1:04d}.png", np.repeat(HALF[..., None], 3, 2))
    return tmp_path


def test_a_published_tree_is_annotated_and_keeps_its_masks_and_split(tiktok):
    given = Given()
    prepare(tiktok / "out", given=given, sources=sources_of("tiktok", tiktok, tiktok / "out"))
    clips = {clip.identity: clip for clip in read_manifest(tiktok / "out")}
    assert {name: (clip.split, clip.fps, clip.num_frames) for name, clip in clips.items()} == {
        "00001": ("train", 30, COUNT), "00336": ("heldout", 30, COUNT),
    }  # fmt: skip
    layers = clips["00001"].load(4)
    assert np.array_equal(layers.frame, picture(24, 90)) and np.array_equal(layers.mask, HALF > 0)
    assert layers.keypoints[0, 2] > 0.5
    known = prepare(tiktok / "out", given=given, sources=sources_of("tiktok", tiktok, tiktok / "out"))
    assert known.made == 0


def test_films_of_a_tree_are_split_by_its_lists(tmp_path):
    for name in ("a1", "b2"):
        film(tmp_path / "ubc" / "videos" / f"{name}.mp4", COUNT)
    (tmp_path / "ubc" / "fashion_train.txt").write_text("https://example.org/I/a1.mp4\n")
    (tmp_path / "ubc" / "fashion_test.txt").write_text("https://example.org/I/b2.mp4\n")
    prepare(tmp_path / "out", given=Given(), sources=sources_of("ubc", tmp_path / "ubc", tmp_path / "out"))
    found = {clip.identity: (clip.split, clip.fps, clip.num_frames) for clip in read_manifest(tmp_path / "out")}
    assert found == {"a1": ("train", 10, COUNT), "b2": ("heldout", 10, COUNT)}


def test_tsv_files_become_sequences_of_both_splits(tmp_path):
    for part, name in (("train", "Dance_00001"), ("new10val", "Dance_00400")):
        for kind in ("images", "masks"):
            rows = []
            for index in range(COUNT):
                shown = write_image(tmp_path / "one.png", picture(20 + index) if kind == "images" else HALF)
                rows.append(f"{name}_{index:04d}.png\t{base64.b64encode(shown.read_bytes()).decode()}")
            (tmp_path / f"{part}_{kind}.tsv").write_text("\n".join(rows))
    prepare(tmp_path / "out", given=Given(), sources=sources_of("disco", tmp_path, tmp_path / "out"))
    clips = read_manifest(tmp_path / "out")
    assert {clip.identity: clip.split for clip in clips} == {"Dance_00001": "train", "Dance_00400": "heldout"}
    assert np.array_equal(clips[0].load(3).mask, HALF > 0) and np.array_equal(clips[0].load(3).frame, picture(23))


def test_a_sequence_with_a_frame_of_another_size_is_said_and_left_out(tiktok):
    write_image(tiktok / "TikTok_dataset" / "00001" / "images" / "0003.png", picture(20)[:80])
    sources = sources_of("tiktok", tiktok, tiktok / "out")
    summary = prepare(tiktok / "out", given=Given(), sources=sources)
    (said,) = summary.broken.values()
    assert "0003.png: is 128x80, the first frame 128x96; the frames of a film have one size" in said
    assert [clip.identity for clip in read_manifest(tiktok / "out")] == ["00336"]
    with pytest.raises(UserError, match=r"0003\.png: is 128x80"):
        prepare(tiktok / "out", given=Given(), sources=sources[:1])


def test_the_keypoints_of_a_tree_serve_where_nobody_annotates(tiktok):
    from meta_animator.preparation.formats.recorded import TreeConfig, prepare_sequences
    from meta_animator.preparation.formats.trees import find_sequences

    for name in ("00001", "00336"):
        folder = tiktok / "TikTok_dataset" / name / "openpose_json"
        folder.mkdir()
        for index in range(COUNT):
            points = [[30.0 + index + k, 20.0 + 3 * k, 0.9] for k in range(17)]
            (folder / f"{index + 1:04d}.png.json").write_text(json.dumps([{"keypoints": points}]))
    sequences = find_sequences("disco", tiktok)
    summary = prepare_sequences(TreeConfig(output=tiktok / "out", fps=15), sequences)
    assert (summary.frames, summary.heldout) == (COUNT, COUNT // 2)
    assert "dwpose" in summary.tasks and "bg_outpainting" in summary.tasks
    clip = read_manifest(tiktok / "out")[0]
    assert (clip.id, clip.split, clip.fps) == ("00001", "train", 15)
    assert np.allclose(clip.load_keypoints(2)[5], [39, 35, 0.9]) and np.array_equal(clip.load(2).mask, HALF > 0)
