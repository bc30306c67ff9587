"""Where gradients go, and what a training step leaves alone."""

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from meta_animator.config import load_config
from meta_animator.stages.checks import check_run
from meta_animator.training.engine import Trainer
from tests import tiny

ALONE = {
    "latent": {"loss__image_weight": 0.0},
    "pixel": {"loss__latent_weight": 0.0, "loss__image_weight": 1.0},
    "face": {"loss__latent_weight": 0.0, "loss__image_weight": 1.0, "loss__pixel_weight": 0.0, "loss__face_weight": 1.0},
}


@pytest.mark.parametrize("stage", ["control", "motion"])
@pytest.mark.parametrize("term", ALONE)
def test_each_term_alone_reaches_every_trained_module_and_no_idle_lora(make_config, prepared, term, stage):
    more = {"train__train_lora_in_motion": True, "model__control_from": prepared} if stage == "motion" else {}
    module, samples, _ = tiny.make_stage(make_config(stage, **ALONE[term], **more))
    tiny.randomise_zeros(module.models.control)
    if stage == "motion":
        tiny.randomise_zeros(module.models.motion)
    batch = tiny.first_batch(samples, "seg")
    if term == "latent":
        assert batch.pixels is None and batch.control_pixels is None, "only latents are read where no term needs pixels"
    else:
        batch = dataclasses.replace(batch, face_visible=torch.ones_like(batch.face_visible))
        assert batch.landmarks.abs().sum() > 0
    loss, logs = module(batch, 0)
    assert getattr(logs[term], "value", logs[term]) > 0
    loss.backward()
    groups = {g.name: g.parameters for g in module.param_groups()}
    assert set(groups) == ({"motion", "lora"} if stage == "motion" else {"control", "lora"})
    for name, parameter in {n: p for group in groups.values() for n, p in group.items()}.items():
        if name.startswith("lora.") and not name.startswith("lora.seg."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.any(), name
    trained = {id(p) for group in groups.values() for p in group.values()}
    assert all(p.grad is None for p in module.parameters() if id(p) not in trained)


def test_lora_only_training_leaves_the_shared_weights_without_gradient(make_config):
    module, samples, _ = tiny.make_stage(make_config(train__trainable="lora"))
    tiny.randomise_zeros(module.models.control)
    module(tiny.first_batch(samples, "seg"), 0)[0].backward()
    assert all(p.grad is None and not p.requires_grad for p in module.models.control.base_state().values())
    assert all(p.grad.any() for p in module.models.control.bank.parameters("seg"))


def digests(tensors) -> dict[str, str]:
    return {n: hashlib.sha256(t.detach().contiguous().view(torch.uint8).numpy()).hexdigest() for n, t in tensors.items()}


@pytest.mark.parametrize("stage", ["control", "motion", "reference"])
def test_training_changes_what_is_trained_and_nothing_else(make_config, prepared, stage):
    more = {} if stage == "control" else {"model__control_from": prepared}
    config = make_config(stage, train__max_steps=4, loss__face_weight=0.5, loss__image_weight=1.0, **more)
    module, samples, plan = tiny.make_stage(config)
    tiny.randomise_zeros(module.models.control)
    trained = {n: p for g in module.param_groups() for n, p in g.parameters.items()}
    ids = {id(p) for p in trained.values()}
    frozen = {n: t for n, t in module.state_dict(keep_vars=True).items() if id(t) not in ids}
    assert {"vae", "unet", "text_encoder"} <= {n.split(".")[2] for n in frozen if n.startswith("models.backbone.")}
    if stage == "motion":
        assert any(n.startswith("models.control.") for n in frozen)
    before, trained_before = digests(frozen), digests(trained)
    trainer = Trainer(config, Accelerator(cpu=True), module, tiny.batches(config, samples, plan))
    trainer.run()
    assert digests(frozen) == before
    after, turns = digests(trained), Counter(plan.draws_of(step)[0].task for step in range(4))
    for name, parameter in trained.items():
        steps = turns[name.split(".")[1]] if name.startswith("lora.") else 4
        assert int(trainer.optimizer.state[parameter]["step"] if steps else 0) == steps, name
        assert (after[name] == trained_before[name]) == (steps == 0), name
    assert stage == "motion" or sorted(turns.values()) == [1, 1, 2]


def test_a_face_embedder_that_is_not_there_is_left_out_and_said(make_config):
    """The config that the run folder keeps is the one that was asked for: with the file there, the term is on again."""
    config = make_config(loss__face_weight=1.0, loss__image_weight=1.0, model__face="models/sface.onnx", train__max_steps=1)
    (note,) = check_run(config)
    assert note.startswith("the face term is OFF: model.face models/sface.onnx does not exist")
    stage, samples, plan = tiny.make_stage(config)
    assert stage.loss.face_weight == 0 and stage.models.face is None
    Trainer(config, Accelerator(cpu=True), stage, tiny.batches(config, samples, plan)).run()
    assert load_config(Path(config.output_dir) / "config.yaml").loss.face_weight == 1.0
