"""People's LoRAs in a Stable Diffusion base."""

import dataclasses

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import save_file

from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint
from meta_animator.models.backbones import load_backbone
from meta_animator.stages.checks import check_run

RANK, ALPHA = 2, 3.0
UNET = ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v")
TEXT = tuple(f"encoder.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v", "out"))


@pytest.fixture
def model(make_config):
    return make_config().model


def names_of(form, module, part):
    """Of the two matrices and of alpha, as a form calls them."""
    if form == "kohya":
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        name = prefix + module.replace(".", "_")
        return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"
    prefix = f"{part}." if part == "unet" else "text_encoder.text_model."
    old = "lora" if part == "unet" else "lora_linear_layer"
    down, up = ("lora_A", "lora_B") if form == "peft" else (f"{old}.down", f"{old}.up")
    return f"{prefix}{module}.{down}.weight", f"{prefix}{module}.{up}.weight", None


def find(backbone, part, module):
    names = dict(getattr(backbone, part).named_modules())
    return next(m for name, m in names.items() if name == module or name.endswith(f"text_model.{module}"))


def write_lora(model, file, form, *, text=True, shape=None):
    """A LoRA in one of the forms; returns {(part, module): what is to be added at weight 1}."""
    backbone, state, added = load_backbone(model), {}, {}
    g = torch.Generator().manual_seed(0)
    for part, module in [*(("unet", name) for name in UNET), *(("text_encoder", name) for name in TEXT if text)]:
        out, width = shape or find(backbone, part, module).weight.shape
        down, up = 0.3 * torch.randn(RANK, width, generator=g), 0.3 * torch.randn(out, RANK, generator=g)
        names = names_of(form, module, part)
        state |= {names[0]: down, names[1]: up} | ({names[2]: torch.tensor(ALPHA)} if names[2] else {})
        added[part, module] = (ALPHA / RANK if names[2] else 1.0) * up @ down
    save_file(state, file)
    return added


@pytest.mark.parametrize("form", ["kohya", "diffusers", "peft"])
def test_every_form_is_added_to_the_weights_and_nothing_else_changes(model, tmp_path, capsys, form):
    added = write_lora(model, tmp_path / "style.safetensors", form)
    plain = load_backbone(model)
    styled = load_backbone(dataclasses.replace(model, base_loras={str(tmp_path / "style.safetensors"): 0.7}))
    assert "(0.7): of its 6 layers, 2 change the UNet, 4 the text encoder\n" in capsys.readouterr().out
    for (part, module), change in added.items():
        before, after = (find(backbone, part, module).weight for backbone in (plain, styled))
        torch.testing.assert_close(after, before + 0.7 * change, rtol=1e-5, atol=1e-6)
    for part in ("unet", "text_encoder"):
        before, after = (dict(getattr(b, part).named_parameters()) for b in (plain, styled))
        assert before.keys() == after.keys(), "no layer of PEFT's is left"
        assert sum(not torch.equal(before[n], after[n]) for n in before) == sum(p == part for p, _ in added)
        assert not any(parameter.requires_grad for parameter in after.values())
    assert fingerprint(styled.named_weights()) == styled.fingerprint() == plain.fingerprint(), "the base's name is without them"
    assert [*styled.base_loras.values()] == [0.7]


@pytest.mark.parametrize("form", ["in the file", "beside it", "bare"])
def test_what_peft_tells_of_alpha_counts(model, tmp_path, form):
    """As diffusers saves a LoRA with its config, as PEFT saves one, and without either."""
    plain, state = load_backbone(model), {}
    g = torch.Generator().manual_seed(0)
    for module in UNET:
        out, width = find(plain, "unet", module).weight.shape
        state |= {f"{module}.lora_A.weight": torch.randn(RANK, width, generator=g)}
        state |= {f"{module}.lora_B.weight": torch.randn(out, RANK, generator=g)}
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(UNET))
    folder = tmp_path / "style"
    folder.mkdir()
    if form == "in the file":
        told = config.to_dict()
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, unet_lora_adapter_metadata=told)
    elif form == "beside it":
        config.save_pretrained(folder)
        save_file({f"base_model.model.{name}": weight for name, weight in state.items()}, folder / "adapter_model.safetensors")
    else:
        save_file(state, folder / "lora.safetensors")
    styled = load_backbone(dataclasses.replace(model, base_loras={str(folder): 1.0}))
    for module in UNET:
        before, after = (find(backbone, "unet", module).weight for backbone in (plain, styled))
        change = state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"]
        torch.testing.assert_close(after, before + (1 if form == "bare" else ALPHA / RANK) * change, rtol=1e-4, atol=1e-5)


def test_several_loras_add_up(model, tmp_path):
    added = write_lora(model, tmp_path / "a.safetensors", "kohya", text=False)
    write_lora(model, tmp_path / "b.safetensors", "kohya", text=False)
    both = {str(tmp_path / f"{name}.safetensors"): weight for name, weight in (("a", 0.5), ("b", 1.0))}
    plain, styled = load_backbone(model), load_backbone(dataclasses.replace(model, base_loras=both))
    for (part, module), change in added.items():
        before, after = (find(backbone, part, module).weight for backbone in (plain, styled))
        torch.testing.assert_close(after, before + 1.5 * change, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"transformer.proj.lora_A.weight": (2, 4), "transformer.proj.lora_B.weight": (4, 2)},
            "fits no layer of base .* its first is",
        ),
        ({"unet.a.hada_w1_a": (2, 4), "unet.a.lora_up.weight": (4, 2)}, "holds 'unet.a.hada_w1_a'; expected a plain LoRA"),
        ({"conv_in.weight": (2, 4)}, "holds no LoRA; expected weights such as lora_unet_"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(model, tmp_path, state, said):
    save_file({name: torch.zeros(shape) for name, shape in state.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=said) as error:
        load_backbone(dataclasses.replace(model, base_loras={str(tmp_path / "lora.safetensors"): 1.0}))
    assert str(error.value).startswith(f"model.base_loras: {tmp_path}") and "\n" not in str(error.value)


def test_a_lora_of_another_size_of_base_is_refused_in_one_line(model, tmp_path):
    write_lora(model, tmp_path / "big.safetensors", "kohya", text=False, shape=(320, 320))
    with pytest.raises(UserError, match=r"does not fit base .*320") as error:
        load_backbone(dataclasses.replace(model, base_loras={str(tmp_path / "big.safetensors"): 1.0}))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_lora_that_is_not_there_is_said_before_anything_is_loaded(make_config):
    with pytest.raises(UserError, match=r"model.base_loras: nowhere.safetensors: no such file or folder"):
        check_run(make_config(model__base_loras="{nowhere.safetensors: 1.0}"))
