"""The loaded CONTROL_NET answers as our own control network with the task's LoRA switched on; strength, range and windows."""

import shutil
import types

import pytest
import torch

from meta_animator.checkpoints.files import Checkpoint, save_checkpoint
from meta_animator.comfyui.folders import ROOT, about, read_control, stamp
from meta_animator.errors import UserError
from tests.comfyui.conftest import ABOUT, make_network, save_run

CONTEXT = torch.randn(1, 7, 768, generator=torch.Generator().manual_seed(3))


class Sampling:
    """Of a model that samples: timesteps are sigmas here, the inputs are as they come."""

    model_sampling = types.SimpleNamespace(timestep=lambda t: t, calculate_input=lambda t, x: x)


class Vae:
    """Four channels out of three, an eighth as large; real ones halve their range first, and so does this."""

    def encode(self, pictures):
        small = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1) * 2 - 1, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1) / 0.18215

    def spacial_compression_encode(self):
        return 8


def load(folder, task="dwpose", strength=1.0, control=""):
    from meta_animator.comfyui.control import make_control

    return make_control(read_control(str(folder), task, strength, str(control)), str(folder))


def pictures(count=6):
    return torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(1))


def latents_of(images, low=False):
    return Vae().encode((images + 1) / 2 if low else images) * 0.18215


def applied(control, images, strength=1.0, start=0.0, end=1.0, before=None):
    """What the Apply node puts behind the text, ready to run."""
    from meta_animator.comfyui.control import apply

    told = {} if before is None else {"control": before}
    positive, negative = apply([[CONTEXT, told]], [[CONTEXT, told]], control, images, Vae(), strength, start, end)
    made = positive[0][1]["control"]
    assert negative[0][1]["control"] is made
    made.pre_run(Sampling, lambda share: 1000 * (1 - share))
    return made


def answer(control, frames, t=500.0, branches=2, **options):
    cond = {"c_crossattn": CONTEXT.expand(frames * branches, -1, -1)}
    with torch.no_grad():
        return control.get_control(
            torch.randn(frames * branches, 4, 8, 8), torch.full((frames * branches,), t), cond, branches, options
        )


def ours(network, latents, loras, t=500.0, branches=2):
    network.bank.use(loras)
    latents = latents.repeat(branches, 1, 1, 1)
    with torch.no_grad():
        return network(latents, torch.full((len(latents),), t), CONTEXT.expand(len(latents), -1, -1))


def assert_same(made, expected, factor=1.0):
    pairs = list(zip([*made["output"], *made["middle"]], [*expected.down, expected.mid], strict=True))
    assert pairs and max(b.abs().max() for _, b in pairs) > 0.01
    for a, b in pairs:
        torch.testing.assert_close(a, b * factor, atol=1e-4, rtol=1e-4)


KINDS = {
    "run": "run", "checkpoint": "run/checkpoints/step-000007", "extracted": "loras", "lora": "loras/dwpose",
    "controlnet": "loras/controlnet", "merged": "merged", "merged controlnet": "merged/controlnet",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_folder_gives_our_network_with_the_lora_on(world, kind):
    network, folder = world
    control, images = load(folder / KINDS[kind]), pictures(3)
    assert_same(answer(applied(control, images), 3), ours(network, latents_of(images), "dwpose"))


def test_several_levels_of_a_folder_with_a_config(tmp_path):
    network, _ = make_network(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), layers_per_block=1,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
    )  # fmt: skip
    from meta_animator.comfyui.control import Control, make_control
    from meta_animator.comfyui.folders import fold

    weights = fold(network.base_state(), network.bank.state("depth"), 1.0, "x")
    control = make_control(Control(weights=weights, config=dict(network.net.config), condition_range="signed"), "x")
    assert_same(answer(applied(control, pictures(2)), 2), ours(network, latents_of(pictures(2)), "depth"))


