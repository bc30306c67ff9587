"""Which settings a stage uses is what settings.py says: tiny runs, in which every setting that is read is written down."""

import dataclasses
import functools
import sys
from pathlib import Path

import pytest

import meta_animator
from meta_animator.fields import all_fields, sections
from meta_animator.puppets.base.build import STAGES as BASE_STAGES
from meta_animator.settings import BASE, STAGES, TRAINING, WAN, RunConfig
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from tests import tiny
from tests.tiny_wan import wan_config

PACKAGE = Path(meta_animator.__file__).parent
READ_ALL = {str(PACKAGE / name) for name in ("config.py", "fields.py", "settings.py")}  # whatever the stage
READ_ALL |= {str(PACKAGE / "checkpoints" / name) for name in ("card_facts.py", "card_strip.py")}  # settings of earlier runs
NEVER_HERE = {"train.max_skipped_steps"}  # read where a loss is not finite
# read and then refused, or of no effect
ONLY_CHECKED = {
    "control": {"model.motion_from"},
    "motion": {"train.trainable"},
    "reference": {"model.motion_from"},
    "sample": {"model.tasks", "model.condition_posterior"},
    "extract": {"model.text_cache", "model.text_precision"},
    "base_unet": {"model.motion_from", "train.trainable", "train.lora_tasks"},
    "base_vae": {
        "model.tasks", "train.lora_tasks", "data.task_weights", "data.pose_drop", "data.pose_variants", "data.prompt",
        "data.prompt_drop",
    },
}  # fmt: skip
ONLY_CHECKED["base_wan_vae"] = {
    "train.lora_tasks", "data.pose_drop", "data.pose_variants", "data.prompt", "data.prompt_drop",
}  # fmt: skip
ONLY_CHECKED["base_wan"] = {"train.trainable", "train.lora_tasks", "model.condition_range", "model.condition_posterior"}
ONLY_CHECKED["base_face"] = {*ONLY_CHECKED["base_vae"], "train.trainable"}
EVERYTHING_ON = {
    "train__max_steps": 1, "train__ema_decay": 0.5, "train__train_lora_in_motion": True, "loss__face_weight": 0.1,
    "model__person_lora_rank": 2,
    "data__random_crop": 0.1, "data__crops": 2, "data__pose_drop": 0.5, "data__prompt": "'{description}'",
}  # fmt: skip


@pytest.fixture(scope="module")
def read(tmp_path_factory, tiny_base, tiny_wan, puppet_data, moving_data, prepared):
    """{stage: the settings that runs of it read, on either family}"""
    root, found, reading = tmp_path_factory.mktemp("settings"), {}, []

    def run(stage, do, config=None, **overrides):
        config = config or tiny.make_config(root / stage, tiny_base, puppet_data, stage, **overrides)
        with pytest.MonkeyPatch.context() as patch:
            reading.append(record(patch))
            do(config)
        found.setdefault(stage, set()).update(reading[-1])

    def make_data(puppets):  # the whole section is handed on
        reading[-1].update(f"data.puppets.{field.name}" for field in dataclasses.fields(puppets))

    for stage in TRAINING:
        start = tiny_wan if stage in WAN else tiny_base
        own = {"model__architecture": start} if stage in BASE else {"model__control_from": prepared}
        own |= {"model__base": start, "data__num_frames": 1} if stage in WAN else {}
        run(stage, functools.partial(train, stages=BASE_STAGES, make_data=make_data), **EVERYTHING_ON, **own)
    run(
        "sample", sample, model__control_from=prepared, model__motion_from=root / "motion", sample__num_inference_steps=2,
        sample__reference=puppet_data / "person", sample__driving=puppet_data / "train", sample__identity="p0",
        sample__fit_pose="limbs", sample__window=4, sample__overlap=1,
    )  # fmt: skip
    for stage in ("control", "motion", "reference", "sample"):
        run(stage, sample if stage == "sample" else train, wan_config(root / f"wan-{stage}", tiny_wan, moving_data, stage))
    run("extract", tiny.extract, extract__checkpoint=prepared)
    own = {"model__backbone": "wan", "model__motion_from": root / "wan-motion", "model__motion_lora_rank": 2}
    about = own | {"extract__checkpoint": root / "wan-reference", "extract__merge": "dwpose"}
    run("extract", tiny.extract, tiny.make_config(root / "wan-extract", tiny_wan, moving_data, "extract", **about))
    found["extract"].add("output_dir")  # the entry point hands it on
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
            if name in names and file.startswith(str(PACKAGE)) and file not in READ_ALL:
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
