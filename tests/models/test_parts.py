"""Base models whose parts are damaged, do not belong together, or are not of this family: one line each, before training."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from meta_animator.errors import UserError
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ModelConfig
from tests import tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny.make_base(tmp_path_factory.mktemp("parts") / "base")


@pytest.fixture
def base(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "base")


def refused(base, match: str, **settings):
    with pytest.raises(UserError, match=match) as caught:
        load_backbone(ModelConfig(base=str(base), **settings))
    assert "\n" not in str(caught.value)


def change_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_every_weight_is_there_and_known(base, part):
    file = next((base / part).glob("*.safetensors"))
    state = load_file(file)
    first = sorted(state)[0]
    save_file({n: w for n, w in state.items() if n != first}, file, {"format": "pt"})
    refused(base, f"{part}: 1 weights are missing, the first is .*{first.split('.')[-1]}")
    save_file(state | {"extra.weight": torch.zeros(1)}, file, {"format": "pt"})
    refused(base, f"{part}: 1 weights are unknown, the first is extra.weight")
    save_file(state | {first: torch.zeros(7)}, file, {"format": "pt"})
    refused(base, part)
    file.write_bytes(file.read_bytes()[:100])
    refused(base, part)
    file.unlink()
    refused(base, part)


def test_a_vae_of_its_own_is_read_as_strictly(base, whole, tmp_path):
    vae = shutil.copytree(whole / "vae", tmp_path / "vae")
    next(vae.glob("*.safetensors")).unlink()
    refused(base, "model.vae", vae=str(vae))
    refused(base, "model.vae", vae=str(whole / "unet"))
    refused(base, "no config.json", vae=str(whole / "scheduler"))


def test_a_tokenizer_without_words_is_none(base, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(base, "tokenizer .*empty.*set model.tokenizer", tokenizer=str(empty))
    (base / "tokenizer" / "tokenizer.json").unlink()
    refused(base, "tokenizer .*set model.tokenizer")


def test_a_tokenizer_of_another_model_is_noticed(base, capsys):
    refused(base, r"its tokenizer makes \d+ tokens, 48 in a prompt; its text encoder knows", tokenizer="assets/base/tokenizer")
    load_backbone(ModelConfig(base=str(base)))
    assert "note" not in capsys.readouterr().out


def test_unets_of_another_family(base):
    for changes, match in (
        ({"in_channels": 9}, r"reads 9 channels \(inpainting\?\), its VAE has 4"),
        ({"cross_attention_dim": 24}, "listens to 24 numbers per token, its text encoder gives 16"),
        ({"class_embed_type": "timestep"}, "wants more than text"),
    ):
        shutil.rmtree(base / "unet")
        tiny.tiny_unet(**changes).save_pretrained(base / "unet")
        refused(base, match)


def test_schedules_that_are_not_ours(base):
    file = base / "scheduler" / "scheduler_config.json"
    whole = file.read_text()
    for changes, match in (
        ({"beta_schedule": "squaredcos_cap_v2"}, "expected scaled_linear or linear"),
        ({"prediction_type": "sample"}, "expected epsilon or v_prediction"),
        ({"timestep_spacing": "karras"}, "expected leading, trailing, linspace or lcm"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
    ):
        file.write_text(whole)
        change_json(file, **changes)
        refused(base, match)
    file.write_text(whole)
    change_json(file, beta_start=None, beta_schedule=None)
    assert load_backbone(ModelConfig(base=str(base))).scheduler["beta_start"] == 0.00085


def test_names_of_older_versions_are_known(base):
    """As the published Stable Diffusion 1.5 folder has them: attention of an older diffusers, text_model. and position_ids."""
    unattended = AutoencoderKL.load_config(base / "vae")
    attended = AutoencoderKL.from_config({**unattended, "mid_block_add_attention": True})
    attended.save_pretrained(base / "vae")
    file = next((base / "vae").glob("*.safetensors"))
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, weight in load_file(file).items():
        for new, old in older.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        state[name] = weight
    assert any(".query." in name for name in state)
    save_file(state, file, {"format": "pt"})
    text = base / "text_encoder" / "model.safetensors"
    words = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in load_file(text).items()}
    save_file(words | {"text_model.embeddings.position_ids": torch.arange(32)[None]}, text, {"format": "pt"})
    loaded = load_backbone(ModelConfig(base=str(base))).vae.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in attended.state_dict().items())


def test_a_healthy_folder_passes(whole):
    assert isinstance(load_backbone(ModelConfig(base=str(whole))).vae, AutoencoderKL)
