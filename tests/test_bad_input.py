"""What users get wrong, through the entry points themselves: one line that says what, where and what would be right;
exit code 2; an output folder that is as it was."""

import dataclasses
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meta_animator.config import save_config
from meta_animator.conversion.lora import extract
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

    def prepared_weights(self) -> Path:
        return next(self.prepared.rglob("model.safetensors"))

    def train_set(self, change: Callable[[list[dict]], None]) -> Path:
        """A copy of the train set with `change` made to its manifest's lines."""
        data = self.copy(self.data / "train")
        lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
        change(lines)
        (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return data

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


@case("manifest.jsonl: no such file; expected a data-set folder")
def folder_without_manifest_before_puppets_are_made(room):
    return ["train", room.config("control"), f"data.train=[{room.folder}]", f"data.puppets.root={room.out}/puppets"]


def broken_manifest(room: Room, **changes) -> list[str]:
    data = room.train_set(lambda lines: lines[1].update(changes))
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
    data = room.train_set(lambda lines: [line.update(conditions={"seg": "seg"}) for line in lines])
    for k in range(4):
        write_image(data / "seg" / f"{k:06d}.png", np.zeros((64, 64, 3) if k != 1 else (32, 32, 3), np.uint8))
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
    return [*broken_picture(room), "data.cache_latents=false", "data.num_workers=2", "train.max_steps=40"]


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
    return sampling(room, f"model.motion_from={room.prepared}", "sample.window=8")


@case("no-base': no such file or folder here; expected one, or a name on the hub")
def base_that_is_not_there(room):
    return ["train", room.config("control"), f"model.base={room.folder}/no-base"]


@case("no folder 'unet'; expected a model in diffusers format")
def base_that_is_an_empty_folder(room):
    (room.folder / "empty").mkdir()
    return ["train", room.config("control"), f"model.base={room.folder}/empty"]


@case("a single file does not say what it is; set model.architecture=configs/sd15/architecture")
def base_in_one_file_of_unknown_shape(room):
    return ["train", room.config("control"), f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"]


@case("nowhere/unet/config.json: no such file")
def base_in_one_file_without_its_shape(room):
    file = f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"
    return ["train", room.config("control"), file, f"model.architecture={room.folder}/nowhere"]


@case("weights are unknown, the first is")
def base_in_one_file_of_another_layout(room):
    file = f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"
    return ["train", room.config("control"), file, f"model.architecture={room.base}"]


@case("none.ckpt: no such file")
def file_to_convert_that_is_not_there(room):
    return ["convert", "import-control", "none.ckpt", str(room.out), "--base", str(room.base)]


@case("no weight is named control_model....; expected a checkpoint of CtrLoRA or Meta-Animator")
def file_to_convert_that_is_something_else(room):
    return ["convert", "import-control", str(room.prepared_weights()), str(room.out), "--base", str(room.base)]


@case("holds no motion module; give a stage-1 run")
def motion_to_export_that_was_never_trained(room):
    return ["convert", "export-motion", str(room.prepared), str(room.out / "mm.ckpt"), "--base", str(room.base)]


@case("merge")
def merging_a_task_that_is_not_there(room):
    extraction = room.config("extract", extract__checkpoint=room.prepared)
    return ["extract_lora", extraction, "extract.merge=hed"]


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


@case("is encoded in a way that no decoder here knows")
def video_of_an_unknown_codec(room):
    video = room.video()
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzzz"))
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


# more of configs


@case("not valid YAML")
def config_that_is_no_yaml(room):
    (room.folder / "bad.yaml").write_text("train: {max_steps: 1")
    return ["train", str(room.folder / "bad.yaml")]


@case("expected sections such as 'train:', found a list")
def config_that_is_a_list(room):
    (room.folder / "bad.yaml").write_text("- train")
    return ["train", str(room.folder / "bad.yaml")]


@case("no such file")
def config_that_is_a_folder(room):
    return ["train", str(room.folder)]


@case("include: ")
def config_that_includes_nothing(room):
    (room.folder / "bad.yaml").write_text("include: other.yaml")
    return ["train", str(room.folder / "bad.yaml")]


@case("train.max_steps")
def word_for_a_number(room):
    return ["train", room.config("control"), "train.max_steps=many"]


@case("train.batch_size: 0 is below the smallest allowed value 1")
def number_below_its_range(room):
    return ["train", room.config("control"), "train.batch_size=0"]


@case("data.prompt_drop: 1.5 is above the largest allowed value 1.0")
def number_above_its_range(room):
    return ["train", room.config("control"), "data.prompt_drop=1.5"]


@case("train.lr_scheduler: 'cosinus' is not one of 'constant'")
def choice_that_is_none(room):
    return ["train", room.config("control"), "train.lr_scheduler=cosinus"]


@case("argument 'train.max_steps': expected key=value")
def argument_without_a_value(room):
    return ["train", room.config("control"), "train.max_steps"]


@case("data.task_weights: 'dwpose:8' has no value, expected {name: value}; YAML wants a space after a colon")
def task_weights_without_a_space(room):
    return ["train", room.config("control"), "data.task_weights={dwpose:8}"]


@case("data.task_weights: dwpose has 0; expected at least 1")
def task_without_weight(room):
    return ["train", room.config("control"), "data.task_weights={dwpose: 0}"]


@case("model.tasks: expected at least one task, each once")
def task_named_twice(room):
    return ["train", room.config("control"), "model.tasks=[dwpose,dwpose]"]


@case("model.tasks: expected at least one task")
def no_task(room):
    return ["train", room.config("control"), "model.tasks=[]"]


@case("data.num_frames: 16 is more than model.motion_max_seq_length, 8")
def clips_longer_than_the_motion_module(room):
    return ["train", room.config("motion"), "data.num_frames=16"]


@case("train.trainable=lora is for stages 0 and 2")
def lora_only_in_stage_1(room):
    return ["train", room.config("motion"), "train.trainable=lora"]


@case("data.cache_latents: cannot hold random crops, flips or sampled posteriors")
def cached_latents_of_random_crops(room):
    return ["train", room.config("control"), "data.random_crop=0.5"]


@case("train.lora_tasks: canny is not in model.tasks, [dwpose, seg, blurred]; add it there")
def learning_a_task_that_the_run_does_not_have(room):
    return ["train", room.config("control"), "train.trainable=lora", "train.lora_tasks=[canny]"]


@case("train.lora_tasks: is for stages 0 and 2 with train.trainable=lora")
def some_loras_with_the_shared_weights(room):
    return ["train", room.config("control"), "train.lora_tasks=[seg]"]


@case("data.prompt: the text encoder does not read as far as {identifier}; shorten 'one person")
def identifier_behind_a_long_prompt(room):
    return ["train", room.config("control"), f"data.prompt={'one person ' * 40}{{identifier}}"]


@case("train.wandb_project: Weights & Biases is not installed")
def wandb_without_wandb(room):
    return ["train", room.config("control"), "train.wandb_project=mine"]


@case("model.face is empty but loss.face_weight > 0")
def face_term_without_an_embedder(room):
    return ["train", room.config("control"), "loss.face_weight=1", "model.face="]


# more of manifests


def manifest_text(room: Room, text: str) -> list[str]:
    data = room.copy(room.data / "train")
    (data / "manifest.jsonl").write_text(text)
    return ["train", room.config("control"), f"data.train=[{data}]"]


@case("manifest.jsonl: is empty; expected one JSON object per line")
def manifest_of_no_lines(room):
    return manifest_text(room, "\n\n")


@case("manifest.jsonl, line 1: is not JSON")
def manifest_that_is_no_json(room):
    return manifest_text(room, "id: one")


@case("manifest.jsonl, line 1: is a JSON list, expected an object")
def manifest_of_lists(room):
    return manifest_text(room, "[]")


@case("manifest.jsonl, line 1: key 'id' is missing")
def manifest_without_ids(room):
    return manifest_text(room, "{}")


@case("manifest.jsonl: cannot be read as UTF-8 text")
def manifest_in_another_encoding(room):
    arguments = manifest_text(room, "")
    (room.folder / "train" / "manifest.jsonl").write_bytes(b"\xff\xfe{}")
    return arguments


@case("line 2: unknown key 'idenity'")
def manifest_with_an_unknown_key(room):
    return broken_manifest(room, idenity="anna")


@case("line 2: id '../p1' may hold only letters")
def manifest_with_a_path_as_id(room):
    return broken_manifest(room, id="../p1")


@case("line 2: id 'p0' is used twice")
def manifest_with_an_id_twice(room):
    return broken_manifest(room, id="p0")


@case("line 2: 'identity' is empty")
def manifest_of_nobody(room):
    return broken_manifest(room, identity=" ")


@case("line 2: 'fps' is -1, expected a positive number")
def manifest_with_a_negative_rate(room):
    return broken_manifest(room, fps=-1)


@case("line 2: 'width' is \"64\", of the wrong type")
def manifest_with_a_word_for_a_number(room):
    return broken_manifest(room, width="64")


@case("'kind' is 'film', expected one of clip, photo")
def manifest_of_an_unknown_kind(room):
    return broken_manifest(room, kind="film")


@case("a photo has 1 frame, not 4")
def manifest_with_a_photo_of_four_frames(room):
    return broken_manifest(room, kind="photo")


@case("unknown layer 'picture'")
def manifest_with_an_unknown_layer(room):
    return broken_manifest(room, layers={"picture": "clips/p1/frame"})


@case("leaves the data-set folder")
def manifest_with_an_absolute_path(room):
    return broken_manifest(room, layers={"frame": "/etc"})


@case("is a link that leaves the data-set folder")
def manifest_with_a_link_outwards(room):
    arguments = broken_manifest(room)
    picture = room.folder / "train" / "clips" / "p1" / "frame" / "000001.png"
    picture.unlink()
    picture.symlink_to("/etc/hostname")
    return arguments


@case("'frame' has size 64x64, the manifest says 32x64")
def manifest_of_another_size(room):
    return broken_manifest(room, width=32)


@case("no frame can show the task 'depth' (it needs the layers depth, mask)")
def data_without_the_layers_of_a_task(room):
    data = room.train_set(lambda lines: [line["layers"].pop("depth") for line in lines])
    return ["train", room.config("control"), f"data.train=[{data}]", "model.tasks=[dwpose,depth]"]


@case("no clip of the split 'test'")
def split_that_is_not_there(room):
    return ["train", room.config("control"), "data.split=test"]


@case("data.flip: clip 'p0' has drawn images of seg")
def flips_of_drawn_conditions(room):
    data = room.train_set(lambda lines: lines[0].update(conditions={"seg": lines[0]["layers"]["frame"]}))
    return ["train", room.config("control"), f"data.train=[{data}]", "data.flip=0.5", "data.cache_latents=false"]


# more of checkpoints


@case("model.safetensors: not a safetensors file; it is a PyTorch file; give it a name that ends in .ckpt")
def checkpoint_that_is_a_pickle(room):
    """One that would make a file when unpickled."""

    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(room.folder / 'out' / 'executed')!r}, 'w')",))

    def pickle_it(folder):
        torch.save({"control.conv_in.weight": Bomb()}, folder / "model.safetensors")

    room.out.mkdir()
    return changed_checkpoint(room, pickle_it)


