"""A task that a trained run does not have: its LoRA starts fresh beside those that are there, and may be trained alone."""

from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import read_weights
from meta_animator.data.latents import FRAME
from meta_animator.errors import UserError
from meta_animator.models.assembly import part_of
from meta_animator.stages.dry_run import trainable_parameters
from meta_animator.stages.train import train
from meta_animator.weights import load_tensors
from tests import tiny

MORE = f"[{','.join(tiny.TASKS)},canny]"


@pytest.mark.parametrize("stage", ["control", "reference"])
def test_a_new_task_is_learned_alone_beside_the_loras_that_are_there(make_config, prepared, capsys, stage):
    config = make_config(
        stage, model__tasks=MORE, model__control_from=prepared, train__trainable="lora", train__lora_tasks="[canny]",
        train__checkpoint_every=2, train__ema_decay=0.0,
    )  # fmt: skip
    train(config)
    said = [line for line in capsys.readouterr().out.splitlines() if "no LoRA" in line]
    assert said == [f"note: {prepared}: has no LoRA for canny (it has dwpose, seg, blurred); it starts fresh"]
    before, (metadata, after) = read_weights(prepared)[1], read_weights(config.output_dir)
    assert metadata["tasks"] == [*tiny.TASKS, "canny"] and metadata["lora_tasks"] == ["canny"]
    for name, weight in after.items():
        if part_of(name) == "lora.canny":
            assert "lora_A" in name or weight.any(), f"{name} has learned"
        else:
            assert torch.equal(weight, before[name]), f"{name} stays"
    assert {part_of(name) for name in after} == {"control", *(f"lora.{task}" for task in metadata["tasks"])}
    names = {key.split()[0] for file in Path(config.output_dir).glob("cache/*/*.safetensors") for key in load_tensors(file)}
    assert names == {FRAME, "canny"}, "nothing else is drawn"


def test_all_are_trained_where_none_is_named_and_the_choice_stays(make_config, prepared):
    config = make_config(model__tasks=MORE, model__control_from=prepared, train__trainable="lora", train__max_steps=1)
    stage, _, plan = tiny.make_stage(config)
    assert set(plan.samples) == {*tiny.TASKS, "canny"}
    assert {part_of(n) for group in stage.param_groups() for n in group.parameters} == {f"lora.{t}" for t in plan.samples}
    counts = {}
    for chosen in ("[]", "[canny]"):
        config.train.lora_tasks = chosen.strip("[]").split() or []
        counts[chosen] = sum(trainable_parameters(config).values())
    assert counts["[]"] == 4 * counts["[canny]"] > 0
    train(config)
    config.train.lora_tasks, config.train.max_steps = ["seg"], 2
    with pytest.raises(UserError, match=r"its lora_tasks is \['canny'\], this run's is \['seg'\]"):
        train(config)


def test_sampling_and_stage_1_still_need_every_lora(make_config, prepared):
    with pytest.raises(UserError, match=r"has no LoRA for canny \(it has dwpose, seg, blurred\); set model.tasks to a subset"):
        tiny.make_stage(make_config("motion", model__tasks="[canny]", model__control_from=prepared))
