"""Text encoder and VAE encoder leave before training where all that they would make is there; nothing else changes."""

import json
from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.json_files import read_json
from meta_animator.media.images import read_image
from meta_animator.stages import denoising_run, texts
from meta_animator.stages import train as training
from meta_animator.stages.meters import Meters
from meta_animator.training.engine import Trainer
from meta_animator.weights import load_tensors


@pytest.fixture
def trained(make_config, monkeypatch):
    """trained(name, **overrides) -> (config, stage) after all of `train`."""

    def run(name, stage="control", **overrides):
        stages = []

        class Seen(Trainer):
            def __init__(self, config, accelerator, stage, *rest):
                stages.append(stage)
                super().__init__(config, accelerator, stage, *rest)

        monkeypatch.setattr(training, "Trainer", Seen)
        previews = 3 if stage == "control" else 0
        settings = {"train__max_steps": 3, "train__preview_every": previews, "data__prompt_drop": 0.3, "loss__image_weight": 0.5}
        config = make_config(stage, name, **(settings | overrides))
        training.train(config)
        return config, stages[0]

    return run


def names(stage) -> set[str]:
    return {".".join(name.split(".")[2:4]) for name, _ in stage.named_parameters() if name.startswith("models.backbone.")}


@pytest.mark.parametrize("stage", ["control", "motion"])
def test_a_run_without_its_encoders_is_the_same_run(trained, monkeypatch, prepared, stage):
    more = {} if stage == "control" else {"model__control_from": prepared}
    config, lean = trained("lean", stage, **more)
    monkeypatch.setattr(denoising_run, "release", lambda *arguments: None)
    whole_config, whole = trained("whole", stage, **more)
    gone = {name for name in names(whole) if name.startswith("text_encoder.")} | {"vae.encoder", "vae.quant_conv"}
    assert len(gone) >= 3 and names(whole) - names(lean) == gone
    folders = [Path(c.output_dir) for c in (config, whole_config)]
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders]
    assert lines[0] == lines[1] and len(lines[0]) == 3 + (stage == "control"), "the last line is the meters'"
    ends = [list_checkpoints(folder)[-1] for folder in folders]
    assert read_json(ends[0] / "manifest.json") == read_json(ends[1] / "manifest.json")
    models = [load_tensors(end / "model.safetensors") for end in ends]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[1])
    assert lean.models.backbone.encoder_fingerprint() == whole.models.backbone.encoder_fingerprint()
    if stage == "control":
        shown = [read_image(folder / "previews" / "step-000003.png") for folder in folders]
        assert (shown[0] == shown[1]).all()


def test_what_is_still_needed_stays(trained, monkeypatch):
    quick = {"train__max_steps": 1, "train__preview_every": 0}
    _, uncached = trained("uncached", data__cache_latents=False, **quick)
    assert "vae.encoder" in names(uncached) and not any(name.startswith("text_encoder.") for name in names(uncached))
    monkeypatch.setattr(texts, "MAX_PROMPTS", 2)
    _, many = trained("many", **quick)
    assert "vae.encoder" not in names(many) and any(name.startswith("text_encoder.") for name in names(many))


def test_the_text_encoder_leaves_before_the_vae_is_asked(trained, monkeypatch):
    """On a GPU it may fill all the room that there is."""
    there, encode = [], Meters.encode
    monkeypatch.setattr(Meters, "encode", lambda self: (there.append(self.models.backbone.text_encoder), encode(self))[1])
    trained("run", train__max_steps=1, train__preview_every=0)
    assert there and there[0] is None