@case("has shape (3,), the model has")
def checkpoint_with_a_weight_of_another_shape(room):
    def change(folder):
        weights = load_tensors(folder / "model.safetensors")
        weights[next(name for name in sorted(weights) if name.startswith("control."))] = torch.zeros(3)
        save_tensors(weights, folder / "model.safetensors")

    return changed_checkpoint(room, change)


@case("1 weights are unknown to the model, the first is control.extra")
def checkpoint_with_an_unknown_weight(room):
    def change(folder):
        weights = load_tensors(folder / "model.safetensors")
        save_tensors(weights | {"control.extra": torch.zeros(3)}, folder / "model.safetensors")

    return changed_checkpoint(room, change)


@case("weights")
def checkpoint_without_its_weights(room):
    return changed_checkpoint(room, lambda folder: (folder / "model.safetensors").unlink())


@case("belongs to ControlNet")
def lora_of_another_controlnet(room):
    loras = extracted(room)
    tensors = load_tensors(loras / "controlnet" / "diffusion_pytorch_model.safetensors")
    other = {name: weight + 1 for name, weight in tensors.items()}
    save_tensors(other, loras / "controlnet" / "diffusion_pytorch_model.safetensors")
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    control = f"model.control_from={loras / 'controlnet'}"
    return ["sample", room.config("sample"), control, f"sample.loras={{{loras / 'dwpose'}: 1}}", *driving]


