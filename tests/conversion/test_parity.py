"""Our networks with other projects' weights against what their own code answers in float64: ours in float64 and in float32."""

import copy

import pytest
import torch
from einops import rearrange

from meta_animator.conversion.ctrlora import ControlNames, from_ctrlora, to_base_file, to_ctrlora, to_lora_file
from meta_animator.conversion.motion import from_animatediff, positions, to_animatediff
from meta_animator.diffusion.process import DDPM
from meta_animator.diffusion.samplers import ddim
from meta_animator.errors import UserError
from meta_animator.models.backbones.sd import predict_clip
from meta_animator.models.control import MetaControlNet
from meta_animator.models.motion import join_motion, new_motion_adapter
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.weights import copy_strict
from tests.conversion import parity

NAMES = {"canny": "canny", "DWpose": "dwpose"}  # their tasks, ours


CLOSE = {torch.float64: 1e-8, torch.float32: 1e-5}


@torch.no_grad()
def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


class Base:
    """A UNet behind what a denoiser needs of a base."""

    has_time = False

    def __init__(self, unet):
        self.unet = unet

    def predict(self, x_t, t, context, output=None):
        return predict_clip(self.unet, None, x_t, t, context, output)


@pytest.fixture(scope="module")
def ctrlora():
    """(tensors, their whole checkpoint, facts, UNet, our network with their weights, those weights)."""
    tensors, layout, facts = parity.read("ctrlora")
    state = parity.weights(layout)
    unet = parity.small_unet()
    network = MetaControlNet.from_unet(unet, list(NAMES.values()), facts["rank"]).double()
    names = ControlNames(network)
    for theirs in names.order:  # the active LoRA's values stand under a second name
        k = names.order.index(theirs)
        for half in ("down", "up"):
            alias = f"control_model.{theirs}.lora_layer.{half}.weight"
            state[alias] = state[f"control_model.loras_dict.{facts['active']}.{k}.{half}.weight"]
    parity.fill_unet(unet, state)
    ours = from_ctrlora(state, names, "fixture", {t: NAMES[t] for t in facts["tasks"]})
    fill(network, ours)
    return tensors, state, facts, unet, network, ours


def fill(network, ours):
    copy_strict(network.base_state(), {n.removeprefix("control."): w for n, w in ours.items() if n.startswith("control.")}, "")
    for task in network.bank.tasks:
        prefix = f"lora.{task}."
        network.bank.load(task, {n.removeprefix(prefix): w for n, w in ours.items() if n.startswith(prefix)}, "")


def at(precision, tensors, *networks):
    """(tensors, networks...), in this precision."""
    cast = {name: value.to(precision) if value.is_floating_point() else value for name, value in tensors.items()}
    return cast, *(copy.deepcopy(network).to(precision) for network in networks)


@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("task", list(NAMES))
def test_meta_controlnet_equals_ctrloras(ctrlora, task, precision):
    theirs = ctrlora[0]
    tensors, network = at(precision, theirs, ctrlora[4])
    network.bank.use(NAMES[task])
    down, mid = network(tensors["condition"], tensors["t"], tensors["context"])
    for k, ours in enumerate((*down, mid)):
        assert relative(ours, theirs[f"{task}.residual.{k}"]) <= CLOSE[precision]


def test_residuals_and_loras_count(ctrlora):
    """Otherwise equality would say nothing of them."""
    tensors = ctrlora[0]
    assert relative(tensors["conditional"], tensors["plain"]) > 0.01
    assert relative(tensors["canny.residual.3"], tensors["DWpose.residual.3"]) > 0.01


@pytest.mark.parametrize("precision", CLOSE)
def test_guided_prediction_and_ddim_equal_ctrloras(ctrlora, precision):
    theirs, _, facts, *networks, _ = ctrlora
    tensors, unet, network = at(precision, theirs, *networks)
    task = NAMES[facts["active"]]
    denoiser = Denoiser(
        backbone=Base(unet), control=network, tasks={task: 1.0}, control_latents={task: tensors["condition"][:, None]},
        context=tensors["context"], null_context=tensors["null"], guidance_scale=facts["guidance"],
    )  # fmt: skip

    def denoise(x, t):
        return denoiser(x[:, None], t)[:, 0]

    with torch.no_grad():
        assert relative(denoise(tensors["x"], tensors["t"]), theirs["guided"]) <= CLOSE[precision]
    process = DDPM.from_betas("scaled_linear", *facts["betas"])
    sampled = ddim(denoise, tensors["x"], process, process.sampling_timesteps(facts["steps"]))
    assert relative(sampled, theirs["ddim"]) <= CLOSE[precision]


