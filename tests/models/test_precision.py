"""Frozen networks in half precision: what they hold, what they compute, what a checkpoint keeps of them."""

import contextlib

import pytest
import torch

from meta_animator.benchmark.counting import counting
from tests import tiny


def loss_of(stage, samples, task="dwpose"):
    batch = tiny.first_batch(samples, task)
    with torch.autocast("cpu", torch.bfloat16, enabled=stage.config.train.mixed_precision == "bf16"):
        return stage(batch, step=0)[0]


def kinds(module) -> set:
    return {p.dtype for p in module.parameters()}


@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_frozen_parts_are_halved_and_the_loss_stays(make_config, prepared, trainable):
    settings = {"model__control_from": prepared, "train__trainable": trainable}
    exact, samples, _ = tiny.make_stage(make_config("reference", "exact", **settings))
    half = tiny.make_stage(make_config("reference", "half", train__mixed_precision="bf16", **settings))[0]
    models = half.models
    assert kinds(models.backbone.unet) == kinds(models.backbone.vae.decoder) == {torch.bfloat16}
    assert kinds(models.backbone.vae.encoder) == {torch.float32}, "latents are data"
    shared = {p.dtype for p in models.control.base_state().values()}
    assert shared == {torch.float32 if trainable == "all" else torch.bfloat16}
    assert {p.dtype for p in models.control.bank.parameters("dwpose")} == {torch.float32}
    loss = loss_of(half, samples)
    torch.testing.assert_close(loss, loss_of(exact, samples), rtol=0.05, atol=0)
    loss.backward()
    assert {p.grad.dtype for p in models.control.bank.parameters("dwpose") if p.grad is not None} == {torch.float32}


def test_a_checkpoint_keeps_exact_weights_of_what_was_halved(make_config, prepared):
    """Stage 2 of LoRAs alone passes the shared weights on as stage 0 left them, and takes them back when it resumes."""
    settings = {"model__control_from": prepared, "train__trainable": "lora"}
    exact = tiny.make_stage(make_config("reference", "exact", **settings))[0].trainable_state()
    half = tiny.make_stage(make_config("reference", "half", train__mixed_precision="bf16", **settings))[0]
    state = half.trainable_state()
    assert all(torch.equal(state[name], weight) for name, weight in exact.items() if name.startswith("control."))
    other = {name: weight + 1 for name, weight in state.items()}
    half.load_trainable_state(other, "other")
    kept = half.trainable_state()
    assert all(torch.equal(kept[name], weight) for name, weight in other.items())
    name = next(iter(half.models.control.base_state()))
    assert torch.equal(half.models.control.base_state()[name], other[f"control.{name}"].bfloat16())


def test_what_is_trained_keeps_exact_positions(make_config, prepared):
    """Beside a halved UNet, the motion module's weights and its tables of positions stay float32."""
    models = tiny.make_stage(make_config("motion", model__control_from=prepared, train__mixed_precision="bf16"))[0].models
    assert kinds(models.backbone.unet) == {torch.bfloat16}
    assert kinds(models.motion) == {torch.float32} == {buffer.dtype for buffer in models.motion.buffers()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("reference", {}), ("reference", {"train__gradient_checkpointing": True}), ("reference", {"train__trainable": "lora"}),
        ("motion", {}), ("motion", {"train__gradient_checkpointing": True, "train__train_lora_in_motion": True}),
    ],
)  # fmt: skip
def test_weights_rounded_all_at_once_train_as_well_as_those_that_autocast_rounds(
    make_config, prepared, monkeypatch, kind, settings
):  # fmt: skip
    """Gradients err no more than autocast's own, against float32; and what is trained is in its place afterwards."""
    settings = {"model__control_from": prepared, **settings}
    monkeypatch.setattr("meta_animator.models.precision.TOGETHER", 5000)  # several calls
    gradients, casts = {}, {}
    for name, precision in (("exact", "no"), ("autocast", "bf16"), ("at once", "bf16")):
        config = make_config(kind, name, train__mixed_precision=precision, **settings)
        stage, samples, _ = tiny.make_stage(config)
        own, buffers = dict(stage.named_parameters()), dict(stage.named_buffers())
        with counting() as counts, stage.rounding_once() if name == "at once" else contextlib.nullcontext():
            loss_of(stage, samples).backward()
        assert all(value is (own | buffers)[n] for n, value in (*stage.named_parameters(), *stage.named_buffers()))
        gradients[name] = {n: p.grad for n, p in own.items() if p.grad is not None}
        casts[name] = counts.total.casts
    assert gradients["exact"].keys() == gradients["autocast"].keys() == gradients["at once"].keys()
    assert {gradient.dtype for gradient in gradients["at once"].values()} == {torch.float32}

    def error(name):
        return sum(float((gradients[name][n] - g).square().sum()) for n, g in gradients["exact"].items()) ** 0.5

    assert 0 < error("at once") < 1.2 * error("autocast")
    trained = len(gradients["exact"])
    assert casts["at once"] < casts["autocast"] - 1.5 * trained, "a cast forward and one back for each weight"
