"""What users get wrong, through the entry points themselves: one line that says what, where and what would be right;
exit code 2; an output folder that is as it was."""

import dataclasses
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meta_animator.config import save_config
from meta_animator.media.images import write_image
from meta_animator.media.video import write_video
from meta_animator.weights import load_tensors, read_json, save_tensors
from tests import tiny

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass
class Room:
    """A folder of its own for one case, beside the base model, the data and the stage-0 run that all share."""

    folder: Path
    base: Path
    data: Path
    prepared: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def config(self, stage: str, **overrides) -> str:
        """A YAML of a run that would work."""
        if stage != "control":
            overrides = {"model__control_from": self.prepared} | overrides
        config = tiny.make_config(self.folder / "config", self.base, self.data, stage, **overrides)
        config.output_dir = str(self.out)
        save_config(config, self.folder / "config.yaml")
        return str(self.folder / "config.yaml")

    def copy(self, source: Path) -> Path:
        return shutil.copytree(source, self.folder / source.name)

    def video(self, frames: int = 6) -> Path:
        return write_video(self.folder / "film.mp4", np.full((frames, 32, 32, 3), 90, np.uint8), fps=10)

    def keypoints(self, frames: int, score: float = 1.0, name: str = "film.npz") -> Path:
        points = np.random.default_rng(0).uniform(4, 28, (frames, 133, 3)).astype(np.float32)
        points[..., 2] = score
        np.savez(self.folder / name, keypoints=points, width=32, height=32, fps=10.0)
        return self.folder / name


@pytest.fixture
def room(tmp_path, tiny_base, puppet_data, prepared):
    return Room(tmp_path, tiny_base, puppet_data, Path(prepared))


CASES: dict[str, tuple[Callable[[Room], list[str]], str]] = {}


MIDWAY = ("picture_that_was_cut_off_in_a_worker",)  # found out in the middle of a training, which keeps what it has


def case(message: str):
    """The decorated function makes the arguments, the script's name first; `message` is part of the line."""

    def add(make: Callable[[Room], list[str]]) -> Callable[[Room], list[str]]:
        CASES[make.__name__] = (make, message)
        return make

    return add


# configs


@case("config none.yaml: no such file; give a YAML such as configs/demo/step0.yaml")
def missing_config(room):
    return ["train", "none.yaml"]


@case("'train.learning_rat'")
def unknown_key(room):
    return ["train", room.config("control"), "train.learning_rat=1"]


@case("dancing")
def unknown_task(room):
    return ["train", room.config("control"), "model.tasks=[dwpose,dancing]"]


@case("blurred")
def unknown_task_names_the_known_ones(room):
    return ["train", room.config("control"), "model.tasks=[blured]"]


@case("data.width: 66 is not divisible by")
def size_that_the_base_cannot_have(room):
    return ["train", room.config("control"), "data.width=66"]


@case("stage 'sample' is not trained; use control, motion, reference")
def training_what_is_not_trained(room):
    return ["train", room.config("control"), "stage=sample"]


@case("model.control_from is empty: stage 'motion' starts from a stage-0 run")
def stage_1_from_nothing(room):
    return ["train", room.config("motion"), "model.control_from="]


@case("sample.output: 'a.gif' does not end in .mp4")
def animation_as_gif(room):
    return ["sample", room.config("sample"), "sample.output=a.gif"]


# data sets


@case("manifest.jsonl: no such file; expected a data-set folder")
def folder_without_manifest(room):
    return ["train", room.config("control"), f"data.train=[{room.folder}]"]


def broken_manifest(room: Room, **changes) -> list[str]:
    data = room.copy(room.data / "train")
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    lines[1] |= changes
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["train", room.config("control"), f"data.train=[{data}]"]


@case("manifest.jsonl, line 2: 'frame' points to 'clips/nobody', which does not exist")
def manifest_that_points_nowhere(room):
    return broken_manifest(room, layers={"frame": "clips/nobody"})


@case("manifest.jsonl, line 2: the path of 'frame', '../other', leaves the data-set folder")
def manifest_that_points_outside(room):
    return broken_manifest(room, layers={"frame": "../other"})


@case("'frame' has frames 4, the manifest says 9")
def manifest_of_another_length(room):
    return broken_manifest(room, num_frames=9)


@case("seg of frame 1 is 32x32, the manifest says 64x64")
def condition_of_another_size(room):
    data = room.copy(room.data / "train")
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        line["conditions"] = {"seg": "seg"}
    for k in range(4):
        write_image(data / "seg" / f"{k:06d}.png", np.zeros((64, 64, 3) if k != 1 else (32, 32, 3), np.uint8))
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["train", room.config("control"), f"data.train=[{data}]", f"data.cache_dir={room.folder}/cache"]


def broken_picture(room: Room) -> list[str]:
    data = room.copy(room.data / "train")
    picture = next(data.glob("clips/p1/frame/000002.png"))
    picture.write_bytes(picture.read_bytes()[:300])
    return ["train", room.config("control"), f"data.train=[{data}]", f"data.cache_dir={room.folder}/cache"]


@case("000002.png: cannot be read as a picture")
def picture_that_was_cut_off(room):
    return broken_picture(room)


@case("clips/p1/frame/000002.png: cannot be read as a picture")
def picture_that_was_cut_off_in_a_worker(room):
    return [*broken_picture(room), "data.cache_latents=false", "data.num_workers=2", "train.max_steps=8"]


@case("stage 2 learns one person; data.train holds 4")
def stage_2_on_many_people(room):
    return ["train", room.config("reference"), f"data.train=[{room.data / 'train'}]", "data.auxiliary=[]"]


