"""What users get wrong in YAMLs and on the command line."""

import runpy
import sys

import pytest

from meta_animator.json_files import read_json
from tests.bad_input.room import ROOT, Cases, check

CASES = Cases()


@CASES.add("config none.yaml: no such file; give a YAML such as configs/demo/step0.yaml")
def missing_config(room):
    return ["train", "none.yaml"]


@CASES.add("'train.learning_rat'")
def unknown_key(room):
    return ["train", room.config("control"), "train.learning_rat=1"]


@CASES.add("dancing")
def unknown_task(room):
    return ["train", room.config("control"), "model.tasks=[dwpose,dancing]"]


@CASES.add("blurred")
def unknown_task_names_the_known_ones(room):
    return ["train", room.config("control"), "model.tasks=[blured]"]


@CASES.add("data.width: 66 is not divisible by")
def size_that_the_base_cannot_have(room):
    return ["train", room.config("control"), "data.width=66"]


@CASES.add("stage 'sample' is not trained; use control, motion, reference")
def training_what_is_not_trained(room):
    return ["train", room.config("control"), "stage=sample"]


@CASES.add("model.control_from is empty: stage 'motion' starts from a stage-0 run")
def stage_1_from_nothing(room):
    return ["train", room.config("motion"), "model.control_from="]


@CASES.add("sample.output: 'a.gif' does not end in .mp4")
def animation_as_gif(room):
    return ["sample", room.config("sample"), "sample.output=a.gif"]


@CASES.add("not valid YAML")
def config_that_is_no_yaml(room):
    (room.folder / "bad.yaml").write_text("train: {max_steps: 1")
    return ["train", str(room.folder / "bad.yaml")]


@CASES.add("expected sections such as 'train:', found a list")
def config_that_is_a_list(room):
    (room.folder / "bad.yaml").write_text("- train")
    return ["train", str(room.folder / "bad.yaml")]


@CASES.add("no such file")
def config_that_is_a_folder(room):
    return ["train", str(room.folder)]


@CASES.add("include: ")
def config_that_includes_nothing(room):
    (room.folder / "bad.yaml").write_text("include: other.yaml")
    return ["train", str(room.folder / "bad.yaml")]


@CASES.add("train.max_steps")
def word_for_a_number(room):
    return ["train", room.config("control"), "train.max_steps=many"]


@CASES.add("train.batch_size: 0 is below the smallest allowed value 1")
def number_below_its_range(room):
    return ["train", room.config("control"), "train.batch_size=0"]


@CASES.add("data.prompt_drop: 1.5 is above the largest allowed value 1.0")
def number_above_its_range(room):
    return ["train", room.config("control"), "data.prompt_drop=1.5"]


@CASES.add("train.lr_scheduler: 'cosinus' is not one of 'constant'")
def choice_that_is_none(room):
    return ["train", room.config("control"), "train.lr_scheduler=cosinus"]


@CASES.add("argument 'train.max_steps': expected key=value")
def argument_without_a_value(room):
    return ["train", room.config("control"), "train.max_steps"]


@CASES.add("data.task_weights: 'dwpose:8' has no value, expected {name: value}; YAML wants a space after a colon")
def task_weights_without_a_space(room):
    return ["train", room.config("control"), "data.task_weights={dwpose:8}"]


@CASES.add("data.task_weights: dwpose has 0; expected at least 1")
def task_without_weight(room):
    return ["train", room.config("control"), "data.task_weights={dwpose: 0}"]


@CASES.add("model.tasks: expected at least one task, each once")
def task_named_twice(room):
    return ["train", room.config("control"), "model.tasks=[dwpose,dwpose]"]


@CASES.add("model.tasks: expected at least one task")
def no_task(room):
    return ["train", room.config("control"), "model.tasks=[]"]


@CASES.add("data.num_frames: 16 is more than model.motion_max_seq_length, 8")
def clips_longer_than_the_motion_module(room):
    return ["train", room.config("motion"), "data.num_frames=16"]


@CASES.add("train.trainable=lora is for stages 0 and 2")
def lora_only_in_stage_1(room):
    return ["train", room.config("motion"), "train.trainable=lora"]


@CASES.add("data.cache_latents: cannot hold random crops, flips or sampled posteriors")
def cached_latents_of_random_crops(room):
    return ["train", room.config("control"), "data.random_crop=0.5"]


@CASES.add("train.lora_tasks: canny is not in model.tasks, [dwpose, seg, blurred]; add it there")
def learning_a_task_that_the_run_does_not_have(room):
    return ["train", room.config("control"), "train.trainable=lora", "train.lora_tasks=[canny]"]


@CASES.add("train.lora_tasks: is for stages 0 and 2 with train.trainable=lora")
def some_loras_with_the_shared_weights(room):
    return ["train", room.config("control"), "train.lora_tasks=[seg]"]


@CASES.add("data.prompt: the text encoder does not read as far as {identifier}; shorten 'one person")
def identifier_behind_a_long_prompt(room):
    return ["train", room.config("control"), f"data.prompt={'one person ' * 40}{{identifier}}"]


@CASES.add("train.wandb_project: Weights & Biases is not installed")
def wandb_without_wandb(room):
    return ["train", room.config("control"), "train.wandb_project=mine"]


@CASES.add("model.face is empty but loss.face_weight > 0")
def face_term_without_an_embedder(room):
    return ["train", room.config("control"), "loss.face_weight=1", "model.face="]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name, room, capfd, monkeypatch):
    check(*CASES[name], room, capfd, monkeypatch)


def test_an_explicit_subset_of_tasks_is_fine(room, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", room.config("motion"), "model.tasks=[seg]", "train.max_steps=1"])
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert read_json(room.out / "checkpoints" / "step-000001" / "manifest.json")["tasks"] == ["seg"]