@case("no metadata.json; expected a folder written by extract_LoRA_weights.sh")
def lora_folder_that_is_not_there(room):
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), f"sample.loras={{{room.folder}/nothing: 1}}", *driving]


def extracted(room: Room) -> Path:
    config = tiny.make_config(room.folder / "loras", room.base, room.data, "extract", extract__checkpoint=room.prepared)
    extract(config)
    return Path(config.output_dir)


# more of sampling


def sampling(room: Room, *arguments: str) -> list[str]:
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), *driving, *arguments]


@case("has no clip 'p9'; it has: p0, p1, p2, p3")
def driving_clip_that_is_not_there(room):
    return sampling(room, "sample.driving_clip=p9")


@case("a folder without manifest.jsonl")
def driving_folder_without_a_manifest(room):
    return sampling(room, f"sample.driving={room.folder}")


@case("lacks width, height or fps; add these three numbers to the file")
def driving_keypoints_without_their_size(room):
    np.savez(room.folder / "bare.npz", keypoints=np.zeros((2, 133, 3), np.float32))
    return sampling(room, f"sample.driving={room.folder}/bare.npz")


@case("expected a photo")
def reference_that_is_not_there(room):
    return sampling(room, "sample.reference=none.png")


@case("sample.reference is empty")
def inversion_of_nothing(room):
    return sampling(room, "sample.reference=")


