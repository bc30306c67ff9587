"""What scripts/bench.py measures: a step of a run, of which nothing stays, and diffusers' on the same shapes; what is refused."""

import dataclasses
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from meta_animator.benchmark import commands
from meta_animator.benchmark.commands import Options, measure, prepare
from meta_animator.benchmark.report import report, text
from meta_animator.benchmark.rivals import RIVALS, PublishedTraining
from meta_animator.benchmark.training import build_synthetic
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from tests.tiny_wan import wan_config

FEW = {"repeats": 2, "warmup": 1}
MOVING = {"loss__image_weight": 0, "model__control_from": "nowhere", "model__tasks": "[dwpose]"}


def steps_of(results):
    """Losses are there and finite, and shapes equal."""
    losses = [loss for numbers in results.values() for loss in numbers["loss"]]
    assert len(losses) == 4 * len(results) and all(math.isfinite(loss) for loss in losses)
    return {tuple(numbers["shape"]) for numbers in results.values()}


def test_a_run_is_measured_against_diffusers_and_leaves_nothing_behind(make_config, tmp_path):
    config = make_config(loss__image_weight=0, data__cache_dir=tmp_path / "cache", train__max_steps=2)
    options = Options(**FEW, against="diffusers")
    numbers = measure("train", config, options)
    results = numbers["results"]
    assert list(results) == ["step", "step of diffusers"] and steps_of(results) == {(2, 1, 4, 16, 16)}
    assert not list(Path(config.output_dir).iterdir()) and any((tmp_path / "cache").iterdir())
    ours, theirs = results.values()
    for one in (ours, theirs):
        assert len(one["seconds"]["values"]) == 2 and one["samples_per_second"] > 0 and one["utilisation"] > 0
        phases = one["counts"]
        assert all(phases[name]["calls"] for name in ("forward", "backward", "optimizer"))
        assert phases["total"]["flops"] == 2 * one["flops_per_sample"] > 0
    assert ours["flops_per_sample"] < theirs["flops_per_sample"], "it encodes pictures and texts at every step"
    assert numbers["against"]["step"]["values"] == [
        b / a for a, b in zip(ours["seconds"]["values"], theirs["seconds"]["values"], strict=True)
    ]
    write_json(tmp_path / "report.json", report("train", numbers, config, dataclasses.asdict(options)))
    whole = read_json(tmp_path / "report.json")
    assert set(whole) == {"benchmark", "command", "asked", "settings", "machine", "results", "against"}
    assert whole["settings"]["train"]["batch_size"] == 2 and {"threads", "flags", "versions", "device"} <= set(whole["machine"])
    assert "diffusers takes" in text(whole) and "operator calls" in text(whole)


def test_random_weights_need_no_data_and_a_bare_loop_computes_what_ours_does_but_the_lora(make_config):
    config = make_config(data__train="[nowhere]", loss__image_weight=0, model__tasks="[dwpose]")
    results = measure("train", config, Options(**FEW, against="bare", synthetic=True))["results"]
    assert steps_of(results) == {(2, 1, 4, 16, 16)}
    with_lora, bare = (one["counts"]["total"] for one in results.values())
    assert bare["flops"] < with_lora["flops"] < 1.5 * bare["flops"]


