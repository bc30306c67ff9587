import pytest
import torch

from meta_animator.diffusion.clip_noise import clip_noise
from tests.diffusion.gaussian import noise


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_variance_and_correlation_are_as_stated(share):
    shared, own = noise(1, 4, 64, 64), noise(1, 3, 4, 64, 64, seed=1)
    mixed = clip_noise(shared, own, share)
    assert mixed.shape == own.shape and mixed.var().item() == pytest.approx(1, abs=0.03)
    assert (mixed[:, 0] * mixed[:, 2]).mean().item() == pytest.approx(share, abs=0.03)
    assert (mixed[:, 1] * shared).mean().item() == pytest.approx(share**0.5, abs=0.03)
    if share in (0, 1):
        assert torch.equal(mixed, own if share == 0 else shared[:, None].expand_as(own))


def test_a_share_outside_of_0_to_1_is_refused():
    with pytest.raises(ValueError, match="share"):
        clip_noise(noise(1, 1, 1, 1), noise(1, 1, 1, 1, 1), 1.1)
