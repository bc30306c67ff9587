"""The noise of stage 1: unit variance in every frame, and as much in common as the config says."""

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
    _, noise = stage._noise(batch, torch.zeros(count, 3, 4, 64, 64))
    assert noise.shape == (count, 3, 4, 64, 64)
    assert noise.var().item() == pytest.approx(1, abs=0.05)
    assert (noise[:, 0] * noise[:, 1]).mean().item() == pytest.approx(share, abs=0.05)
    _, again = stage._noise(batch, torch.zeros(count, 3, 4, 64, 64))
    assert torch.equal(noise, again)