def test_whole_checkpoint_goes_out_as_it_came_in(ctrlora):
    _, state, facts, _, network, ours = ctrlora
    back = to_ctrlora(ours, ControlNames(network), [NAMES[t] for t in facts["tasks"]])
    back = {name.replace("loras_dict.dwpose.", "loras_dict.DWpose."): w for name, w in back.items()}
    theirs = {name: w for name, w in state.items() if name.startswith("control_model.")}
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_base_file_and_lora_file_make_the_whole(ctrlora):
    """A LoRA file's zero convolutions and norms replace the base file's."""
    network, ours = ctrlora[4:]
    names = ControlNames(network)
    tuned = {f"control.{n}" for n, theirs in names.weights.items() if theirs in names.tuned()}
    changed = {n: w + 1 if n in tuned else w for n, w in ours.items()}
    base, lora = to_base_file(ours, names), to_lora_file(changed, names, "canny")
    assert len(base) == len(names.weights) and len(tuned) > 10
    control = from_ctrlora(base, names, "base")
    whole = from_ctrlora(lora, names, "lora", {"": "canny"}, base=control)
    wanted = {n: w for n, w in changed.items() if not n.startswith("lora.dwpose.")}
    assert whole.keys() == wanted.keys() and all(torch.equal(whole[n], wanted[n]) for n in wanted)


def test_bad_ctrlora_files_are_refused(ctrlora):
    _, state, _, _, network, ours = ctrlora
    names = ControlNames(network)
    with pytest.raises(UserError, match="expected a checkpoint of CtrLoRA"):
        from_ctrlora({"model.x": torch.zeros(1)}, names, "file")
    with pytest.raises(UserError, match="1 weights are missing"):
        fewer = {k: v for k, v in state.items() if k != "control_model.zero_convs.0.0.weight"}
        from_ctrlora(fewer, names, "file", {"canny": "canny"})
    with pytest.raises(UserError, match=r"unknown to a Meta ControlNet, the first is control_model[.]extra"):
        from_ctrlora({**state, "control_model.extra": torch.zeros(1)}, names, "file")
    with pytest.raises(UserError, match="not those of any of its LoRAs"):
        alias = "control_model.time_embed.0.lora_layer.up.weight"
        from_ctrlora({**state, alias: state[alias] + 1}, names, "file")
    with pytest.raises(UserError, match="hint block"):
        from_ctrlora({**state, "control_model.input_hint_block.0.weight": torch.zeros(1)}, names, "file")
    with pytest.raises(UserError, match="has no LoRA 'hed'; it has: canny, DWpose"):
        from_ctrlora(state, names, "file", {"hed": "canny"})
    with pytest.raises(UserError, match="needs its base file"):
        from_ctrlora(to_lora_file(ours, names, "canny"), names, "file", {"": "canny"})
    with pytest.raises(UserError, match="one LoRA without a name"):
        from_ctrlora(to_lora_file(ours, names, "canny"), names, "file")


@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize(("version", "mid_block"), [("v2", True), ("v3", False)])
def test_motion_unet_equals_animatediffs(version, mid_block, precision):
    answers, layout, _ = parity.read(f"animatediff_{version}")
    theirs = parity.weights({n: s for n, s in layout.items() if not n.endswith("pos_encoder.pe")})
    unet = parity.small_unet(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")
    )
    motion = {n: w for n, w in theirs.items() if ".motion_modules." in n}
    unet.load_state_dict({n: w for n, w in theirs.items() if n not in motion})
    adapter = new_motion_adapter(unet, 32, mid_block).double()
    tables = {n: positions(*s[1:]) for n, s in layout.items() if n.endswith("pos_encoder.pe")}
    copy_strict(dict(adapter.named_parameters()), from_animatediff(motion | tables, 32, "fixture"), "fixture")
    back = to_animatediff(adapter)
    assert back.keys() == {n for n in layout if ".motion_modules." in n}
    assert all(torch.equal(back[n], motion[n]) for n in motion)
    fresh = new_motion_adapter(unet, 32, mid_block)
    tensors, unet, adapter, fresh = at(precision, answers, unet, adapter, fresh)
    x, answer = rearrange(tensors["x"], "b c f h w -> b f c h w"), rearrange(answers["sample"], "b c f h w -> b f c h w")
    with torch.no_grad():
        unmoved = predict_clip(unet, join_motion(unet, fresh), x, tensors["t"], tensors["context"], None)
        ours = predict_clip(unet, join_motion(unet, adapter), x, tensors["t"], tensors["context"], None)
    assert relative(unmoved, answer) > 0.01, "the motion module must count"
    assert relative(ours, answer) <= CLOSE[precision]
