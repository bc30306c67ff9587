"""What users get wrong in data sets and their manifests."""

import subprocess
import sys

import numpy as np

from meta_animator.media.images import write_image
from tests.bad_input.room import ROOT, Cases, Room

CASES = Cases()


@CASES.add("manifest.jsonl: no such file; expected a data-set folder")
def folder_without_manifest(room):
    return ["train", room.config("control"), f"data.train=[{room.folder}]"]


@CASES.add("manifest.jsonl: no such file; expected a data-set folder")
def folder_without_manifest_before_puppets_are_made(room):
    return ["train", room.config("control"), f"data.train=[{room.folder}]", f"data.puppets.root={room.out}/puppets"]


def broken_manifest(room: Room, changes: dict) -> list[str]:
    data = room.train_set(lambda lines: lines[1].update(changes))
    return ["train", room.config("control"), f"data.train=[{data}]"]


@CASES.add("seg of frame 1 is 32x32, the manifest says 64x64")
def condition_of_another_size(room):
    data = room.train_set(lambda lines: [line.update(conditions={"seg": "seg"}) for line in lines])
    for k in range(4):
        write_image(data / "seg" / f"{k:06d}.png", np.zeros((64, 64, 3) if k != 1 else (32, 32, 3), np.uint8))
    return ["train", room.config("control"), f"data.train=[{data}]", f"data.cache_dir={room.folder}/cache"]


def broken_picture(room: Room) -> list[str]:
    data = room.copy(room.data / "train")
    picture = next(data.glob("clips/p1/frame/000002.png"))
    picture.write_bytes(picture.read_bytes()[:300])
    return ["train", room.config("control"), f"data.train=[{data}]", f"data.cache_dir={room.folder}/cache"]


@CASES.add("000002.png: cannot be read as a picture")
def picture_that_was_cut_off(room):
    return [*broken_picture(room), "train.max_steps=40"]  # long enough to draw it


@CASES.add("clips/p1/frame/000002.png: cannot be read as a picture")
def picture_that_was_cut_off_in_a_worker(room):
    return [*broken_picture(room), "data.cache_latents=false", "data.num_workers=2", "train.max_steps=40"]


@CASES.add("stage 2 learns one person; data.train holds 4")
def stage_2_on_many_people(room):
    return ["train", room.config("reference"), f"data.train=[{room.data / 'train'}]", "data.auxiliary=[]"]


@CASES.add("no clip is long enough for 8 frames")
def clips_that_are_too_short(room):
    return ["train", room.config("motion"), "data.num_frames=8"]


def manifest_text(room: Room, text: str) -> list[str]:
    data = room.copy(room.data / "train")
    (data / "manifest.jsonl").write_text(text)
    return ["train", room.config("control"), f"data.train=[{data}]"]


@CASES.add("manifest.jsonl: cannot be read as UTF-8 text")
def manifest_in_another_encoding(room):
    arguments = manifest_text(room, "")
    (room.folder / "train" / "manifest.jsonl").write_bytes(b"\xff\xfe{}")
    return arguments


@CASES.add("is a link that leaves the data-set folder")
def manifest_with_a_link_outwards(room):
    arguments = broken_manifest(room, {})
    picture = room.folder / "train" / "clips" / "p1" / "frame" / "000001.png"
    picture.unlink()
    picture.symlink_to("/etc/hostname")
    return arguments


@CASES.add("no frame can show depth: the layers depth, mask make them; add what is missing of these, or set model.tasks")
def data_without_the_layers_of_a_task(room):
    data = room.train_set(lambda lines: [line["layers"].pop("depth") for line in lines])
    return ["train", room.config("control"), f"data.train=[{data}]", "model.tasks=[dwpose,depth]"]


@CASES.add("no clip of the split 'test'")
def split_that_is_not_there(room):
    return ["train", room.config("control"), "data.split=test"]


@CASES.add("data.flip: clip 'p0' has drawn images of seg")
def flips_of_drawn_conditions(room):
    data = room.train_set(lambda lines: lines[0].update(conditions={"seg": lines[0]["layers"]["frame"]}))
    return ["train", room.config("control"), f"data.train=[{data}]", "data.flip=0.5", "data.cache_latents=false"]


CASES.table(broken_manifest, {
    "manifest_that_points_nowhere": (
        {"layers": {"frame": "clips/nobody"}}, "manifest.jsonl, line 2: 'frame' points to 'clips/nobody', which does not exist",
    ),
    "manifest_that_points_outside": (
        {"layers": {"frame": "../other"}}, "manifest.jsonl, line 2: the path of 'frame', '../other', leaves the data-set folder",
    ),
    "manifest_of_another_length": ({"num_frames": 9}, "'frame' has frames 4, the manifest says 9"),
    "manifest_with_an_unknown_key": ({"idenity": "anna"}, "line 2: unknown key 'idenity'"),
    "manifest_with_a_path_as_id": ({"id": "../p1"}, "line 2: id '../p1' may hold only letters"),
    "manifest_with_an_id_twice": ({"id": "p0"}, "line 2: id 'p0' is used twice"),
    "manifest_of_nobody": ({"identity": " "}, "line 2: 'identity' is empty"),
    "manifest_with_a_negative_rate": ({"fps": -1}, "line 2: 'fps' is -1, expected a positive number"),
    "manifest_with_a_word_for_a_number": ({"width": "64"}, "line 2: 'width' is \"64\", of the wrong type"),
    "manifest_of_an_unknown_kind": ({"kind": "film"}, "'kind' is 'film', expected one of clip, photo"),
    "manifest_with_a_photo_of_four_frames": ({"kind": "photo"}, "a photo has 1 frame, not 4"),
    "manifest_with_an_unknown_layer": ({"layers": {"picture": "clips/p1/frame"}}, "unknown layer 'picture'"),
    "manifest_with_an_absolute_path": ({"layers": {"frame": "/etc"}}, "leaves the data-set folder"),
    "manifest_of_another_size": ({"width": 32}, "'frame' has size 64x64, the manifest says 32x64"),
})  # fmt: skip


CASES.table(manifest_text, {
    "manifest_of_no_lines": ("\n\n", "manifest.jsonl: is empty; expected one JSON object per line"),
    "manifest_that_is_no_json": ("id: one", "manifest.jsonl, line 1: is not JSON"),
    "manifest_of_lists": ("[]", "manifest.jsonl, line 1: is a JSON list, expected an object"),
    "manifest_without_ids": ("{}", "manifest.jsonl, line 1: key 'id' is missing"),
})  # fmt: skip


test_bad_input_is_one_line = CASES.test(midway=("picture_that_was_cut_off_in_a_worker",))


def test_an_error_ends_the_process_and_its_workers(room):
    """Workers leave SIGTERM alone: a process that ends by an error and only then sends it would wait for ever."""
    script, *arguments = picture_that_was_cut_off_in_a_worker(room)
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2 and "error: " in done.stderr
