"""People's LoRAs folded into a Wan base, in the forms that they come in."""

import json
import weakref

import pytest
import torch
from diffusers import WanVACEPipeline, WanVACETransformer3DModel
from peft import LoraConfig
from safetensors.torch import save_file

from meta_animator.checkpoints.loading import check_base
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone, wan_loras
from meta_animator.models.backbones.wan_names import original_name
from tests.models.test_wan import inputs, theirs
from tests.tiny_wan import wan_model

RANK = 2
ALPHA = {"plain": RANK, "peft": 3, "diffusers": 3, "original": RANK, "kohya": 1, "musubi": 1}


def linears(folder, branch):
    """{name: (out, in)} of a base's linear layers that people train."""
    transformer = WanVACETransformer3DModel.from_pretrained(folder / "transformer")
    wanted = lambda n: n.startswith(("blocks.", "vace_blocks.") if branch else "blocks.")  # noqa: E731
    found = {n: tuple(m.weight.shape) for n, m in transformer.named_modules() if isinstance(m, torch.nn.Linear)}
    return {n: shape for n, shape in found.items() if wanted(n) or n in ("condition_embedder.time_proj", "proj_out")}


def matrices(shapes, seed=0):
    """{name: (down, up)}"""
    g = torch.Generator().manual_seed(seed)
    return {n: (0.3 * torch.randn(RANK, i, generator=g), 0.3 * torch.randn(o, RANK, generator=g)) for n, (o, i) in shapes.items()}


def save_lora(folder, form, lora):
    """Write a LoRA in one of the forms; returns what `model.base_loras` names."""
    folder.mkdir()
    prefix = {"plain": "", "peft": "base_model.model.", "diffusers": "transformer."}.get(form, "diffusion_model.")
    state, halves = {}, ("lora_down", "lora_up") if form in ("kohya", "musubi") else ("lora_A", "lora_B")
    for name, pair in lora.items():
        name = name if form in ("plain", "peft", "diffusers") else original_name(name)
        name = f"lora_unet_{name.replace('.', '_')}" if form == "musubi" else prefix + name
        state |= {f"{name}.{half}.weight": weight for half, weight in zip(halves, pair, strict=True)}
        if form in ("kohya", "musubi"):
            state[f"{name}.alpha"] = torch.tensor(float(ALPHA[form]))
    if form == "diffusers":
        config = LoraConfig(r=RANK, lora_alpha=ALPHA[form], target_modules=list(lora)).to_dict()
        layers = {name.removeprefix("transformer."): weight for name, weight in state.items()}
        WanVACEPipeline.save_lora_weights(folder, layers, transformer_lora_adapter_metadata=config)
    elif form == "peft":
        (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA[form]}))
        save_file(state, folder / "adapter_model.safetensors")
    else:
        save_file(state, folder / "lora.safetensors")
    return folder if form in ("diffusers", "peft") else folder / "lora.safetensors"


@torch.no_grad()
def prediction(folder, **changes):
    torch.manual_seed(0)
    backbone = load_backbone(wan_model(folder, **changes)).double()
    control = backbone.make_control(["dwpose"], 2).double()
    x_t, t, context, shown = inputs()
    condition = backbone.control_input(shown)
    return condition, backbone.predict(x_t, t, context, control(condition, t, context))


@pytest.mark.parametrize("form", ALPHA)
@torch.no_grad()
def test_every_form_of_a_lora_changes_the_prediction_as_folding_it_by_hand_does(tiny_wan, tmp_path, capsys, form):
    lora = matrices(linears(tiny_wan, branch=True))
    path = save_lora(tmp_path / form, form, lora)
    condition, ours = prediction(tiny_wan, base_loras={str(path): 0.7})
    assert f"note: {path} (0.7) changes 32 layers of the base, 23 of its control branch\n" in capsys.readouterr().out
    network = WanVACETransformer3DModel.from_pretrained(tiny_wan / "transformer").double()
    for name, (down, up) in lora.items():
        network.get_submodule(name).weight += 0.7 * ALPHA[form] / RANK * (up.double() @ down.double())
    x_t, t, context, _ = inputs()
    torch.testing.assert_close(ours, theirs(network, x_t, t, context, condition), rtol=0, atol=1e-6)
    assert (ours - prediction(tiny_wan)[1]).abs().max() > 1e-2


@pytest.mark.parametrize("form", ["original", "kohya", "musubi"])
@torch.no_grad()
def test_original_names_are_read_as_diffusers_reads_them(tiny_wan, tmp_path, form):
    lora = {name: pair for name, pair in matrices(linears(tiny_wan, branch=False)).items() if name.startswith("blocks.")}
    path = save_lora(tmp_path / form, form, lora)
    backbone = load_backbone(wan_model(tiny_wan, base_loras={str(path): 1.0}))
    pipeline = WanVACEPipeline.from_pretrained(tiny_wan)
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora()
    for name in lora:
        theirs_ = pipeline.transformer.get_submodule(name).base_layer.weight
        torch.testing.assert_close(backbone.transformer.get_submodule(name).weight, theirs_, rtol=1e-5, atol=1e-6)


