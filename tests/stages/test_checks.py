"""What a run, and --dry-run, say before anything is made, loaded or encoded."""

import inspect
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator.checkpoints.files import Checkpoint, find_checkpoint, save_checkpoint
from meta_animator.config import load_config
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.media.images import write_image
from meta_animator.stages import sample
from meta_animator.stages import train as training
from meta_animator.stages.checks import CHECKS, check_run

ROOT = Path(__file__).parents[2]
WRONG = {  # message: stage and settings
    "data.cache_latents: cannot hold random crops": ("control", {"data.random_crop": 0.5}),
    "unknown task 'dwpos'": ("control", {"data.task_weights": "{dwpos: 2}"}),
    "data.width: 66 is not divisible by 8": ("control", {"data.width": 66}),
    "data.num_frames: 9 is more than model.motion_max_seq_length, 8": ("motion", {"data.num_frames": 9}),
    "no clip is long enough for 8 frames": ("motion", {"data.num_frames": 8}),
    "has no LoRA for canny (it has dwpose, seg, blurred); set model.tasks to a subset": ("motion", {"model.tasks": "[canny]"}),
    "LoRA rank 4, this run's model.lora_rank is 2": ("reference", {"model.lora_rank": 2}),
    "stage 2 learns one person; data.train holds 4": ("reference", {"data.train": "[{data}/train]"}),
    "shows nobody but held-out; name data of other people": ("reference", {"data.auxiliary": "[{data}/person]"}),
    "data.held_out: 4 of 4 photos, 4 of which show dwpose; at least one has to be left": ("reference", {
        "data.held_out": 4, "train.measure_every": 1,
    }),
    "data.held_out: nothing is ever measured": ("reference", {"data.held_out": 1}),
    "data.held_out_share: 4 is not there; of the 4 photos that show dwpose, 1 at a time, the last are 3": ("reference", {
        "data.held_out": 1, "data.held_out_share": 4, "train.measure_every": 1,
    }),
    "train.best_step: data.held_out chooses the best step": ("reference", {
        "data.held_out": 1, "train.best_step": 1, "train.measure_every": 1,
    }),
    "train.best_step: 9 is never reached; train.max_steps is 2": ("reference", {"train.best_step": 9, "train.max_steps": 2}),
    "train.early_stop: is measured on photos that are not learned": ("reference", {"train.early_stop": 2}),
    "no frame can show depth: the layers": ("control", {"model.tasks": "[depth]", "data.train": "[{flat}]"}),
    "has no LoRA for canny (it has dwpose, seg, blurred); set sample.tasks to a subset": (
        "sample", {"sample.tasks": "{canny: 1}"},
    ),
    "sample.window: 9 is more than model.motion_max_seq_length, 8": (
        "sample", {"sample.window": 9, "model.motion_from": "{prepared}"},
    ),
    "holds no motion module; give a stage-1 run": ("sample", {"sample.window": 8, "model.motion_from": "{prepared}"}),
    "expected 1 to 1000, got 2000": ("sample", {"sample.num_inference_steps": 2000}),
    "sample.sampler: 'heun' is not one of 'ddim', 'euler', 'dpm_solver_2m', 'unipc'": ("sample", {"sample.sampler": "heun"}),
    "sample.eta: 0.5 is for sampler ddim": ("sample", {"sample.eta": 0.5, "sample.sampler": "dpm_solver_2m"}),
    "sample.identity: 'stranger' is not in the checkpoint": ("sample", {"sample.identity": "stranger"}),
    "has no clip 'p9'": ("sample", {"sample.driving_clip": "p9"}),
    "has no LoRA 'canny'": ("extract", {"extract.tasks": "[canny]"}),
}  # fmt: skip


