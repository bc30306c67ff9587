"""Meters that run along in a training: what they say, that they disturb nothing, and the best step that they choose."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from meta_animator.checkpoints.files import find_checkpoint, list_checkpoints, read_weights
from meta_animator.data.batch import Batch
from meta_animator.data.samples import read_clips, to_images
from meta_animator.diffusion.process import DDPM
from meta_animator.errors import Stopped, UserError
from meta_animator.json_files import read_json
from meta_animator.settings import DataConfig, RunConfig
from meta_animator.stages import meters, previews
from meta_animator.stages.animate import is_learned
from meta_animator.stages.denoising import DenoisingStage
from meta_animator.stages.held_out import hold_out, shares_of
from meta_animator.stages.meters import Measured, Meters
from meta_animator.stages.train import train
from meta_animator.weights import load_tensors
from tests import tiny

NUMBERS = {"obedience", "control_gain"}


def lines(config, meters: bool) -> list[dict]:
    """What was logged of measurements, or of steps."""
    every = [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if ("loss" not in line) == meters]


def steps(config) -> list[str]:
    return [path.name for path in list_checkpoints(Path(config.output_dir))]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Of what generates."""
    monkeypatch.setattr(previews, "STEPS", 2)


@pytest.fixture
def tuned(make_config, prepared):
    """tuned(name, **settings): a stage 2 that holds one of four photos out."""

    def make(name="run", **settings):
        own = {"model__control_from": prepared, "data__held_out": 1, "train__measure_every": 1, "train__checkpoint_every": 100}
        return make_config("reference", name, **(own | settings))

    return make


# what they say


class Copier(torch.nn.Module):
    """A base and a control network: the clean latents are predicted to be `trust` times what the control network reads."""

    def __init__(self, trust: float):
        super().__init__()
        self.trust, self.process = trust, DDPM.from_betas("scaled_linear", 0.00085, 0.012)
        self.bank, self.weight = SimpleNamespace(use=lambda task: None), torch.nn.Parameter(torch.zeros(()))
        self.encode = self.encode_condition = self.control_input = lambda pixels: pixels
        self.sees_noise = False

    def forward(self, latents, t, context):
        return latents

    def predict(self, x_t, t, context, shown=None):
        alpha, sigma = (scale.view(-1, 1, 1, 1, 1) for scale in self.process.scales(t))
        return (x_t - alpha * (0 if shown is None else self.trust * shown)) / sigma


def measured_with(trust: float) -> dict[str, float]:
    """By a network that trusts the condition so far; the right condition is the picture, the wrong one its negative."""
    base, pictures = Copier(trust), torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        task="seg", draws=torch.arange(2), prompts=["a", "b"], identities=["a", "b"], pixels=pictures, control_pixels=pictures
    )
    models, texts = SimpleNamespace(backbone=base, control=base), lambda prompts, device: torch.zeros(len(prompts), 1, 1)
    return Meters(
        RunConfig(), models, texts,
        lambda draws, shape: torch.randn(len(draws), *shape, generator=torch.Generator().manual_seed(1)),
        Measured(task="seg", batch=batch, wrong=-pictures, held_out=False),
    ).measure()  # fmt: skip


def test_obedience_is_how_much_a_wrong_condition_adds_to_the_error():
    """With x_0 guessed as 0.5 x, the error is 1/4 of that of no guess at all, and of that of -0.5 x one in nine."""
    half, deaf = measured_with(0.5), measured_with(0.0)
    assert half["obedience"] == pytest.approx(8, rel=1e-3) and half["control_gain"] == pytest.approx(3, rel=1e-3)
    assert deaf["obedience"] == deaf["control_gain"] == 0
    assert half["fixed_noise_error"] == pytest.approx(deaf["fixed_noise_error"] / 4, rel=1e-3)


@pytest.fixture
def held(tuned):
    """(the meters of a stage 2 of which nothing was trained yet, its samples, its plan)."""
    stage, samples, plan = tiny.make_stage(tuned(data__random_crop=0.5, data__crops=3, loss__face_weight=0.1))
    return stage.parts.meters, samples, plan


def test_a_held_out_photo_is_measured_and_neither_drawn_nor_shown_in_a_preview(held, puppet_data):
    meter, samples, plan = held
    learned = {samples.clips[samples.samples[index].clip].id for index in plan.pools()}
    photos = {f"photo-{k}" for k in range(4)}
    (left,) = photos - learned
    assert {clip.id for clip in samples.clips} & photos == photos - {left}
    frame = read_clips([str(puppet_data / "person")], "train")[int(left[-1])].load(0).frame
    assert meter.measured.batch.pixels.shape == (1, 1, 3, tiny.SIZE, tiny.SIZE)
    assert (to_images(meter.measured.batch.pixels[0, 0]) == frame).all(), "whole, not a random crop of it"
    assert len(meter.measured.photos) == 3 and not torch.equal(meter.measured.wrong, meter.measured.batch.control_pixels)
    assert meter.measured.task == "dwpose"


