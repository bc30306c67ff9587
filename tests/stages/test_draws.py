"""What a stage draws as its config says: how much of the noise stage 1's frames share, how noisy, and how often a task."""

from collections import Counter

import pytest
import torch

from tests import tiny


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_frames_share_the_stated_part_of_their_noise(make_config, prepared, share):
    stage, samples, _ = tiny.make_stage(
        make_config("motion", model__control_from=prepared, train__shared_noise=share)
    )
    batch = tiny.first_batch(samples, "dwpose")
    count = len(batch.draws)
    noise = stage.parts.noise(batch.draws, (3, 4, 64, 64))
    assert noise.shape == (count, 3, 4, 64, 64)
    assert noise.var().item() == pytest.approx(1, abs=0.05)
    assert (noise[:, 0] * noise[:, 1]).mean().item() == pytest.approx(share, abs=0.05)
    assert torch.equal(noise, stage.parts.noise(batch.draws, (3, 4, 64, 64)))


@pytest.mark.parametrize("stage", ["control", "motion"])
def test_stages_follow_the_timestep_bias(make_config, prepared, stage):
    more = {"model__control_from": prepared} if stage == "motion" else {}
    module, _, _ = tiny.make_stage(
        make_config(stage, train__timestep_bias_multiplier=1e9, train__timestep_bias_portion=0.05, **more)
    )
    t = module.timesteps(torch.arange(200))
    assert t.min() >= 950 and t.max() <= 999 and len(t.unique()) > 20


def test_stages_follow_the_weights_of_tasks(make_config):
    _, _, plan = tiny.make_stage(make_config(data__task_weights={"seg": 3}))
    assert Counter(plan.draws_of(step)[0].task for step in range(10)) == {"seg": 6, "dwpose": 2, "blurred": 2}