@case("no clip is long enough for 8 frames")
def clips_that_are_too_short(room):
    return ["train", room.config("motion"), "data.num_frames=8"]


# checkpoints


@case("neither a checkpoint nor a run folder with one; train that stage first")
def checkpoint_that_is_not_there(room):
    return ["train", room.config("motion"), f"model.control_from={room.folder}/nothing"]


@case("has no LoRA for canny (it has dwpose, seg, blurred); set model.tasks to a subset")
def checkpoint_without_the_task(room):
    return ["train", room.config("motion"), "model.tasks=[canny]"]


@case("LoRA rank 4, this run's model.lora_rank is 2")
def checkpoint_of_another_rank(room):
    return ["train", room.config("motion"), "model.lora_rank=2"]


@case("was trained on base")
def checkpoint_of_another_base(room):
    other = tiny.make_base(room.folder / "other", seed=5)
    return ["train", room.config("motion"), f"model.base={other}"]


def changed_checkpoint(room: Room, change: Callable[[Path], None]) -> list[str]:
    run = shutil.copytree(room.prepared, room.folder / "run")
    (folder,) = (run / "checkpoints").glob("step-*")
    change(folder)
    return ["train", room.config("motion"), f"model.control_from={run}"]


@case("model.safetensors: not a whole safetensors file")
def checkpoint_that_was_cut_off(room):
    def cut(folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:5000])

    return changed_checkpoint(room, cut)


@case("1 weights are missing, the first is")
def checkpoint_that_lacks_a_weight(room):
    def drop(folder):
        weights = load_tensors(folder / "model.safetensors")
        weights.pop(next(name for name in sorted(weights) if name.startswith("control.")))
        save_tensors(weights, folder / "model.safetensors")

    return changed_checkpoint(room, drop)


@case("manifest.json: not valid JSON")
def checkpoint_with_a_broken_manifest(room):
    return changed_checkpoint(room, lambda folder: (folder / "manifest.json").write_text("{"))


@case("holds no motion module; give a stage-1 run")
def motion_from_stage_0(room):
    return ["sample", room.config("sample"), f"model.motion_from={room.prepared}", "sample.driving=x", "sample.window=8"]


@case("no folder 'unet'; expected a model in diffusers format")
def base_that_is_not_there(room):
    return ["train", room.config("control"), f"model.base={room.folder}/no-base"]


# sampling


@case("sample.driving is empty: name a data set, a drawn pose video or a keypoint .npz")
def nothing_to_follow(room):
    return ["sample", room.config("sample")]


@case("no such file")
def driving_video_that_is_not_there(room):
    return ["sample", room.config("sample"), "sample.driving=none.mp4", "sample.identity=p0"]


@case("sample.identity: 'stranger' is not in the checkpoint; it knows: p0, p1, p2, p3")
def identity_that_nobody_learned(room):
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}"]
    return ["sample", room.config("sample"), *driving, "sample.identity=stranger"]


@case("cannot show the task 'seg'; it can show: dwpose")
def driving_that_cannot_show_the_task(room):
    video = room.video()
    reference = [f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), f"sample.driving={video}", "sample.tasks={seg: 1.0}", *reference]


# preparing


@case("none.mp4: no such file")
def video_that_is_not_there(room):
    return ["prepare_data", "--input", "none.mp4", "--output", str(room.out)]


@case("film.mp4")
def video_that_was_cut_off(room):
    video = room.video(40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    return ["prepare_data", "--input", str(video), "--output", str(room.out)]


@case("empty.mp4: is empty")
def video_of_no_bytes(room):
    (room.folder / "empty.mp4").touch()
    return ["prepare_data", "--input", str(room.folder / "empty.mp4"), "--output", str(room.out)]


@case("keypoints for 4 frames, but")
def keypoints_of_another_length(room):
    video, points = room.video(), room.keypoints(4)
    return ["prepare_data", "--input", str(video), "--keypoints", str(points), "--output", str(room.out)]


@case("no person in any of the 6 frames")
def video_without_a_person(room):
    video, points = room.video(), room.keypoints(6, score=0.0)
    return ["prepare_data", "--input", str(video), "--keypoints", str(points), "--output", str(room.out)]


@case("exists and is not empty; choose another folder or add --overwrite")
def output_that_holds_something(room):
    video = room.video()
    room.out.mkdir()
    (room.out / "mine.txt").write_text("precious")
    return ["prepare_data", "--input", str(video), "--output", str(room.out)]


# extraction


@case("extract.checkpoint is empty; name a run of stage 0 or 2")
def extraction_from_nothing(room):
    return ["extract_lora", room.config("sample"), "extract.checkpoint="]


@case("canny")
def extraction_of_a_task_that_is_not_there(room):
    return ["extract_lora", room.config("sample"), f"extract.checkpoint={room.prepared}", "extract.tasks=[canny]"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name, room, capfd, monkeypatch):
    make, message = CASES[name]
    script, *arguments = make(room)
    before = tree(room.out)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    said = capfd.readouterr().err.replace("\r", "\n").splitlines()
    lines = [line for line in said if line.strip() and not re.search(r"\d+%\|", line)]  # progress bars aside
    assert caught.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ") and message in lines[0]
    assert tree(room.out) == before or name in MIDWAY


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


def test_an_explicit_subset_of_tasks_is_fine(room, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", room.config("motion"), "model.tasks=[seg]", "train.max_steps=1"])
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert read_json(room.out / "checkpoints" / "step-000001" / "manifest.json")["tasks"] == ["seg"]
