"""Which settings a stage uses is what settings.py says: tiny runs, in which every setting that is read is written down."""

import dataclasses
import sys
from pathlib import Path

import pytest

import meta_animator
from meta_animator import settings
from meta_animator.conversion.lora import extract
from meta_animator.fields import all_fields, sections
from meta_animator.settings import STAGES, RunConfig
from meta_animator.stages.build import train
from meta_animator.stages.sample import sample
from tests import tiny

PACKAGE = Path(meta_animator.__file__).parent
UNDESCRIBED = {str(PACKAGE / name) for name in ("config.py", "fields.py", "settings.py")}  # these read all of them, whatever the stage
NEVER_HERE = {"train.max_skipped_steps"}  # read where a loss is not finite
# read and then refused, or of no effect
ONLY_CHECKED = {
    "control": {"model.motion_from"},
    "motion": {"train.trainable", "train.lora_tasks"},
    "reference": {"model.motion_from"},
    "sample": {"model.tasks", "model.condition_posterior"},
    "base_unet": {"model.motion_from", "train.trainable", "train.lora_tasks"},
    "base_vae": {"model.tasks", "train.lora_tasks", "data.task_weights", "data.pose_drop", "data.prompt", "data.prompt_drop"},
}
ONLY_CHECKED["base_face"] = {*ONLY_CHECKED["base_vae"], "train.trainable"}
EVERYTHING_ON = {
    "train__max_steps": 1, "train__ema_decay": 0.5, "train__train_lora_in_motion": True, "loss__face_weight": 0.1,
    "data__random_crop": 0.1, "data__crops": 1, "data__pose_drop": 0.5, "data__pose_variants": 1, "data__prompt": "'{description}'",
    "data__puppets__identities": 2, "data__puppets__frames": 1, "data__puppets__photos": 1, "data__puppets__driving_frames": 1,
    "data__puppets__height": 16, "data__puppets__width": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def read(tmp_path_factory, tiny_base, puppet_data, prepared):
    """{stage: the settings that a run of it reads}"""
    root, found = tmp_path_factory.mktemp("settings"), {}

    def run(stage, do, **overrides):
        config = tiny.make_config(root / stage, tiny_base, puppet_data, stage, **overrides)
        with pytest.MonkeyPatch.context() as patch:
            found[stage] = record(patch)
            do(config)

    for stage in ("control", "motion", "reference", "base_vae", "base_unet", "base_face"):
        own = {"model__architecture": tiny_base} if stage.startswith("base_") else {"model__control_from": prepared}
        run(stage, train, **EVERYTHING_ON, **own, data__puppets__root=root / "puppets" / stage)
    run(
        "sample", sample, model__control_from=prepared, model__motion_from=root / "motion", sample__num_inference_steps=2,
        sample__reference=puppet_data / "person", sample__driving=puppet_data / "train", sample__identity="p0",
        sample__fit_pose="limbs", sample__window=4, sample__overlap=1,
    )  # fmt: skip
    run("extract", extract, extract__checkpoint=prepared)
    return found


def record(patch):
    """The keys of settings that the package reads from here on."""
    keys, kinds = set(), {RunConfig: ""}
    for name in sections():
        *above, last = name.split(".")
        parent = next(kind for kind, prefix in kinds.items() if prefix == ".".join([*above, ""]) * bool(above))
        kinds[next(field.type for field in dataclasses.fields(parent) if field.name == last)] = f"{name}."
    for kind, prefix in kinds.items():
        names = {field.name for field in dataclasses.fields(kind)}

        def get(self, name, names=names, prefix=prefix):
            file = sys._getframe(1).f_code.co_filename
            if name in names and file.startswith(str(PACKAGE)) and file not in UNDESCRIBED:
                keys.add(prefix + name)
            return object.__getattribute__(self, name)

        patch.setattr(kind, "__getattribute__", get)
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_uses_the_settings_that_it_is_said_to_use(read, stage):
    used = read[stage] - set(sections()) - ONLY_CHECKED.get(stage, set())
    described = {field.key for field in all_fields() if stage in field.stages}
    assert used - described == set(), "used, but neither in --help nor in a dry run"
    assert described - used - NEVER_HERE == {"stage"} - used, "described, but never read"
    assert read[stage] >= ONLY_CHECKED.get(stage, set()), "no longer read"


def test_every_stage_has_a_name_in_settings():
    assert {*settings.METHOD, *settings.BASE, "extract"} == {*STAGES}
