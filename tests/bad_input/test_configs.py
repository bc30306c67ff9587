"""What users get wrong in YAMLs and on the command line."""

import runpy
import sys

from meta_animator.json_files import read_json
from tests.bad_input.room import ROOT, Cases, starting

CASES = Cases()


@CASES.add("config none.yaml: no such file; give a YAML such as configs/demo/step0.yaml")
def missing_config(room):
    return ["train", "none.yaml"]


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


@CASES.add("data.prompt: the text encoder does not read as far as {identifier}; shorten 'one person")
def identifier_behind_a_long_prompt(room):
    return ["train", room.config("control"), f"data.prompt={'one person ' * 40}{{identifier}}"]


CASES.table(starting("train", "control"), {
    "unknown_key": ("train.learning_rat=1", "'train.learning_rat'"),
    "unknown_task": ("model.tasks=[dwpose,dancing]", "dancing"),
    "unknown_task_names_the_known_ones": ("model.tasks=[blured]", "blurred"),
    "size_that_the_base_cannot_have": ("data.width=66", "data.width: 66 is not divisible by"),
    "training_what_is_not_trained": ("stage=sample", "stage 'sample' is not trained; use control, motion, reference"),
    "word_for_a_number": ("train.max_steps=many", "train.max_steps"),
    "number_below_its_range": ("train.batch_size=0", "train.batch_size: 0 is below the smallest allowed value 1"),
    "number_above_its_range": ("data.prompt_drop=1.5", "data.prompt_drop: 1.5 is above the largest allowed value 1.0"),
    "choice_that_is_none": ("train.lr_scheduler=cosinus", "train.lr_scheduler: 'cosinus' is not one of 'constant'"),
    "argument_without_a_value": ("train.max_steps", "argument 'train.max_steps': expected key=value"),
    "task_weights_without_a_space": (
        "data.task_weights={dwpose:8}",
        "data.task_weights: 'dwpose:8' has no value, expected {name: value}; YAML wants a space after a colon",
    ),
    "task_without_weight": ("data.task_weights={dwpose: 0}", "data.task_weights: dwpose has 0; expected at least 1"),
    "task_named_twice": ("model.tasks=[dwpose,dwpose]", "model.tasks: expected at least one task, each once"),
    "no_task": ("model.tasks=[]", "model.tasks: expected at least one task"),
    "cached_latents_of_random_crops": (
        "data.random_crop=0.5", "data.cache_latents: cannot hold random crops, flips or sampled posteriors",
    ),
    "learning_a_task_that_the_run_does_not_have": (
        "train.trainable=lora", "train.lora_tasks=[canny]",
        "train.lora_tasks: canny is not in model.tasks, [dwpose, seg, blurred]; add it there",
    ),
    "some_loras_with_the_shared_weights": (
        "train.lora_tasks=[seg]", "train.lora_tasks: is for stages 0 and 2 with train.trainable=lora",
    ),
    "wandb_without_wandb": ("train.wandb_project=mine", "train.wandb_project: Weights & Biases is not installed"),
    "face_term_without_an_embedder": ("loss.face_weight=1", "model.face=", "model.face is empty but loss.face_weight > 0"),
})  # fmt: skip


CASES.table(starting("train", "motion"), {
    "stage_1_from_nothing": ("model.control_from=", "model.control_from is empty: stage 'motion' starts from a stage-0 run"),
    "clips_longer_than_the_motion_module": (
        "data.num_frames=16", "data.num_frames: 16 is more than model.motion_max_seq_length, 8",
    ),
    "lora_only_in_stage_1": ("train.trainable=lora", "train.trainable=lora is for stages 0 and 2"),
})  # fmt: skip


test_bad_input_is_one_line = CASES.test()


def test_an_explicit_subset_of_tasks_is_fine(room, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", room.config("motion"), "model.tasks=[seg]", "train.max_steps=1"])
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert read_json(room.out / "checkpoints" / "step-000001" / "manifest.json")["tasks"] == ["seg"]
