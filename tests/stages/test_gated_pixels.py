"""Of images that the image terms do not see, no pixels are read."""

import dataclasses

import pytest
import torch

from meta_animator.data import samples as reading
from meta_animator.data.batch import collate
from tests import tiny

HYBRID = {"loss__image_weight": 1.0, "loss__face_weight": 0.5, "loss__max_noise_level": 0.8, "train__batch_size": 4}


@pytest.mark.parametrize("stage", ["control", "motion"])
def test_only_gated_pixels_are_read_and_the_loss_is_as_with_all(make_config, prepared, stage, monkeypatch):
    more = {"model__control_from": prepared} if stage == "motion" else {}
    module, samples, plan = tiny.make_stage(make_config(stage, loss__start_step=2, train__max_steps=40, **HYBRID, **more))
    tiny.randomise_zeros(module.models.control)
    read = []
    load = reading.load_frame
    monkeypatch.setattr(reading, "load_frame", lambda *args, **kwargs: read.append(args[1]) or load(*args, **kwargs))
    frames, seen = samples.num_frames or 1, set()
    for step in (1, *range(2, 12)):
        draws = plan.draws_of(step)
        read.clear()
        batch = collate([samples[draw] for draw in draws])
        gated = [k for k, draw in enumerate(draws) if step >= 2 and bool(module.loss.gated(module.timesteps([draw.number])))]
        assert len(read) == frames * len(gated)
        assert (list(range(len(draws))) if batch.pixel_rows is None else batch.pixel_rows.tolist()) == gated
        whole = collate([{**samples[draw], "pixels": pixels_of(samples, draw)} for draw in draws])
        assert whole.pixel_rows is None
        losses = []
        for one in (batch, whole):
            module.begin_step([one], step, lambda counts: counts)
            loss, logs = module(one, step)
            losses.append([loss, *(logs[name].value for name in ("pixel", "face") if name in logs)])
        assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))
        seen.add(0 if not gated else 2 if len(gated) == len(draws) else 1)
    assert {0, 1} <= seen, "steps with no gated image and steps with some"


def pixels_of(samples, draw):
    everyone = samples.reading(samples.cache, lambda number: True)
    return everyone[draw]["pixels"]


def test_other_pixels_than_the_gated_ones_are_refused(make_config):
    module, samples, plan = tiny.make_stage(make_config(**HYBRID))
    batch = collate([samples.reading(samples.cache, lambda number: number == 1)[draw] for draw in plan.draws_of(0)])
    assert batch.pixel_rows.tolist() == [1]
    batch = dataclasses.replace(batch, pixels=torch.cat([batch.pixels] * 4), pixel_rows=torch.arange(4))
    with pytest.raises(ValueError, match="gated ones"):
        module(batch, 0)