def test_the_published_codes_step_does_what_ours_leaves_out(make_config):
    """On equal weights: two encodings and a decoding of each picture, blocks twice, and gradients that nobody takes."""
    config = make_config(data__train="[nowhere]", loss__image_weight=0, model__tasks="[dwpose]")
    accelerator = Accelerator(cpu=True)
    stage, _ = build_synthetic(config, accelerator)
    rival = PublishedTraining(config, stage.models, accelerator)
    calls = []
    for name in ("encoder", "decoder"):
        getattr(rival.vae, name).register_forward_hook(lambda *_, name=name: calls.append((name, torch.is_grad_enabled())))
    for part, name in ((rival.unet.down_blocks, "down"), (rival.unet.up_blocks, "up")):
        part[0].resnets[0].register_forward_pre_hook(lambda *_, name=name: calls.append((name, torch.is_grad_enabled())))
    before = {name: weight.clone() for name, weight in rival.unet.named_parameters()}
    rival.step()
    assert [name for name, _ in calls] == ["encoder", "encoder", "down", "up", "decoder", "up"], "the second half twice"
    assert not any(gradient for name, gradient in calls if "coder" in name)
    taken = {name.split(".")[0] for name, weight in rival.unet.named_parameters() if weight.grad is not None}
    assert taken == {"up_blocks", "conv_norm_out", "conv_out"}
    assert all(torch.equal(weight, before[name]) for name, weight in rival.unet.named_parameters())
    lora = {name: p for name, p in rival.control.named_parameters() if "lora_" in name}
    linear = [part for part in stage.models.control.net.modules() if isinstance(part, torch.nn.Linear)]
    assert len(lora) == 2 * len({name.rsplit(".lora_", 1)[0] for name in lora}) == 2 * len(linear)
    assert all(weight.any() for name, weight in lora.items() if "lora_B" in name), "they learn"
    against = measure("train", config, Options(**FEW, against="published", synthetic=True))["results"]
    ours, theirs = (one["flops_per_sample"] for one in against.values())
    assert theirs > 1.5 * ours


def test_a_base_that_learns_along_is_compared_without_what_it_learned(make_config):
    config = make_config(
        "reference", data__train="[nowhere]", loss__image_weight=0, model__tasks="[dwpose]", model__person_lora_rank=2,
        model__control_from="nowhere",
    )  # fmt: skip
    results = measure("train", config, Options(**FEW, against="bare", synthetic=True))["results"]
    assert steps_of(results) == {(2, 1, 4, 16, 16)}
    with pytest.raises(UserError, match="--against published: is a step of its stage 0"):
        measure("train", config, Options(**FEW, against="published", synthetic=True))


def test_a_report_tells_the_flags_it_was_measured_under(make_config, monkeypatch):
    monkeypatch.setattr(commands, "facts", lambda device: {"precision": torch.get_float32_matmul_precision()})
    config = make_config(data__train="[nowhere]", loss__image_weight=0, model__tasks="[dwpose]", train__allow_tf32=True)
    numbers = measure("train", config, Options(**FEW, synthetic=True))
    assert report("train", numbers, config, {})["machine"] == {"precision": "high"}


def test_the_script_names_all_rivals():
    assert runpy.run_path("scripts/bench.py")["RIVALS"] == tuple(RIVALS)


def test_clips_with_image_terms_on_random_weights(tiny_wan, tmp_path):
    config = wan_config(tmp_path / "run", tiny_wan, tmp_path, "control", data__train="[nowhere]", loss__max_noise_level=1)
    results = measure("train", config, Options(**FEW, synthetic=True))["results"]
    assert steps_of(results) == {(2, 2, 4, 8, 8)} and results["step"]["image_terms"]


def test_sampling_against_the_pipeline_of_diffusers(make_config):
    config = make_config(
        "sample", model__motion_from="nowhere", model__control_from="nowhere", sample__window=3, sample__overlap=1,
        sample__tasks="{dwpose: 1.0}", sample__guidance_scale=3,
    )  # fmt: skip
    numbers = measure("sample", config, Options(**FEW, against="diffusers", synthetic=True))
    results = numbers["results"]
    assert list(results) == ["step", "step of diffusers", "decoding", "decoding of diffusers"]
    assert {tuple(one["shape"]) for one in results.values()} == {(1, 3, 4, 16, 16)}
    assert all(len(one["seconds"]["values"]) == 2 and one["counts"]["total"]["flops"] for one in results.values())
    decoders = [one["counts"]["total"]["flops"] for name, one in results.items() if "decoding" in name]
    assert decoders[0] == decoders[1] and list(numbers["against"]) == ["step", "decoding"]