@case("sample.fit_pose needs sample.reference")
def fitting_to_nobody(room):
    return sampling(room, "sample.reference=", "sample.fit_pose=true")


@case("sample.fit_pose: moves skeletons, not 'blurred'")
def fitting_what_is_no_skeleton(room):
    return sampling(room, "sample.fit_pose=true", "sample.tasks={blurred: 1}")


@case("sample.num_inference_steps: num_inference_steps: expected 1 to 1000, got 2000")
def more_steps_than_there_are(room):
    return sampling(room, "sample.num_inference_steps=2000")


@case("sample.tasks is empty")
def sampling_without_a_task(room):
    return sampling(room, "sample.tasks={}")


# more of preparing


def preparing(room: Room, *arguments: str, video: Path | None = None) -> list[str]:
    return ["prepare_data", "--input", str(video or room.video()), "--output", str(room.out), *arguments]


@case("film.mp4")
def text_that_is_called_a_video(room):
    (room.folder / "film.mp4").write_text("not a video")
    return preparing(room, video=room.folder / "film.mp4")


@case("holds no photos")
def folder_without_photos(room):
    (room.folder / "empty").mkdir()
    return preparing(room, video=room.folder / "empty")


def photos(room: Room, name: str, content: bytes | None = None) -> list[str]:
    folder = room.folder / "photos"
    write_image(folder / "good.png", np.full((32, 32, 3), 90, np.uint8))
    if content is not None:
        (folder / name).write_bytes(content)
    return preparing(room, "--annotators", "none", video=folder)


@case("bad.jpg: cannot be read as a picture")
def text_that_is_called_a_photo(room):
    return photos(room, "bad.jpg", b"not a picture")


@case("bad.png: ")
def photo_of_no_bytes(room):
    return photos(room, "bad.png", b"")


