"""Motion weights in diffusers' MotionAdapter format."""

import pytest
import torch
from diffusers import MotionAdapter

from meta_animator.conversion.motion import load_motion
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from tests import tiny


@pytest.fixture
def models(make_config):
    config = make_config()
    return Assembly(config.model, load_backbone(config.model), with_motion=True)


def test_a_motion_adapter_folder_moves_the_network(models, tmp_path):
    adapter = tiny.randomise_zeros(MotionAdapter.from_config(models.motion.config), seed=1)
    adapter.save_pretrained(tmp_path / "adapter")
    x_t, t, context = torch.randn(1, 3, 4, 8, 8), torch.tensor([300]), torch.randn(1, 6, 16)
    with torch.no_grad():
        still = models.backbone.predict(x_t, t, context)
        load_motion(models, str(tmp_path / "adapter"))
        moved = models.backbone.predict(x_t, t, context)
    assert not torch.allclose(still, moved, atol=1e-3)
    loaded = dict(models.motion.named_parameters())
    for name, parameter in adapter.named_parameters():
        assert torch.equal(parameter, loaded[name])


def test_a_motion_adapter_of_another_layout_is_refused(models, tmp_path):
    config = dict(models.motion.config) | {"use_motion_mid_block": True}
    MotionAdapter.from_config(config).save_pretrained(tmp_path / "v2")
    with pytest.raises(UserError, match=r"v2: has a motion module in the mid block .*; set model.motion_mid_block=true"):
        load_motion(models, str(tmp_path / "v2"))


def test_a_folder_without_weights_is_one_line(models, tmp_path):
    models.motion.save_config(tmp_path / "bare")
    with pytest.raises(UserError, match="bare: ") as caught:
        load_motion(models, str(tmp_path / "bare"))
    assert "\n" not in str(caught.value)
