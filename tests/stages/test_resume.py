"""Stopping and resuming, cached latents, and overfitting."""

import dataclasses
import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.config import load_config
from meta_animator.data.batch import collate
from meta_animator.data.samples import SampleSet, crop_of, read_clips
from meta_animator.data.tasks import Draw
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.settings import RunConfig
from meta_animator.stages.reference import auxiliary_clips, auxiliary_samples
from meta_animator.stages.train import STAGES, train
from meta_animator.training.engine import Trainer
from meta_animator.training.resume import training_settings
from meta_animator.weights import load_tensors
from tests import tiny

FILES = ("model", "optimizer", "ema")


def metrics(folder: str | Path) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def same_runs(one, two) -> None:
    """Equal logs, and equal last checkpoints bit for bit."""
    assert metrics(one) == metrics(two)
    ends = [list_checkpoints(Path(folder))[-1] for folder in (one, two)]
    assert ends[0].name == ends[1].name
    for file in FILES:
        whole, parts = (load_tensors(end / f"{file}.safetensors") for end in ends)
        assert whole and whole.keys() == parts.keys()
        for name in whole:
            assert torch.equal(whole[name], parts[name]), f"{file}: {name}"


@pytest.mark.parametrize("stage", ["control", "motion", "reference"])
def test_stop_and_resume_equals_uninterrupted_bit_for_bit(make_config, prepared, stage):
    settings = {
        "train__ema_decay": 0.9, "train__gradient_accumulation_steps": 2, "data__prompt_drop": 0.3,
        "train__lr_scheduler": "constant_with_warmup", "train__lr_warmup_steps": 4, "train__preview_every": 0,
        "loss__image_weight": 0.5, "loss__start_step": 2, "train__train_lora_in_motion": stage == "motion",
    }  # fmt: skip
    if stage != "control":
        settings["model__control_from"] = prepared
    whole = make_config(stage, "whole", train__max_steps=6, train__checkpoint_every=6, **settings)
    train(whole)
    torch.manual_seed(123)
    train(make_config(stage, "parts", train__max_steps=3, **settings))
    torch.manual_seed(456)
    train(make_config(stage, "parts", train__max_steps=6, **settings))
    same_runs(whole.output_dir, Path(whole.output_dir).with_name("parts"))
    assert [line["step"] for line in metrics(whole.output_dir)] == [1, 2, 3, 4, 5, 6]
    first, last = metrics(whole.output_dir)[0], metrics(whole.output_dir)[-1]
    assert first["learning_rate"] < last["learning_rate"] and "gated_images" not in first and last["gated_images"] > 0


def test_a_run_killed_after_its_checkpoint_repeats_the_lost_steps(make_config):
    whole = make_config(name="whole", train__max_steps=5, train__ema_decay=0.9)
    train(whole)
    killed = make_config(name="killed", train__max_steps=5, train__ema_decay=0.9)
    module, samples, plan = tiny.make_stage(killed)
    batches = tiny.batches(killed, samples, plan)

    def until_killed(first, last):
        yield from itertools.islice(batches(first, last), 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(killed, Accelerator(cpu=True), module, until_killed).run()
    assert [line["step"] for line in metrics(killed.output_dir)] == [1, 2, 3, 4]
    train(killed)
    same_runs(whole.output_dir, killed.output_dir)


def test_sampled_condition_posteriors_resume_bit_for_bit(make_config):
    settings = {"model__condition_posterior": "sample", "data__cache_latents": False, "train__ema_decay": 0.5}
    whole = make_config(name="whole", train__max_steps=4, train__checkpoint_every=4, **settings)
    train(whole)
    for steps in (2, 4):
        torch.manual_seed(steps)
        parts = make_config(name="parts", train__max_steps=steps, train__checkpoint_every=2, **settings)
        train(parts)
    same_runs(whole.output_dir, parts.output_dir)
    mode = make_config(name="mode", train__max_steps=4, **(settings | {"model__condition_posterior": "mode"}))
    train(mode)
    assert metrics(mode.output_dir)[-1]["loss"] != metrics(whole.output_dir)[-1]["loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__lora_rank": 2}, "lora_rank is 4, this run's is 2"),
        ({"model__tasks": "[dwpose]"}, "tasks is .* this run's is "),
    ],
)
def test_a_run_folder_of_other_settings_is_not_continued(make_config, change, message):
    train(make_config(train__max_steps=1))
    with pytest.raises(UserError, match=message) as error:
        train(make_config(train__max_steps=2, **change))
    assert "\n" not in str(error.value)