def test_the_same_photo_is_held_out_where_others_come_and_go(puppet_data):
    photos, data = read_clips([str(puppet_data / "person")], "train"), DataConfig(held_out=1)
    learned, (left,) = hold_out(photos, data, 7, ["seg", "dwpose"])
    assert learned == [photo for photo in photos if photo is not left]
    for gone in learned:
        assert hold_out([photo for photo in photos if photo is not gone], data, 7, ["seg", "dwpose"])[1] == [left]
    assert len({hold_out(photos, data, seed, ["dwpose"])[1][0].id for seed in range(20)}) > 1, "not simply the first"


def test_shares_hold_out_each_photo_once(puppet_data):
    photos, tasks = read_clips([str(puppet_data / "person")], "train"), ["dwpose"]
    for count in (1, 2):
        datas = [DataConfig(held_out=count, held_out_share=share) for share in range(len(photos) // count)]
        assert shares_of(photos, datas[0], tasks) == len(datas)
        held = [photo.id for data in datas for photo in hold_out(photos, data, 7, tasks)[1]]
        assert sorted(held) == sorted(photo.id for photo in photos)


def test_a_copy_of_a_training_photo_is_told_from_the_truth(held, monkeypatch):
    meter, samples, plan = held
    meter.encode()
    own = meters._plain(samples, samples.clips)
    photo = own[meters.Draw(0, "dwpose", plan.samples["dwpose"][1])]["pixels"][None]
    numbers = {}
    for name, made in {"copy": photo, "truth": meter.measured.batch.pixels}.items():
        monkeypatch.setattr(meters, "generate", lambda *_, made=made: made)
        numbers[name] = meter.measure()
    assert numbers["copy"]["copying"] > 1 and numbers["truth"]["copying"] < -1
    assert numbers["truth"]["held_out_face"] == pytest.approx(1, abs=1e-5)
    assert numbers["copy"]["held_out_face"] < 0.999
    assert numbers["copy"]["held_out_error"] == numbers["truth"]["held_out_error"], "the same noise each time"


def test_stage_0_measures_on_clips_that_the_data_set_holds_out(make_config, puppet_data, tmp_path, capsys):
    data = shutil.copytree(puppet_data / "train", tmp_path / "some")
    entries = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    entries[2]["split"] = "heldout"
    (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, entries)))
    stages = [tiny.make_stage(make_config(train__measure_every=1, **more))[0] for more in ({}, {"data__train": f"[{data}]"})]
    all_learned, some_held = (set(stage.parts.meters.measured.batch.identities) for stage in stages)
    assert all_learned == {"p0", "p1", "p2", "p3"} and some_held == {"p2"}
    assert stages[1].measure().keys() == {*NUMBERS, "fixed_noise_error"}, "no step is chosen by it"
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("meters measure")]
    assert said == "meters measure on 4 samples that are trained on, since nothing is held out"
    assert tiny.make_stage(make_config())[0].measure() == {}, "previews are off, and so are meters"


# that they disturb nothing


@pytest.mark.parametrize("stage", ["control", "motion", "reference"])
def test_a_training_is_the_same_with_and_without_meters(make_config, prepared, stage):
    more = {"train__ema_decay": 0.9, "data__prompt_drop": 0.3, "train__max_steps": 3, "loss__face_weight": 0.1}
    more |= {"model__control_from": prepared} if stage != "control" else {}
    more |= {"data__held_out": 1} if stage == "reference" else {}
    runs = [make_config(stage, str(every), train__measure_every=every, **more) for every in (1, 100)]
    for config in runs:
        train(config)
    assert len(lines(runs[0], meters=True)) == 3 and len(lines(runs[1], meters=True)) == 1, "the last step is always measured"
    assert all(line.keys() >= NUMBERS for line in lines(runs[0], meters=True))
    assert lines(runs[0], meters=True)[-1] == lines(runs[1], meters=True)[-1]
    assert lines(runs[0], meters=False) == lines(runs[1], meters=False)
    for file in ("model", "ema", "optimizer"):
        ours, theirs = (load_tensors(list_checkpoints(Path(c.output_dir))[-1] / f"{file}.safetensors") for c in runs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_averaged_weights_are_measured(tuned):
    """The measurement of the last step is that of the checkpoint, as it is used."""
    train(config := tuned(train__ema_decay=0.9, train__max_steps=2))
    stage, _, _ = tiny.make_stage(config)
    stage.load_trainable_state(read_weights(config.output_dir)[1], "the run")
    stage.eval()
    said = lines(config, meters=True)[-1]
    assert stage.measure() == pytest.approx({name: value for name, value in said.items() if name != "step"}, rel=1e-4)


def test_a_run_that_was_stopped_at_a_measurement_ends_as_one_that_was_not(tuned, monkeypatch):
    forward, stop_at = DenoisingStage.forward, []

    def stopping(self, batch, step):
        if step in stop_at:
            stop_at.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, batch, step)

    monkeypatch.setattr(DenoisingStage, "forward", stopping)
    more = {"train__measure_every": 2, "train__max_steps": 5, "train__keep_checkpoints": 9, "train__learning_rate": 1e-3}
    train(whole := tuned("whole", **more))
    stop_at.append(1)
    with pytest.raises(Stopped, match="after step 2, which is saved"):
        train(parts := tuned("parts", **more))
    assert not lines(parts, meters=True)
    train(parts)
    assert lines(whole, meters=True) == lines(parts, meters=True) and len(lines(whole, meters=True)) == 3
    assert [line["step"] for line in lines(parts, meters=False)] == [1, 2, 3, 4, 5]
    for file in ("checkpoints/best.json", "checkpoints/step-000005/manifest.json"):
        assert read_json(Path(whole.output_dir) / file) == read_json(Path(parts.output_dir) / file)