def half_of(room: Room, mode: str, suffix: str, **options) -> list[str]:
    """A photo of another kind, cut off in the middle."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).convert(mode)
    picture.save(room.folder / f"whole{suffix}", **options)
    content = (room.folder / f"whole{suffix}").read_bytes()
    return photos(room, f"half{suffix}", content[: len(content) // 2])


@case("half.png: cannot be read as a picture")
def half_a_transparent_photo(room):
    return half_of(room, "RGBA", ".png")


@case("half.png: cannot be read as a picture")
def half_a_grey_photo(room):
    return half_of(room, "L", ".png")


@case("half.png: cannot be read as a picture")
def half_a_16_bit_photo(room):
    return half_of(room, "I;16", ".png")


@case("half.jpg: cannot be read as a picture")
def half_a_cmyk_photo(room):
    return half_of(room, "CMYK", ".jpg")


@case("half.jpg: cannot be read as a picture")
def half_a_rotated_photo(room):
    exif = Image.Exif()
    exif[0x0112] = 6
    return half_of(room, "RGB", ".jpg", exif=exif)


@case("keypoints have shape (6, 17, 3); expected (frames, 133, 3)")
def keypoints_of_another_skeleton(room):
    np.savez(room.folder / "coco.npz", keypoints=np.zeros((6, 17, 3), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/coco.npz")


@case("cannot be read; expected an .npz with 'keypoints'")
def keypoints_that_are_a_pickle(room):
    np.savez(room.folder / "bad.npz", keypoints=np.array([{"x": 1}], dtype=object))
    return preparing(room, "--keypoints", f"{room.folder}/bad.npz")


@case("cannot be read; expected an .npz with 'keypoints'")
def keypoints_under_another_name(room):
    np.savez(room.folder / "bad.npz", points=np.zeros((6, 133, 3), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/bad.npz")


@case("none.npz: no such file")
def keypoints_that_are_not_there(room):
    return preparing(room, "--keypoints", "none.npz")


@case("was made for 64x64, but the video is 32x32")
def keypoints_of_another_size(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "other.npz", keypoints=points, width=64, height=64, fps=10.0)
    return preparing(room, "--keypoints", f"{room.folder}/other.npz")


@case("mask is float32 (6, 32, 32); expected uint8 (6, 32, 4), bits packed by row")
def masks_that_are_not_packed(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "mask.npz", keypoints=points, mask=np.zeros((6, 32, 32), np.float32))
    return preparing(room, "--keypoints", f"{room.folder}/mask.npz")


@case("needs 32 rows of 4: np.packbits(mask, axis=-1)")
def masks_of_photos_that_are_not_packed(room):
    np.savez(room.folder / "mask.npz", keypoints=np.load(room.keypoints(1))["keypoints"], mask=np.zeros((1, 32, 32), np.uint8))
    return [*photos(room, "none.png"), "--keypoints", f"{room.folder}/mask.npz"]


@case("no keypoint is beyond 0.87; expected pixels, not shares of the picture")
def keypoints_as_shares_of_the_picture(room):
    points = np.load(room.keypoints(6))["keypoints"] / [32, 32, 1]
    np.savez(room.folder / "shares.npz", keypoints=np.minimum(points, [0.9, 0.9, 1]))
    return preparing(room, "--keypoints", f"{room.folder}/shares.npz")


@case("mask is uint8 (5, 32, 4); expected uint8 (6, 32, 4)")
def masks_of_another_length(room):
    points = np.load(room.keypoints(6))["keypoints"]
    np.savez(room.folder / "mask.npz", keypoints=points, mask=np.zeros((5, 32, 4), np.uint8))
    return preparing(room, "--keypoints", f"{room.folder}/mask.npz")


@case("--heldout-frames 4:9: expected A:B with 0 <= A < B <= 6")
def held_out_frames_beyond_the_end(room):
    return preparing(room, "--heldout-frames", "4:9")


@case("film.mp4: the video has 10 frames per second; expected more than 0 and at most that")
def more_frames_than_there_are(room):
    return preparing(room, "--fps", "60")


@case("--size 0 12: expected height and width, 16 to 8192 pixels")
def a_size_of_nothing(room):
    return preparing(room, "--size", "0", "12")


@case("--limits, --least, --part: without effect with --annotators none; leave them out, or say who annotates")
def selection_where_nobody_annotates(room):
    return preparing(room, "--annotators", "none", "--limits", "min_height=60", "--least", "9", "--part", "1/2")


@case("--frames: without effect with --keypoints alone; leave it out, or say who annotates, such as --annotators light")
def kind_of_frames_beside_keypoints_alone(room):
    return preparing(room, "--keypoints", str(room.keypoints(6)), "--frames", "jpg")


@case("--identity: without effect with --annotators none")
def identity_of_a_published_data_set(room):
    return preparing(room, "--annotators", "none", "--format", "tiktok", "--identity", "anna")


@case("2 inputs, 1 of them photos; give one video, or photos only")
def video_and_photo_together(room):
    photo = write_image(room.folder / "photo.png", np.zeros((32, 32, 3), np.uint8))
    return ["prepare_data", "--input", str(room.video()), str(photo), "--output", str(room.out), "--annotators", "none"]


@case("is a file; give the name of a new folder")
def output_that_is_a_file(room):
    room.out.write_text("precious")
    return preparing(room)


@case("holds other things than a data set and is not replaced")
def overwriting_what_is_no_data_set(room):
    room.out.mkdir()
    (room.out / "mine.txt").write_text("precious")
    return preparing(room, "--overwrite")


def tree(folder: Path) -> dict[str, bytes]:
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@case("file.txt: is a file; --into takes a folder")
def weights_into_a_file(room):
    (room.folder / "file.txt").write_text("mine")
    return ["get_weights", "light", "--dry-run", "--into", str(room.folder / "file.txt" / "below")]


def test_the_table_is_long():
    assert len(CASES) >= 60


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


def test_an_error_ends_the_process_and_its_workers(room):
    """Workers leave SIGTERM alone: a process that ends by an error and only then sends it would wait for ever."""
    script, *arguments = picture_that_was_cut_off_in_a_worker(room)
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2 and "error: " in done.stderr