def test_settings_that_change_on_the_way_are_said_one_by_one(make_config, capsys):
    """What has no effect on what is learned is not; an older checkpoint, which does not say, is continued in silence."""
    start = {"loss__face_weight": 0.5, "loss__image_weight": 0.5, "model__face": "no/face.onnx", "train__checkpoint_every": 1}
    train(make_config(train__max_steps=1, **start))
    capsys.readouterr()
    found = {"loss__image_weight": 0.25, "train__learning_rate": 1e-3, "data__prompt_drop": 0.2, "train__log_every": 2}
    config = make_config(train__max_steps=2, **{key: value for key, value in (start | found).items() if key != "model__face"})
    train(config)
    said = [line.partition(": ")[2].partition(": ")[2] for line in capsys.readouterr().out.splitlines() if "note: " in line]
    assert sorted(said) == [
        "data.prompt_drop was 0.01 up to step 1, it is 0.2 from here on",
        "loss.face_weight was 0 up to step 1, it is 0.5 from here on",
        "loss.image_weight was 0.5 up to step 1, it is 0.25 from here on",
        f"model.face was no/face.onnx up to step 1, it is {config.model.face} from here on",
        "train.learning_rate was 0.01 up to step 1, it is 0.001 from here on",
    ]
    file = list_checkpoints(Path(config.output_dir))[-1] / "manifest.json"
    write_json(file, {key: value for key, value in read_json(file).items() if key != "settings"})
    train(make_config(train__max_steps=3, **start))
    assert "from here on" not in capsys.readouterr().out


def test_only_a_constant_rate_leaves_the_last_step_open():
    """A rate that falls to an end depends on it: schedules that others add, too."""
    for schedule in ("constant", "constant_with_warmup", "linear", "cosine", "polynomial"):
        config = RunConfig()
        config.train.lr_scheduler = schedule
        assert ("train.max_steps" in training_settings(config)) == (not schedule.startswith("constant"))