@pytest.fixture
def run_config(make_config, prepared, puppet_data, tmp_path):
    """A run of a stage that would work, with changes."""
    write_image(tmp_path / "photo.png", np.zeros((64, 64, 3), np.uint8))
    places = {"data": puppet_data, "prepared": prepared, "flat": without_depth(puppet_data / "person", tmp_path / "flat")}

    def make(stage: str, **changes):
        own = {"model.control_from": prepared} if stage not in ("control", "extract") else {}
        if stage == "sample":
            own |= {"sample.driving": puppet_data / "train", "sample.reference": tmp_path / "photo.png", "sample.identity": "p0"}
        if stage == "extract":
            own |= {"extract.checkpoint": prepared}
        changes = {k: _filled(v, places) for k, v in changes.items()}
        return make_config(stage, **{key.replace(".", "__"): value for key, value in (own | changes).items()})

    return make


def without_depth(data: Path, folder: Path) -> Path:
    """A copy of a data set whose manifest knows of no depth."""
    shutil.copytree(data, folder)
    entries = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    for entry in entries:
        del entry["layers"]["depth"]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return folder


def _filled(value, places):
    for name, place in places.items():
        value = value.replace(f"{{{name}}}", str(place)) if isinstance(value, str) else value
    return value


@pytest.mark.parametrize("stage", ["control", "motion", "reference", "sample", "extract"])
def test_what_would_work_passes(run_config, stage):
    assert check_run(run_config(stage), dry=True) == check_run(run_config(stage)) == []


@pytest.mark.parametrize("message", WRONG)
def test_a_dry_run_finds_what_needs_no_weights(run_config, message):
    stage, changes = WRONG[message]
    with pytest.raises(UserError) as caught:
        check_run(run_config(stage, **changes), dry=True)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.ask.__name__)
def test_a_check_is_given_the_sections_that_it_names(check):
    assert list(inspect.signature(check.ask).parameters) == check.sections.split()


def test_a_rank_matters_only_for_loras_that_are_taken_along(run_config):
    """As loading has it: LoRAs of other tasks start fresh, of any rank."""
    changes = {"model.lora_rank": 2, "model.tasks": "[canny]"}
    assert check_run(run_config("reference", **changes)) == []
    with pytest.raises(UserError, match="LoRA rank 4"):
        check_run(run_config("reference", **(changes | {"model.tasks": "[canny, seg]"})))


def test_a_motion_module_of_another_noise_schedule_is_found_before_it_is_loaded(run_config, prepared, tmp_path):
    metadata = read_json(find_checkpoint(prepared) / "manifest.json") | {"stage": "motion", "beta_schedule": "linear"}
    save_checkpoint(tmp_path / "step1", Checkpoint(step=2, metadata=metadata, model={"motion.x": torch.zeros(1)}), keep=1)
    changes = {"sample.window": 8, "model.motion_from": tmp_path / "step1"}
    assert check_run(run_config("sample", **changes, **{"model.beta_schedule": "linear"}), dry=True) == []
    with pytest.raises(UserError, match=r"was trained with model\.beta_schedule 'linear', this run has ''"):
        check_run(run_config("sample", **changes), dry=True)


def test_what_is_not_there_yet_is_a_note_for_a_dry_run_and_ends_a_run(run_config, tmp_path):
    config = run_config("motion", **{"data.train": "[nowhere]", "model.control_from": tmp_path / "step0"})
    notes = check_run(config, dry=True)
    assert len(notes) == 2 and "nowhere/manifest.jsonl: no such file" in notes[0]
    assert "train that stage first (bash Step0_train_BaseCtrl_LoRA.sh)" in notes[1]
    with pytest.raises(UserError, match=r"nowhere/manifest.jsonl: no such file"):
        check_run(config)


PARTS = ("published.yaml", "common.yaml")  # that other configs include
SHIPPED = [f for f in sorted((ROOT / "configs").rglob("*.yaml")) if f.name not in PARTS and f.parent.name != "accelerate"]


