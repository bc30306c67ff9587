"""Motion weights in diffusers' MotionAdapter format."""

import pytest
import torch
from diffusers import MotionAdapter

from meta_animator.conversion.motion import load_motion
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.stages.checks import check_run
from meta_animator.stages.dry_run import trainable_parameters
from meta_animator.weights import load_tensors, save_tensors
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


@pytest.mark.parametrize(
    ("match", "config", "weights"),
    [
        ("motion_num_attention_heads 4, ours 8", {"motion_num_attention_heads": 4}, {}),
        ("motion_norm_num_groups 4, ours 8", {"motion_norm_num_groups": 4}, {}),
        (r"knows 4 positions, this run has model\.motion_max_seq_length=8", {"motion_max_seq_length": 4}, {}),
        ("1 weights are missing, the first is ", {}, {"proj_in.bias": lambda w: None}),
        ("1 weights are unexpected, the first is extra", {}, {"proj_in.bias": lambda w: "extra"}),
        ("is not the usual table of sines", {}, {"pos_embed.pe": lambda w: w + 1}),
        ("adapter: ", {"block_out_channels": 3}, {}),
    ],
)
def test_folders_are_checked_as_files_are(models, tmp_path, match, config, weights):
    folder = tmp_path / "adapter"
    adapter = MotionAdapter.from_config(dict(models.motion.config) | {k: v for k, v in config.items() if v != 3})
    adapter.save_pretrained(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_tensors(file)
    for ending, change in weights.items():
        name = next(n for n in state if n.endswith(ending))
        changed = change(state[name])
        if isinstance(changed, str):
            state[changed] = state[name].clone()
        elif changed is None:
            del state[name]
        else:
            state[name] = changed
    save_tensors(state, file)
    write_json(folder / "config.json", read_json(folder / "config.json") | config)
    with pytest.raises(UserError, match=match) as caught:
        load_motion(models, str(folder))
    assert "\n" not in str(caught.value)


def test_a_file_of_a_motion_adapter_is_what_its_folder_is(models, tmp_path):
    """As AnimateDiff-Lightning is published for diffusers: every weight and table of a MotionAdapter, in one file."""
    torch.manual_seed(1)
    adapter = MotionAdapter.from_config(dict(models.motion.config))
    state = {name: tensor.contiguous() for name, tensor in adapter.state_dict().items()}
    assert any(name.endswith(".pos_embed.pe") for name in state)
    save_tensors(state, tmp_path / "lightning.safetensors")
    load_motion(models, str(tmp_path / "lightning.safetensors"))
    own = dict(models.motion.named_parameters())
    assert own and all(torch.equal(own[name], weight) for name, weight in adapter.named_parameters())
    short = {name: tensor for name, tensor in state.items() if not name.endswith(".pos_embed.pe")}
    save_tensors(short, tmp_path / "without.safetensors")
    with pytest.raises(UserError, match=r"has no table of positions \(.*transformer_blocks\.0\.pos_embed\.pe\)"):
        load_motion(models, str(tmp_path / "without.safetensors"))


@pytest.mark.parametrize("stage", ["control", "reference"])
def test_a_stage_without_a_motion_module_takes_none(make_config, stage):
    with pytest.raises(UserError, match=rf"model\.motion_from: stage '{stage}' has no motion module; leave it empty"):
        check_run(make_config(stage, model__motion_from="motion.ckpt"))


@pytest.mark.parametrize("mid_block", [False, True])
def test_the_dry_run_counts_the_mid_block(make_config, mid_block):
    config = make_config("motion", model__motion_mid_block=mid_block)
    models = Assembly(config.model, load_backbone(config.model), with_motion=True)
    assert trainable_parameters(config)["motion"] == sum(p.numel() for p in models.motion.parameters())