def test_differences_of_weights_and_biases_are_added_too(tiny_wan, tmp_path):
    plain = load_backbone(wan_model(tiny_wan)).transformer
    norm, bias = plain.blocks[1].attn1.norm_q.weight, plain.blocks[1].attn2.to_q.bias
    save_file(
        {
            "diffusion_model.blocks.1.self_attn.norm_q.diff": torch.full_like(norm, 0.5),
            "diffusion_model.blocks.1.cross_attn.q.diff_b": torch.full_like(bias, 0.25),
            "diffusion_model.blocks.1.modulation.diff": torch.ones(1, 6, 24),
        },
        tmp_path / "diff.safetensors",
    )  # fmt: skip
    changed = load_backbone(wan_model(tiny_wan, base_loras={str(tmp_path / "diff.safetensors"): 2.0})).transformer
    torch.testing.assert_close(changed.blocks[1].attn1.norm_q.weight, norm + 1)
    torch.testing.assert_close(changed.blocks[1].attn2.to_q.bias, bias + 0.5)
    torch.testing.assert_close(changed.blocks[1].scale_shift_table, plain.blocks[1].scale_shift_table + 2)


def test_a_checkpoint_of_other_base_loras_is_taken_with_a_note(tiny_wan, tmp_path, capsys):
    path = save_lora(tmp_path / "style", "plain", matrices(linears(tiny_wan, branch=False)))
    styled = wan_model(tiny_wan, base_loras={str(path): 0.5})
    with_lora, without = (Assembly(model, load_backbone(model)) for model in (styled, wan_model(tiny_wan)))
    assert with_lora.backbone.fingerprint() == without.backbone.fingerprint()
    capsys.readouterr()
    check_base(with_lora, metadata_of(with_lora), "run")
    assert capsys.readouterr().out == ""
    check_base(without, metadata_of(with_lora), "run")
    said = capsys.readouterr().out
    assert said.startswith("note: run was trained with model.base_loras lora.safetensors ") and "(0.5); this run has none" in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"unet.down.lora_A.weight": (2, 4), "unet.down.lora_B.weight": (4, 2)}, "fits no layer of base .* first is 'unet.down'"),
        (
            {f"blocks.0.self_attn.k.lora_{half}.weight": shape for half, shape in (("A", (2, 99)), ("B", (99, 2)))},
            r"changes a weight \[99, 99\] of blocks.0.attn1.to_k, base .* has \[24, 24\]; it is for another size",
        ),
        ({"blocks.0.attn1.to_q.lora_A.weight": (2, 24)}, "has one of blocks.0.attn1.to_q's two matrices only"),
        ({"blocks.0.attn1.to_q.lokr_w1": (2, 24)}, "holds 'blocks.0.attn1.to_q.lokr_w1', which cannot be folded in"),
    ],
)  # fmt: skip
def test_loras_that_do_not_fit_are_refused_in_one_line(tiny_wan, tmp_path, state, said):
    save_file({name: torch.zeros(shape) for name, shape in state.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=said) as error:
        load_backbone(wan_model(tiny_wan, base_loras={str(tmp_path / "lora.safetensors"): 1.0}))
    assert str(error.value).startswith(f"model.base_loras: {tmp_path}") and "\n" not in str(error.value)


def test_layers_that_the_base_does_not_have_are_said(tiny_wan, tmp_path, capsys):
    lora = matrices({"blocks.0.attn1.to_q": (24, 24), "blocks.0.attn2.add_k_proj": (24, 24)})
    path = save_lora(tmp_path / "i2v", "original", lora)
    load_backbone(wan_model(tiny_wan, base_loras={str(path): 1.0}))
    said = "changes 1 layers of the base, 0 of its control branch; 1 of its layers are not in this base, the first is"
    assert f"{said} 'blocks.0.cross_attn.k_img'" in capsys.readouterr().out


def test_one_weight_after_the_other_is_changed(tiny_wan, tmp_path, monkeypatch):
    """All that a LoRA adds, in float64, is larger than a base."""
    alive, most = weakref.WeakSet(), []

    def product(up, down):
        most.append(len(alive))
        made = up.double() @ down.double()
        alive.add(made)
        return made

    monkeypatch.setattr(wan_loras, "product", product)
    path = save_lora(tmp_path / "plain", "plain", matrices(linears(tiny_wan, branch=True)))
    load_backbone(wan_model(tiny_wan, base_loras={str(path): 1.0}))
    assert len(most) == 55 and max(most) <= 1


def test_a_pickled_lora_is_read_whatever_its_name_says(tiny_wan, tmp_path):
    lora = {f"blocks.0.attn1.to_q.lora_{half}.weight": torch.ones(shape) for half, shape in (("A", (2, 24)), ("B", (24, 2)))}
    torch.save(lora, tmp_path / "lora.safetensors")
    plain, changed = (load_backbone(wan_model(tiny_wan, **how)).transformer.blocks[0].attn1.to_q.weight for how in (
        {}, {"base_loras": {str(tmp_path / "lora.safetensors"): 1.0}}
    ))  # fmt: skip
    torch.testing.assert_close(changed, plain + 2)


def test_what_is_read_over_is_said(tiny_wan, tmp_path, capsys):
    """A run's checkpoint brings the whole control branch."""
    path = save_lora(tmp_path / "plain", "plain", matrices(linears(tiny_wan, branch=True)))
    load_backbone(wan_model(tiny_wan, base_loras={str(path): 1.0}, control_from="runs/anna"))
    assert "23 of its control branch, which are not used: the branch is that of runs/anna\n" in capsys.readouterr().out