@pytest.mark.parametrize("stage", ["control", "sample"])
def test_what_a_gpu_would_do_is_counted_without_weights(make_config, stage):
    """At twice the precision of the frozen networks: more casts and the same FLOPs, but that LoRAs are not added to weights for
    few rows."""
    counted = {}
    for precision in ("no", "bf16"):
        config = make_config(stage, f"in-{precision}", train__mixed_precision=precision, data__train="[nowhere]")
        results = measure("train" if stage == "control" else "sample", config, Options(count=True))["results"]
        counted[precision] = [one["counts"]["total"] for one in results.values()]
        assert len(results) == {"control": 1, "sample": 3}[stage]
    for exact, half in zip(*counted.values(), strict=True):
        assert 0 < exact["flops"] <= half["flops"] <= 1.001 * exact["flops"] and exact["casts"] <= half["casts"]
    assert counted["no"][0]["casts"] < counted["bf16"][0]["casts"] or stage == "sample"


@pytest.mark.parametrize("stage", ["control", "sample"])
def test_attention_is_measured_by_every_kernel_that_is_here(make_config, tiny_base, stage):
    more = {"sample__guidance_scale": 1.0} if stage == "sample" else {"loss__image_weight": 0}
    config = make_config(stage, data__train="[nowhere]", model__control_from="nowhere", **more)
    step, *each = measure("attention", config, Options(**FEW))["results"].items()
    assert {"auto", "flash", "math"} <= set(step[1]["milliseconds"]) and "cudnn" not in step[1]["milliseconds"]
    assert sum(one["calls"] for _, one in each) == step[1]["calls"] > 0
    for kernel, whole in step[1]["milliseconds"].items():
        assert whole == pytest.approx(sum(one["calls"] * one["milliseconds"][kernel] for _, one in each))
    assert any("forward and backward" in name for name, _ in each) == (stage == "control")


def test_a_cache_is_filled_elsewhere(make_config):
    config = make_config(data__pose_drop=0.5)
    numbers = measure("cache", config, Options(**FEW))["results"]["encoding"]
    assert len(numbers["seconds"]["values"]) == 2 and numbers["images_per_second"] > 0
    assert not list(Path(config.output_dir).iterdir())


@pytest.mark.parametrize(
    ("command", "stage", "settings", "options", "said"),
    [
        ("train", "sample", {}, {}, "measures stage control, motion, reference; the config's is 'sample'"),
        ("sample", "control", {}, {}, "measures stage sample"),
        ("train", "control", {}, {"repeats": 0}, "--repeats and --warmup are at least 1"),
        ("cache", "control", {}, {"against": "diffusers"}, "for train and sample"),
        ("cache", "control", {}, {"synthetic": True}, "for train and sample"),
        ("attention", "reference", {}, {"count": True}, "for train and sample"),
        ("sample", "sample", {}, {"against": "bare"}, "--against bare"),
        ("sample", "sample", {}, {"against": "published"}, "--against published"),
        ("sample", "sample", {"model__tiny_vae": "assets/base/tiny_vae"}, {"against": "diffusers"}, "leave model.tiny_vae empty"),
        ("train", "motion", MOVING, {"against": "diffusers", "synthetic": True}, "take a stage 0 or 2"),
        ("sample", "sample", {}, {"against": "diffusers", "synthetic": True}, "name model.motion_from"),
        ("sample", "sample", {"sample__max_frames": 40}, {"against": "diffusers", "synthetic": True}, "in one window"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(make_config, command, stage, settings, options, said):
    with pytest.raises(UserError, match=said):
        measure(command, make_config(stage, **settings), Options(**options))


def test_a_film_needs_annotators(tmp_path):
    with pytest.raises(UserError, match="needs --annotators"):
        prepare(64, 2, "", None, tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "expected one of train, sample"), ("eat", "'eat': expected one of"), ("train", "train: needs --config"),
        ("train --config c.yaml --against me", "--against me: expected diffusers, bare, published"),
        ("cache --config c.yaml --synthetic", "--synthetic: is for train and sample"),
        ("train --config c.yaml --annotators light", "--annotators: is for prepare"),
        ("prepare data.height=64", "name it with --config"), ("prepare --warmup 3", "--warmup: is for the other"),
        ("train --compare a.json b.json", "leave train out"),
    ],
)  # fmt: skip
def test_unknown_words_are_refused(monkeypatch, arguments, said):
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bench.py"))
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments.split()])
    with pytest.raises(UserError, match=said):
        script["check"](script["parse"]())
