"""Base models in one file: the same network as from a folder, and one line for whatever is wrong."""

import pickle
import types

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from meta_animator.conversion.exchange import to_single_file
from meta_animator.errors import UserError
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.ldm import TEXT, UNET, VAE
from meta_animator.models.backbones.single_file import load_vae
from meta_animator.settings import ModelConfig
from meta_animator.torch_files import read_state
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.make_base(tmp_path_factory.mktemp("single") / "base")


@pytest.fixture(scope="module")
def state(base):
    """The tiny base in the original layout, with the extras that published files have."""
    unet, vae = UNet2DConditionModel.from_pretrained(base / "unet"), AutoencoderKL.from_pretrained(base / "vae")
    text = CLIPTextModel.from_pretrained(base / "text_encoder")
    state = to_single_file(unet, vae, text)
    state[f"{TEXT}text_model.embeddings.position_ids"] = torch.arange(4)[None]
    state |= {"betas": torch.zeros(3), "model_ema.decay": torch.tensor(0.9), "first_stage_model.loss.logvar": torch.zeros(())}
    return {n: w.clone() for n, w in state.items()}


def load(base, file, **changes):
    facts = {"architecture": str(base), "tokenizer": str(base / "tokenizer")} | changes
    return load_backbone(ModelConfig(base=str(file), **facts))


def answer(backbone):
    x = torch.randn(1, backbone.unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    with torch.no_grad():
        context = backbone.embed_text(["a person"])
        return backbone.predict(x, torch.tensor([7]), context), backbone.decode(backbone.encode(pixels))


def write(file, state, nested: bool = False):
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if nested else state, file)
    return file


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_a_file_is_the_same_model_as_its_folder(base, state, tmp_path, name):
    ours = load(base, write(tmp_path / name, state, nested=name.endswith("ckpt")))
    folder = load_backbone(ModelConfig(base=str(base)))
    assert ours.fingerprint() == folder.fingerprint()
    for a, b in zip(answer(ours), answer(folder), strict=True):
        assert torch.equal(a, b)


def test_half_precision_becomes_float32(base, state, tmp_path):
    half = {n: w.half() if w.is_floating_point() else w for n, w in state.items()}
    ours = load(base, write(tmp_path / "half.safetensors", half))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


@pytest.mark.parametrize("form", ["folder", "file", "diffusers file"])
def test_a_vae_of_its_own(base, state, tmp_path, form):
    bare = write(tmp_path / "bare.safetensors", {n: w for n, w in state.items() if not n.startswith(VAE)})
    with pytest.raises(UserError, match=r"holds no VAE; name one: model\.vae="):
        load(base, bare)
    if form == "folder":
        vae = base / "vae"
    elif form == "file":
        inside = {n.removeprefix(VAE): w for n, w in state.items() if n.startswith(VAE)}
        vae = write(tmp_path / "vae.ckpt", inside, nested=True)
    else:
        vae = base / "vae" / "diffusion_pytorch_model.safetensors"
    ours, folder = load(base, bare, vae=str(vae)), load_backbone(ModelConfig(base=str(base)))
    assert torch.equal(answer(ours)[1], answer(folder)[1])


def test_what_is_wrong_is_named(base, state, tmp_path):
    def refused(changes: dict, match: str, **facts):
        changed = {n: w for n, w in {**state, **changes}.items() if w is not None}
        with pytest.raises(UserError, match=match):
            load(base, write(tmp_path / "changed.safetensors", changed), **facts)

    refused({"extra.weight": torch.zeros(1)}, "1 weights are unknown, the first is extra.weight")
    refused({UNET + "time_embed.0.bias": None}, "1 weights are missing, the first is time_embed.0.bias")
    refused({UNET + "time_embed.0.bias": torch.zeros(2)}, r"time_embed.0.bias has shape \(2,\)")
    refused({"cond_stage_model.model.ln_final.weight": torch.zeros(1)}, "text encoder is OpenCLIP's")
    refused({}, "a single file does not say what it is", architecture="")
    refused({}, "tokenizer '.*nowhere': no such folder here", tokenizer=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such file or folder here, and not to be had from the hub"):
        load_backbone(ModelConfig(base="nobody/nothing"))
    for path in ("models/sd15/v1-5.safetensors", "sd15.ckpt", "/models/sd15", "../sd15", "models\\sd15"):
        with pytest.raises(UserError, match="no such file or folder here; expected one, or a name on the hub"):
            load_backbone(ModelConfig(base=path))
    (tmp_path / "bare" / "unet").mkdir(parents=True)
    vae = write(tmp_path / "vae.ckpt", {n.removeprefix(VAE): w for n, w in state.items() if n.startswith(VAE)})
    with pytest.raises(UserError, match=r"bare/vae/config\.json: no such file"):
        load_vae(str(vae), tmp_path / "bare")


@pytest.mark.parametrize(
    "name",
    [
        "cond_stage_model.logit_scale", "cond_stage_model.transformer.text_projection.weight", "denoiser.sigmas",
        "model_ema.diffusion_modelinput_blocks00weight", "control_model.input_hint_block.0.weight", "alphas_cumprod",
    ],
)  # fmt: skip
def test_what_merged_files_hold_besides_is_left_aside_with_a_note(base, state, tmp_path, capsys, name):
    plain = {n: w for n, w in state.items() if not n.startswith(("model_ema", "first_stage_model.loss"))}
    ours = load(base, write(tmp_path / "merged.safetensors", plain | {name: torch.zeros(2)}))
    assert ours.fingerprint() == load_backbone(ModelConfig(base=str(base))).fingerprint()
    notes = [line for line in capsys.readouterr().out.splitlines() if "left aside" in line]
    assert notes == ([] if name == "alphas_cumprod" else [notes[0]]) and all(line.endswith(name) for line in notes)


class Callback:
    """Stands for an object of PyTorch Lightning's inside a checkpoint."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_a_pickle_with_objects_gives_its_tensors_and_runs_nothing(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2)}, "callbacks": {"x": Callback()}}, tmp_path / "lightning.ckpt")
    assert torch.equal(read_state(tmp_path / "lightning.ckpt")["w"], torch.ones(2))


def test_files_that_hold_no_weights(tmp_path):
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError):
        read_state(tmp_path / "list.pt")
    torch.save({"w": torch.randn(50_000)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "old.ckpt").read_bytes()
    torch.save({"w": torch.randn(50_000)}, tmp_path / "new.ckpt")
    zipped = (tmp_path / "new.ckpt").read_bytes()
    for cut in (whole[:1], whole[:20], whole[:200], whole[: len(whole) // 2], whole[100:], zipped[:20_000], zipped[:50]):
        (tmp_path / "cut.ckpt").write_bytes(cut)
        with pytest.raises(UserError, match="not a whole PyTorch file"):
            read_state(tmp_path / "cut.ckpt")
    torch.save({"a": types.SimpleNamespace()}, tmp_path / "empty.pt")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_state(tmp_path / "empty.pt")
    with pytest.raises(UserError, match="no such file"):
        read_state(tmp_path / "missing.ckpt")
    (tmp_path / "weights.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"expected \.safetensors or one of"):
        read_state(tmp_path / "weights.zip")