def test_the_config_of_a_run_starts_an_identical_run(make_config, tmp_path):
    config = make_config(name="first", train__max_steps=3)
    train(config)
    again = load_config(Path(config.output_dir) / "config.yaml", [f"output_dir={tmp_path / 'second'}"])
    train(again)
    for name in ("metrics.jsonl", "checkpoints/step-000003/model.safetensors", "checkpoints/step-000003/manifest.json"):
        assert (Path(config.output_dir) / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_identifiers_stay_when_the_data_change(make_config, puppet_data, tmp_path):
    """A person who is added above the others takes nobody's word."""
    first = make_config(train__max_steps=1)
    train(first)
    before = read_json(list_checkpoints(Path(first.output_dir))[-1] / "manifest.json")["identifiers"]
    data = shutil.copytree(puppet_data / "train", tmp_path / "more")
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    lines.insert(0, lines[0] | {"id": "new", "identity": "aaron"})
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    second = make_config(train__max_steps=2, data__train=f"[{data}]")
    train(second)
    after = read_json(list_checkpoints(Path(second.output_dir))[-1] / "manifest.json")["identifiers"]
    assert before.items() < after.items() and after["aaron"] not in before.values()


def test_auxiliary_frames_come_from_as_many_people_as_there_are(make_config, prepared, puppet_data):
    config = make_config("reference", data__auxiliary_sets=4, model__control_from=prepared)
    _, samples, plan = tiny.make_stage(config)
    people = [samples.clips[samples.samples[index].clip].identity for index in plan.auxiliary["seg"]]
    assert sorted(people) == ["p0", "p1", "p2", "p3"]
    photos, frames = read_clips(config.data.train, "train"), set()
    clips = [*photos, *auxiliary_clips(photos, config.data, config.seed)]
    for seed in range(8):
        samples = SampleSet(clips, config.data, seed=seed, identifiers={})
        chosen = auxiliary_samples(samples, 4, {"seg": list(range(len(samples)))})["seg"]
        assert len({samples.samples[index].clip for index in chosen}) == 4
        frames |= {samples.samples[index].first for index in chosen}
    assert frames == {0, 1, 2, 3}, "and from all of their clips"
    config.data.auxiliary = [str(puppet_data / "person")]
    with pytest.raises(UserError, match="shows nobody but held-out"):
        tiny.make_stage(config)


@pytest.mark.parametrize(
    ("stage", "precision", "off"), [("control", "fp32", 1e-4), ("control", "fp16", 1e-3), ("motion", "fp32", 1e-4)]
)
def test_cached_latents_give_the_same_training(make_config, prepared, stage, precision, off):
    more = {"loss__face_region_weight": 4.0, "data__random_crop": 0.5, "data__crops": 3, "data__cache_precision": precision}
    more |= {"train__learning_rate": 1e-3, "train__adam_epsilon": 1e-5}  # or rounding grows from step to step
    more |= {} if stage == "control" else {"model__control_from": prepared}
    runs = [make_config(stage, name, data__cache_latents=name == "cached", **more) for name in ("cached", "fresh")]
    for config in runs:
        train(config)
    cached, fresh = (metrics(config.output_dir) for config in runs)
    assert len(cached) == len(fresh) == 4
    for a, b in zip(cached, fresh, strict=True):
        assert a.keys() == b.keys() and a["task"] == b["task"]
        for key in ("loss", "latent", "pixel", "gradient_norm"):
            assert a[key] == pytest.approx(b[key], rel=off), key


@pytest.mark.parametrize("stage", ["control", "motion"])
@pytest.mark.parametrize("image_weight", [0.0, 0.1])
def test_errors_in_the_face_count_more(make_config, prepared, stage, image_weight):
    """Without image terms, nothing but latents and face landmarks is loaded."""
    more = {} if stage == "control" else {"model__control_from": prepared}
    latent = []
    for weight in (1.0, 2.0, 5.0):
        config = make_config(stage, str(weight), loss__face_region_weight=weight, loss__image_weight=image_weight, **more)
        module, samples, _ = tiny.make_stage(config)
        batch = tiny.first_batch(samples, "dwpose", 1)
        assert batch.face_visible.all() and (batch.pixels is None) == (image_weight == 0)
        latent.append(float(module(batch, 0)[1]["latent"]))
        hidden = dataclasses.replace(batch, face_visible=torch.zeros_like(batch.face_visible))
        assert float(module(hidden, 0)[1]["latent"]) == pytest.approx(latent[0], rel=1e-5)
    plain, double, five = latent
    assert plain < double < 1.5 * plain, "a part of the picture"
    assert five - plain == pytest.approx(4 * (double - plain), rel=1e-3)


def test_cached_latents_are_those_of_frame_and_condition(make_config):
    module, samples, _ = tiny.make_stage(make_config(data__cache_precision="fp32"))
    _, bare, _ = tiny.make_stage(make_config(data__cache_latents=False))
    for task in tiny.TASKS:
        cached, pixels = tiny.first_batch(samples, task, 6), tiny.first_batch(bare, task, 6)
        assert cached.control_pixels is None and pixels.latents is None
        backbone = module.models.backbone
        torch.testing.assert_close(cached.latents, backbone.encode(pixels.pixels), rtol=0, atol=1e-5)
        torch.testing.assert_close(cached.control_latents, backbone.encode_condition(pixels.control_pixels), rtol=0, atol=1e-5)


def test_each_clip_has_its_own_crops_and_the_first_is_the_whole_picture(make_config):
    config = make_config(data__random_crop=0.5, data__crops=3)
    samples = tiny.make_stage(config)[1]
    whole = {task: samples.cache.read(samples.clips[0], task, [0]) for task in ("frame", "seg")}
    plain = tiny.make_stage(make_config())[1].cache
    for task, latents in whole.items():
        torch.testing.assert_close(latents, plain.read(samples.clips[0], task, [0]))
        others = [samples.cache.read(samples.clips[0], task, [0], crop) for crop in (1, 2)]
        assert not torch.allclose(others[0], latents, atol=1e-2) and not torch.allclose(*others, atol=1e-2)
    boxes = {clip.id: [crop_of(clip, k, config.data, config.seed) for k in range(3)] for clip in samples.clips[:2]}
    one, two = boxes.values()
    assert one[0] == two[0] == (0.0, 0.0, tiny.SIZE, tiny.SIZE) and one[1:] != two[1:]
    drawn = Counter(samples._crop(samples.clips[0], Draw(k, "seg", 0)) for k in range(90))
    assert set(drawn) == set(one) and min(drawn.values()) > 15


@pytest.mark.parametrize("settings", [{"data__crops": 3}, {"data__crops": 0, "data__cache_latents": False}])
def test_the_last_steps_see_whole_pictures(make_config, settings):
    """Of 10 steps of 2 samples, the last 4."""
    sizes = {"train__max_steps": 10, "train__batch_size": 2, "data__random_crop": 0.5, "data__crop_until": 0.6}
    samples = STAGES["control"](make_config(**sizes, **settings), Accelerator(cpu=True)).samples
    whole = (0.0, 0.0, tiny.SIZE, tiny.SIZE)
    drawn = [samples._crop(samples.clips[0], Draw(k, "seg", 0)) == whole for k in range(20)]
    assert not all(drawn[:12]) and all(drawn[12:])
    later = [samples._crop(samples.clips[0], Draw(k, "seg", 0)) for k in range(12)]
    always = tiny.make_stage(make_config(**sizes | {"data__crop_until": 1.0}, **settings))[1]
    assert later == [always._crop(always.clips[0], Draw(k, "seg", 0)) for k in range(12)], "those before are what they were"
    assert not all(always._crop(always.clips[0], Draw(k, "seg", 0)) == whole for k in range(12, 40))


def test_only_frames_that_can_be_drawn_are_encoded(make_config, prepared):
    """Stage 2 takes 3 frames of others; the clips that they come from have 16."""
    config = make_config("reference", data__auxiliary_sets=3, model__control_from=prepared, data__cache_precision="fp32")
    module, samples, plan = tiny.make_stage(config)
    kept = [(clip.identity, len(units)) for clip, units in samples.cache.kept]
    assert [count for name, count in kept if name == "held-out"] == [1, 1, 1, 1]
    assert [count for name, count in kept if name != "held-out"] == [1, 1, 1]
    others = [index for index in plan.auxiliary["seg"] if samples.clips[samples.samples[index].clip].identity != "held-out"]
    assert len(others) == 3
    batch = collate([samples[Draw(k, "seg", index)] for k, index in enumerate(others)])
    samples.cache = None
    pixels = collate([samples[Draw(k, "seg", index)] for k, index in enumerate(others)])
    torch.testing.assert_close(batch.latents, module.models.backbone.encode(pixels.pixels), rtol=0, atol=1e-5)


def test_eight_frames_are_overfitted(make_config, tiny_base, tmp_path):
    """Fixed timesteps and noise: they follow from the draws, which stay the same in every step. The frozen base is random,
    but twice as wide as elsewhere, to give the control something to hold on to."""
    base = shutil.copytree(tiny_base, tmp_path / "wide")
    shutil.rmtree(base / "unet")
    tiny.tiny_unet(block_out_channels=(32, 64)).save_pretrained(base / "unet")
    steps = 140
    config = make_config(
        model__base=base, model__lora_rank=16, data__height=32, data__width=32, train__max_steps=steps,
        train__learning_rate=1e-2, train__lr_warmup_steps=20, train__checkpoint_every=steps, loss__image_weight=0.0,
    )  # fmt: skip
    module, samples, _ = tiny.make_stage(config)
    batch = tiny.first_batch(samples, "seg", 8)
    with torch.no_grad():
        untouched = float(module(batch, 0)[0])
    Trainer(config, Accelerator(cpu=True), module, lambda first, last: (batch for _ in itertools.count())).run()
    with torch.no_grad():
        trained = float(module(batch, 0)[0])
    assert metrics(config.output_dir)[0]["loss"] == pytest.approx(untouched, rel=1e-5)
    assert trained < untouched / 5
