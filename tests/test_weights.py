"""Weights files and the names of weights."""

import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.weights import fingerprint, load_tensors, same_weights, save_tensors, short
from tests import tiny


def state(dtype=torch.float32, **changes):
    return {name: p.detach().to(dtype) for name, p in tiny.tiny_unet(**changes).state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_copies_in_other_precisions_are_the_same_weights(dtype):
    assert same_weights(fingerprint(state()), fingerprint(state(dtype)))


def test_other_weights_and_other_shapes_are_not():
    own = fingerprint(state())
    retrained = {name: weight * (1 + 0.02 * torch.randn_like(weight)) for name, weight in state().items()}
    for other in (state(seed=1), retrained, state(block_out_channels=(32, 64)), {"x": torch.zeros(3)}, {}):
        assert not same_weights(own, fingerprint(other))
        assert short(own) != short(fingerprint(other))
    assert not same_weights("0521b86a02dcdf74", own) and not same_weights("None", own)


def test_tensors_of_more_than_2_to_the_24_numbers_have_a_name():
    """As Stable Diffusion 1.5 has them: float32 cannot count that far."""
    large = {"conv": torch.zeros(29_491_200, dtype=torch.float16)}
    assert same_weights(fingerprint(large), fingerprint(large))


def test_one_other_tensor_makes_other_weights():
    own, generator = state(), torch.Generator().manual_seed(0)
    for name, weight in own.items():
        changed = own | {name: weight + 0.3 * torch.rand(weight.shape, generator=generator) + 0.1}
        assert not same_weights(fingerprint(own), fingerprint(changed)), name


def test_a_damaged_name_names_nothing():
    own = fingerprint(state())
    for damaged in (own[:-3], own + "x", own.partition(":")[0] + ":?", own.partition(":")[0]):
        assert not same_weights(own, damaged)


def test_a_name_fits_a_line():
    assert len(short(fingerprint(state()))) == 17


def test_weights_files_are_whole_or_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors({"x": torch.arange(3.0)}, path)
    assert torch.equal(load_tensors(path)["x"], torch.arange(3.0))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_tensors(path)
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "b.safetensors")