def test_the_chosen_task_and_how_much_of_it(world):
    network, folder = world
    images = pictures(2)
    for strength in (0.5, 0.0):
        made = answer(applied(load(folder / "run", "depth", strength), images), 2)
        assert_same(made, ours(network, latents_of(images), {"depth": strength} if strength else None))


def test_a_lora_with_its_control_folder_elsewhere(world, tmp_path):
    network, folder = world
    shutil.copytree(folder / "loras" / "depth", tmp_path / "depth")
    with pytest.raises(UserError, match="name it as control_folder"):
        read_control(str(tmp_path / "depth"), "depth")
    control = load(tmp_path / "depth", "depth", control=folder / "loras" / "controlnet")
    assert_same(answer(applied(control, pictures(2)), 2), ours(network, latents_of(pictures(2)), "depth"))


def test_strength_and_range(world):
    network, folder = world
    control, images = load(folder / "run"), pictures(2)
    made = applied(control, images, strength=0.25, start=0.2, end=0.6)
    assert_same(answer(made, 2), ours(network, latents_of(images), "dwpose"), 0.25)
    assert answer(made, 2, t=900.0) is None and answer(made, 2, t=300.0) is None
    with pytest.raises(UserError, match=r"0\.6 to end_percent 0\.6"):
        applied(control, images, start=0.6, end=0.6)


def test_two_controls_add_up(world):
    network, folder = world
    images = pictures(2)
    first = applied(load(folder / "run", "depth"), images)
    both = answer(applied(load(folder / "run"), images, before=first), 2)
    latents = latents_of(images)
    assert_same(both, ours(network, latents, "dwpose") + ours(network, latents, "depth"))


@pytest.mark.parametrize("who", ["AnimateDiff-Evolved", "ComfyUI"])
def test_a_window_sees_the_pictures_of_its_frames(world, who):
    network, folder = world
    images, window = pictures(6), [4, 5, 1]
    options = {
        "AnimateDiff-Evolved": {"ad_params": {"sub_idxs": window, "full_length": 6, "context_length": 3}},
        "ComfyUI": {"context_window": types.SimpleNamespace(dim=0, index_list=window)},
    }[who]
    made = applied(load(folder / "run"), images)
    assert hasattr(made.copy(), "sub_idxs")  # AnimateDiff-Evolved refuses controls without
    assert_same(answer(made, 3, **options), ours(network, latents_of(images)[window], "dwpose"))
    assert_same(answer(made, 6, ad_params={"sub_idxs": None}), ours(network, latents_of(images), "dwpose"))


def test_one_picture_is_every_frames_and_too_few_are_refused(world):
    network, folder = world
    control = load(folder / "run")
    latents = latents_of(pictures(1)).expand(4, -1, -1, -1)
    assert_same(answer(applied(control, pictures(1)), 4), ours(network, latents, "dwpose"))
    with pytest.raises(UserError, match="2 pictures for a clip of more than 3 frames"):
        answer(applied(control, pictures(2)), 4)
    with pytest.raises(UserError, match="128 x 64 pixels, a clip of 64 x 64"):
        answer(applied(control, torch.rand(1, 64, 128, 3)), 1)
    with pytest.raises(UserError, match="60 x 64 pixels; expected"):
        applied(control, torch.rand(1, 64, 60, 3))


def test_comfyuis_own_apply_with_a_vae(world):
    network, folder = world
    images = pictures(2)
    made = load(folder / "run").copy().set_cond_hint(images.movedim(-1, 1), 0.5, (0.0, 1.0), Vae())
    made.pre_run(Sampling, lambda share: 1000 * (1 - share))
    assert_same(answer(made, 2), ours(network, latents_of(images), "dwpose"), 0.5)


def test_conditions_that_were_trained_in_the_unit_range(world, tmp_path):
    network, _ = world
    save_run(tmp_path, network, condition_range="unit")
    images = pictures(2)
    assert_same(answer(applied(load(tmp_path), images), 2), ours(network, latents_of(images, low=True), "dwpose"))


