"""Weights files."""

import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.weights import load_tensors, save_tensors


def test_weights_files_are_whole_or_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors({"x": torch.arange(3.0)}, path)
    assert torch.equal(load_tensors(path)["x"], torch.arange(3.0))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_tensors(path)
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "b.safetensors")