@pytest.mark.parametrize("config", SHIPPED, ids=lambda file: str(file.relative_to(ROOT / "configs")))
def test_a_shipped_config_may_run_once_what_it_names_is_there(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_run(load_config(config), dry=True)


def test_what_the_quick_start_lacks_is_fetched(run_config, tmp_path):
    said = r"or take what is published \(python scripts/get_weights\.py sd15\)$"
    control, motion = tmp_path / "sd15-quickstart" / "control", tmp_path / "v3_sd15_mm.ckpt"
    lacking = {"model.control_from": control, "model.motion_from": motion, "sample.window": 8}
    notes = check_run(run_config("sample", **lacking), dry=True)
    assert sum(bool(re.search(said, note)) for note in notes) == 2, notes
    with pytest.raises(UserError, match=said):
        check_run(run_config("sample", **{"model.motion_from": motion, "sample.window": 8}))


def test_sampling_on_a_fresh_clone_says_what_to_run_first(run_config, tmp_path):
    absent = {"model.control_from": tmp_path / "step2", "model.motion_from": tmp_path / "step1", "sample.window": 8}
    with pytest.raises(UserError, match=r"bash Step2_finetune_BaseCtrl_LoRA\.sh"):
        check_run(run_config("sample", **absent))
    del absent["model.control_from"]
    with pytest.raises(UserError, match=r"bash Step1_train_Motion_Module\.sh"):
        check_run(run_config("sample", **absent))
    puppets = {"data.puppets.root": tmp_path / "p", "sample.driving": tmp_path / "p" / "driving"}
    with pytest.raises(UserError, match=r"sample\.driving: .*/p/driving: no such .* makes this data set"):
        check_run(run_config("sample", **puppets))


def test_settings_without_effect_and_a_missing_face_embedder_are_noted(run_config):
    changes = {"data.task_weights": "{canny: 2}", "model.face": "no.onnx", "loss.face_weight": 1}
    notes = check_run(run_config("control", **changes))
    assert [note.partition(":")[0] for note in notes] == ["data.task_weights", "the face term is OFF"]


def test_a_run_asks_before_it_makes_data_or_loads_a_network(run_config, monkeypatch, tmp_path):
    def too_late(*arguments, **options):
        raise AssertionError("the checks come first")

    monkeypatch.setitem(training.STAGES, "motion", too_late)
    monkeypatch.setattr(sample, "open_inputs", too_late)
    with pytest.raises(UserError, match=r"model\.lora_rank"):
        config = run_config("motion", **{"model.lora_rank": 2, "data.puppets.root": tmp_path / "puppets"})
        training.train(config, make_data=too_late)
    with pytest.raises(UserError, match="has no LoRA for canny"):
        sample.sample(run_config("sample", **{"sample.tasks": "{canny: 1}"}))


def test_what_an_entry_point_joins_makes_data_and_then_the_stage(run_config, tmp_path):
    called = []

    def make_data(puppets):
        called.append(puppets.root)

    def builder(config, accelerator):
        called.append(config.stage)
        raise UserError("no more is asked here")

    config = run_config("base_face", **{"data.puppets.root": tmp_path / "puppets"})
    with pytest.raises(UserError, match="no more is asked here"):
        training.train(config, stages={"base_face": builder}, make_data=make_data)
    assert called == [str(tmp_path / "puppets"), "base_face"]
    with pytest.raises(UserError, match=r"stage 'base_face' is not trained; use control, motion, reference$"):
        training.train(config, make_data=make_data)
    assert len(called) == 2


def test_seconds_that_are_none_are_one_line(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "scripts" / "evaluate.py"
    arguments = ["x", "--truth", "x", "--reference", "x", "--output", "x", "--seconds", "a=b"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().err.splitlines()[-1].endswith("--seconds: expected STAGE=S, such as step0=200, got 'a=b'")


@pytest.mark.parametrize("name", ["driving", "frames"])
def test_stage_3_deletes_nothing_that_is_not_its_own(run_config, tmp_path, puppet_data, name):
    """Whatever drives, or other files, where its own frames would go."""
    shutil.copytree(puppet_data / "train", tmp_path / "dance" / name)
    changes = {"sample.driving": str(tmp_path / "dance" / name), "output_dir": str(tmp_path / "dance")}
    with pytest.raises(UserError, match=rf"sample.driving: .*: stage 3 writes .*{name} anew; name another output_dir"):
        check_run(run_config("sample", **changes))
    with pytest.raises(UserError, match=rf"{name}: holds clips, which stage 3 would delete; name another output_dir"):
        check_run(run_config("sample", output_dir=str(tmp_path / "dance")))