def test_another_project_s_control_is_refused(world):
    from comfy.controlnet import ControlNet

    with pytest.raises(UserError, match="none of this project's"):
        applied(ControlNet(None), pictures(1))


def test_what_cannot_be_loaded_is_one_line(world, tmp_path):
    folder = world[1]
    (tmp_path / "empty").mkdir()
    vace = {"control.vace_blocks.0.proj_out.weight": torch.zeros(2, 2)}
    for name, model, about_it in (("wan", vace, {"tasks": []}), ("motion", {"motion.x": torch.zeros(1)}, {"tasks": []})):
        save_checkpoint(tmp_path / name, Checkpoint(step=1, metadata=ABOUT | about_it, model=model), keep=1)
    shutil.copytree(folder / "loras", tmp_path / "loras")
    mixed = shutil.copytree(folder / "loras" / "dwpose", tmp_path / "mixed" / "dwpose").parent
    text = (folder / "loras" / "controlnet" / "metadata.json").read_text()
    shutil.copytree(folder / "loras" / "controlnet", mixed / "controlnet")
    digest = about(str(folder / "loras"))["control"].removeprefix("sha256:")
    (mixed / "controlnet" / "metadata.json").write_text(text.replace(digest, "1" * 64))
    for place, task, said in (
        ("", "dwpose", "folder is empty"),
        (tmp_path / "nowhere", "dwpose", "there is no"),
        (tmp_path / "empty", "dwpose", "neither a checkpoint nor a run folder"),
        (tmp_path / "wan", "dwpose", "comfyui_lora.safetensors"),
        (tmp_path / "motion", "dwpose", "holds no Meta ControlNet"),
        (folder / "run", "canny", "has no LoRA 'canny'; it has: dwpose, depth"),
        (tmp_path / "loras", "canny", "has no LoRA 'canny'; it has: depth, dwpose"),
        (folder / "loras" / "dwpose", "depth", "has no LoRA 'depth'; it has: dwpose"),
        (folder / "merged", "depth", "has no LoRA 'depth'; it has: dwpose"),
        (mixed, "dwpose", "belongs to ControlNet"),
        (ROOT / "assets" / "base" / "control", "dwpose", "belongs to a base that ComfyUI does not have"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            load(place, task)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"lora_strength is 1; got 0\.5"):
        read_control(str(folder / "merged"), "dwpose", 0.5)


def test_a_persons_lora_on_the_base_is_said(tmp_path, capsys):
    network, _ = make_network()
    weights = {f"control.{n}": w for n, w in network.base_state().items()}
    weights |= {f"lora.{task}.{n}": w for task in network.bank.tasks for n, w in network.bank.state(task).items()}
    read_control(str(save_run(tmp_path / "plain", network)), "dwpose")
    assert not capsys.readouterr().out
    person = {"person.conv_in.lora_A.weight": torch.ones(2, 4, 3, 3), "person.conv_in.lora_B.weight": torch.ones(320, 2, 1, 1)}
    checkpoint = Checkpoint(step=7, metadata=ABOUT | {"person_lora_rank": 2}, model=weights | person)
    save_checkpoint(tmp_path / "run", checkpoint, keep=1)
    control = read_control(str(tmp_path / "run"), "dwpose")
    assert "has a LoRA on the base too; give the checkpoint person/comfyui_lora.safetensors" in capsys.readouterr().out
    assert not [name for name in control.weights if "person" in name]


def test_a_newer_checkpoint_is_noticed(world, tmp_path):
    network, _ = world
    run = save_run(tmp_path / "run", network)
    before = stamp(str(run))
    assert stamp(str(run)) == before
    save_checkpoint(run, Checkpoint(step=9, metadata=ABOUT, model={"control.x": torch.zeros(1)}), keep=2)
    assert stamp(str(run)) != before
    assert stamp(str(tmp_path / "nowhere")) == (str(tmp_path / "nowhere"), 0)