# the best step


@pytest.fixture
def scripted(monkeypatch):
    """scripted(errors): the held-out errors of steps 1, 2, ..."""

    def script(*errors):
        there = iter(errors)
        monkeypatch.setattr(Meters, "measure", lambda self: {"obedience": 1.0, "held_out_error": next(there)})

    return script


def test_the_best_step_is_kept_named_and_taken(tuned, scripted, capsys, make_config):
    scripted(3.0, 1.0, 2.0, 4.0, 1.5)
    train(config := tuned(train__max_steps=4, train__keep_checkpoints=1))
    run = Path(config.output_dir)
    assert steps(config) == ["step-000002", "step-000004"]
    assert read_json(run / "checkpoints" / "best.json") == {"step": 2, "meter": "held_out_error", "value": 1.0}
    output = capsys.readouterr().out
    assert "step-000004; step 2 is the best by held_out_error (1); to look at" in output
    assert read_weights(run)[0]["step"] == 2
    assert capsys.readouterr().out == f"{run}: takes step 2 of 4, the best by held_out_error (1)\n"
    assert read_weights(run / "checkpoints" / "step-000004")[0]["step"] == 4 and not capsys.readouterr().out
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in board.Scalars("held_out_error")] == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 4.0)]
    page = (run / "index.html").read_text()
    assert "step 4 of 4, seed 0; step 2 is the best by held_out_error (1)" in page and "<figcaption>obedience: excess" in page
    train(tuned(train__max_steps=5, train__keep_checkpoints=1))  # goes on from the newest, and the best stays
    assert [line["held_out_error"] for line in lines(config, meters=True)] == [3.0, 1.0, 2.0, 4.0, 1.5]
    assert steps(config) == ["step-000002", "step-000005"] and find_checkpoint(run).name == "step-000002"
    folders = tiny.extract(make_config("extract", "loras", extract__checkpoint=run))
    assert "takes step 2 of 5" in capsys.readouterr().out and {read_json(f / "metadata.json")["step"] for f in folders} == {2}
    shutil.rmtree(run / "checkpoints" / "step-000002")
    with pytest.raises(UserError, match=r"best.json: names step 2, but .*step-000002 is not there; name another"):
        find_checkpoint(run)


def test_a_run_goes_back_with_its_best(tuned, scripted):
    """What was better after the checkpoint that a run continues from is forgotten."""
    scripted(2.0, 3.0, 1.0)
    train(config := tuned(train__max_steps=3, train__keep_checkpoints=9, train__checkpoint_every=1))
    shutil.rmtree(Path(config.output_dir) / "checkpoints" / "step-000003")
    train(tuned(train__max_steps=2))  # has nothing left to do
    assert find_checkpoint(config.output_dir).name == "step-000001"


def test_early_stop_ends_a_run_once_nothing_gets_better(tuned, scripted, capsys):
    scripted(3.0, 1.0, 2.0, 4.0)
    train(config := tuned(train__max_steps=50, train__early_stop=2))
    assert steps(config) == ["step-000002", "step-000004"] and len(lines(config, meters=False)) == 4
    note = "note: step 4: the error on what is held out was least at step 2, 2 measurements ago: the run ends here"
    assert note in capsys.readouterr().out
    run, patient = Path(config.output_dir), dataclasses.replace(config.train, early_stop=3)
    assert is_learned(run, config.train) and not is_learned(run, patient) and not is_learned(run / "no", config.train)
    train(config)  # has nothing left to do
    assert len(lines(config, meters=False)) == 4 and steps(config) == ["step-000002", "step-000004"]


def test_another_photo_held_out_is_another_run(tuned):
    train(tuned(train__max_steps=1))
    with pytest.raises(UserError, match=r"its held_out is \['photo-\d'\], this run's is \[\]"):
        train(tuned(train__max_steps=2, data__held_out=0))
