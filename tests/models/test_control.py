"""The Meta ControlNet and the motion module: sizes, and that fresh ones leave the base unchanged."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel

from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.sd import predict_clip
from meta_animator.models.control import MetaControlNet
from meta_animator.models.motion import join_motion, new_motion_adapter, split_motion_unet
from meta_animator.settings import TASKS
from tests import tiny


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


@pytest.fixture(scope="module")
def sd15():
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(tiny.SD15 / "unet"))
    return unet, MetaControlNet.from_unet(unet, list(TASKS), 128)


def test_sd15_sizes(sd15):
    unet, control = sd15
    assert len(control.bank.layers) == 82
    assert count(control.base_state().values()) == 360_192_640
    assert {count(control.bank.parameters(task)) for task in TASKS} == {25_419_776}
    assert count(control.parameters()) == 588_970_624
    assert count(new_motion_adapter(unet, 32).parameters()) == 417_137_600


def test_shared_weights_have_the_names_of_a_controlnet_without_hint_block(sd15):
    from diffusers import ControlNetModel

    unet, control = sd15
    with torch.device("meta"):
        plain = ControlNetModel.from_unet(unet)
    names = {n for n, _ in plain.named_parameters() if not n.startswith("controlnet_cond_embedding")}
    assert set(control.base_state()) == names


@pytest.fixture
def backbone(make_config):
    return load_backbone(make_config().model)


def test_a_fresh_control_leaves_the_base_unchanged_and_a_random_one_does_not(backbone):
    control = backbone.make_control(tiny.TASKS, 4)
    for task in tiny.TASKS:
        tiny.randomise_zeros(control.bank.layers["time_embedding.linear_1"])
        control.bank.use(task)
        latents, t, context = tiny.control_inputs()
        x_t = torch.randn_like(latents)
        with torch.no_grad():
            alone = backbone.predict(x_t, t, context)
            assert torch.equal(alone, backbone.predict(x_t, t, context, control(latents, t, context)))
    tiny.randomise_zeros(control)
    with torch.no_grad():
        assert not torch.allclose(alone, backbone.predict(x_t, t, context, control(latents, t, context)), atol=1e-3)


def test_control_starts_as_a_copy_of_the_bases_encoder(backbone):
    own = backbone.make_control(["dwpose"], 4).base_state()
    copied = [name for name in backbone.unet.state_dict() if name in own]
    assert len(copied) == sum(not name.startswith("controlnet_") for name in own)
    for name in copied:
        weight = backbone.unet.state_dict()[name]
        assert torch.equal(own[name], weight) and own[name].data_ptr() != weight.data_ptr()


def test_a_fresh_motion_module_leaves_every_frame_unchanged(backbone):
    adapter = backbone.with_motion(8)
    control = tiny.randomise_zeros(backbone.make_control(["dwpose"], 4))
    control.bank.use("dwpose")
    (x_t, t, context), conditions = tiny.control_inputs(batch=6), torch.randn(2, 3, 4, 8, 8)
    x_t, t, context = x_t.unflatten(0, (2, 3)), t[:2], context[:2]
    with torch.no_grad():
        clip = backbone.predict(x_t, t, context, control(conditions, t, context))
        for k in range(3):
            frame = backbone.predict(x_t[:, k], t, context, control(conditions[:, k], t, context))
            torch.testing.assert_close(clip[:, k], frame, rtol=0, atol=1e-5)
        tiny.randomise_zeros(adapter, std=0.5)
        assert not torch.allclose(clip, backbone.predict(x_t, t, context, control(conditions, t, context)), atol=1e-3)


def test_a_motion_module_is_silent_for_images(backbone):
    x_t, t, context = tiny.control_inputs()
    with torch.no_grad():
        before = backbone.predict(x_t, t, context)
        tiny.randomise_zeros(backbone.with_motion(8), std=0.5)
        backbone.predict(x_t[None], t[:1], context[:1])
        assert torch.equal(backbone.predict(x_t, t, context), before)


def test_joining_another_motion_module_takes_the_first_out(backbone):
    tiny.randomise_zeros(backbone.with_motion(8), std=0.5)
    x_t, t, context = tiny.control_inputs()
    other = tiny.randomise_zeros(new_motion_adapter(backbone.unet, 8), std=0.5, seed=1)
    with torch.no_grad():
        fresh = fresh_unet(backbone.unet)
        wanted = predict_clip(fresh, join_motion(fresh, other), x_t[None], t[:1], context[:1], None)
        ours = predict_clip(backbone.unet, join_motion(backbone.unet, other), x_t[None], t[:1], context[:1], None)
    assert torch.equal(ours, wanted)


def fresh_unet(unet):
    """The same UNet without anything hooked into it."""
    bare = UNet2DConditionModel.from_config(unet.config).eval()
    bare.load_state_dict(unet.state_dict())
    return bare


@pytest.mark.parametrize("between", [False, True], ids=["", "an image between"])
def test_checkpointing_keeps_gradients_and_fewer_activations(backbone, between):
    """All temporal layers are computed again in the backward pass, on clips, whatever the UNet saw in the meantime."""
    adapter = tiny.randomise_zeros(backbone.with_motion(8), std=0.5).requires_grad_(True)
    x_t, t, context = tiny.control_inputs(batch=6)
    x_t, t, context = x_t.unflatten(0, (2, 3)), t[:2], context[:2]

    def gradients():
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        adapter.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = backbone.predict(x_t, t, context).square().mean()
        if between:
            with torch.no_grad():
                backbone.predict(x_t[:, 0], t, context)
        loss.backward()
        return kept, {n: p.grad.clone() for n, p in adapter.named_parameters()}

    plain_kept, plain = gradients()
    backbone.enable_gradient_checkpointing()
    kept, checkpointed = gradients()
    assert kept < plain_kept / 3
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-7)
        assert gradient.abs().sum() > 0 or "to_" in name or "pos" in name, name


def test_a_half_precision_base_trains_a_float32_motion_module(backbone):
    """The frozen UNet computes in bf16, autocast or not; what is trained keeps float32 weights and gradients."""
    adapter = tiny.randomise_zeros(backbone.with_motion(8), std=0.5).requires_grad_(True)
    x_t, t, context = tiny.control_inputs()
    with torch.no_grad():
        exact = backbone.predict(x_t[None], t[:1], context[:1])
    backbone.unet.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = backbone.predict(x_t[None], t[:1], context[:1])
    rounded.square().mean().backward()
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()
    assert {p.grad.dtype for p in adapter.parameters()} == {torch.float32}


def test_diffusers_motion_unet_is_taken_apart(backbone):
    adapter = tiny.randomise_zeros(new_motion_adapter(backbone.unet, 8, mid_block=True), std=0.5)
    joined = UNetMotionModel.from_unet2d(backbone.unet, adapter)
    unet, motion = split_motion_unet(joined)
    x_t, t, context = tiny.control_inputs()
    with torch.no_grad():
        fresh = fresh_unet(backbone.unet)
        wanted = predict_clip(fresh, join_motion(fresh, adapter), x_t[None], t[:1], context[:1], None)
        assert torch.equal(predict_clip(unet, join_motion(unet, motion), x_t[None], t[:1], context[:1], None), wanted)


def test_no_mid_block_in_the_motion_module():
    adapter = new_motion_adapter(tiny.tiny_unet(), 8)
    assert not any("mid_block" in name for name, _ in adapter.named_parameters())
    assert any("attn2" in name for name, _ in adapter.named_parameters())
