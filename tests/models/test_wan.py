import json
import os
import shutil

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import UMT5EncoderModel

from meta_animator.errors import UserError
from meta_animator.models.backbones import backbone_without_weights, load_backbone
from meta_animator.models.precision import halve
from meta_animator.models.vace import PRECISE
from tests.tiny import randomise_zeros
from tests.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, make_wan, wan_model

FRAMES, SIDE = 2, 4  # latent


@pytest.fixture(scope="module")
def t2v(tmp_path_factory):
    return make_wan(tmp_path_factory.mktemp("wan") / "t2v", vace=False)


def randomise_loras(control):
    for layer in control.bank.layers.values():
        randomise_zeros(layer.up)


def inputs(batch=2, dtype=torch.float64, seed=0):
    """(x_t, t, context, condition latents)"""
    g = torch.Generator().manual_seed(seed)
    x_t, shown = torch.randn(2, batch, FRAMES, LATENT_CHANNELS, SIDE, SIDE, generator=g, dtype=dtype)
    return x_t, torch.arange(batch) * 400.0 + 100, torch.randn(batch, 5, TEXT_WIDTH, generator=g, dtype=dtype), shown


def theirs(transformer, x_t, t, context, control_input, scale=1.0):
    """diffusers' prediction (b f c h w)."""
    swap = lambda x: x.transpose(1, 2)  # noqa: E731
    scales = x_t.new_full((len(transformer.config.vace_layers),), scale)
    return swap(transformer(
        swap(x_t), t, context, control_hidden_states=swap(control_input), control_hidden_states_scale=scales, return_dict=False
    )[0])  # fmt: skip


def double(folder, **changes):
    """(backbone, control network) in float64"""
    torch.manual_seed(0)
    backbone = load_backbone(wan_model(folder, **changes)).double()
    return backbone, backbone.make_control(["dwpose", "depth"], 2).double()


@torch.no_grad()
def test_prediction_is_that_of_diffusers_with_and_without_a_lora(tiny_wan):
    backbone, control = double(tiny_wan)
    network = WanVACETransformer3DModel.from_pretrained(tiny_wan / "transformer").double()
    x_t, t, context, shown = inputs()
    condition = backbone.control_input(shown)
    ours = backbone.predict(x_t, t, context, control(condition, t, context) * 0.7)
    torch.testing.assert_close(ours, theirs(network, x_t, t, context, condition, 0.7), rtol=0, atol=1e-8)

    randomise_loras(control)
    control.bank.use("depth")
    adapted = backbone.predict(x_t, t, context, control(condition, t, context))
    assert (adapted - ours).abs().max() > 1e-3
    for name, layer in control.bank.layers.items():
        network.get_submodule(name).weight += layer.up["depth"] @ layer.down["depth"]
    torch.testing.assert_close(adapted, theirs(network, x_t, t, context, condition), rtol=0, atol=1e-8)


@torch.no_grad()
def test_padding_counts_as_all_of_it(tiny_wan):
    """Handed over as one token on a CPU; prompts of two lengths, and one that is empty."""
    backbone, control = double(tiny_wan)
    network = WanVACETransformer3DModel.from_pretrained(tiny_wan / "transformer").double()
    x_t, t, context, shown = inputs(batch=3)
    padded = torch.cat([context, context.new_zeros(3, 20, TEXT_WIDTH)], dim=1)
    padded[1, 2:] = padded[2] = 0
    condition = backbone.control_input(shown)
    for text in (padded, padded[2:].expand(3, -1, -1), context):
        ours = backbone.predict(x_t, t, text, control(condition, t, text))
        torch.testing.assert_close(ours, theirs(network, x_t, t, text, condition), rtol=0, atol=1e-8)
    assert [backbone.padding.shorten(text).shape[1] for text in (padded, padded[1:], padded[2:])] == [17, 17, 1]


@torch.no_grad()
def test_conditions_add_up_each_under_its_own_lora(tiny_wan):
    """The last one run does not decide for the others, as it would if the bank were asked when the branch runs."""
    backbone, control = double(tiny_wan)
    randomise_loras(control)
    x_t, t, context, shown = inputs()
    parts = {}
    for task, latents in (("dwpose", shown), ("depth", -shown)):
        control.bank.use(task)
        parts[task] = control(backbone.control_input(latents), t, context)
    control.bank.use(None)
    hints = lambda output: torch.stack(output.hints(*tokens))  # noqa: E731
    tokens = _tokens(backbone, x_t, t, context)
    together, alone = hints(parts["dwpose"] * 0.5 + parts["depth"]), {}
    for task, latents in (("dwpose", shown), ("depth", -shown)):
        control.bank.use(task)
        alone[task] = torch.stack(control.hints(backbone.control_input(latents), *tokens))
    torch.testing.assert_close(together, 0.5 * alone["dwpose"] + alone["depth"])
    control.bank.use("dwpose")
    under_another = torch.stack(control.hints(backbone.control_input(-shown), *tokens))
    assert (under_another - alone["depth"]).abs().max() > 1e-3


def _tokens(backbone, x_t, t, context):
    """What the branch's blocks are called with beside their input."""
    net, x = backbone.transformer, x_t.transpose(1, 2)
    _, modulation, text, _ = net.condition_embedder(t, context, None)
    return net.patch_embedding(x).flatten(2).transpose(1, 2), text, modulation.unflatten(1, (6, -1)), net.rope(x)


@torch.no_grad()
def test_a_fresh_branch_leaves_the_output_of_a_t2v_base_unchanged_and_learns(t2v):
    backbone, control = double(t2v)
    network = WanTransformer3DModel.from_pretrained(t2v / "transformer").double()
    x_t, t, context, shown = inputs()
    plain = network(x_t.transpose(1, 2), t, context, return_dict=False)[0].transpose(1, 2)
    for task in (None, "dwpose"):
        control.bank.use(task)
        controlled = backbone.predict(x_t, t, context, control(backbone.control_input(shown), t, context))
        assert torch.equal(controlled, backbone.predict(x_t, t, context))
    torch.testing.assert_close(controlled, plain, rtol=0, atol=1e-8)
    assert backbone.layers == [0, 2]
    condition = control.net.vace_patch_embedding.weight[:, LATENT_CHANNELS : 2 * LATENT_CHANNELS]
    assert torch.equal(condition, backbone.transformer.patch_embedding.weight)
    assert not control.net.vace_patch_embedding.weight[:, :LATENT_CHANNELS].any()
    with torch.enable_grad():
        backbone.predict(x_t, t, context, control(backbone.control_input(shown), t, context)).square().sum().backward()
    assert control.net.vace_blocks[1].proj_out.base.weight.grad.abs().max() > 0


def test_every_lora_matrix_gets_a_gradient_with_and_without_checkpointing(tiny_wan):
    grads = []
    for checkpointing in (False, True):
        backbone, control = double(tiny_wan)
        randomise_loras(control)
        if checkpointing:
            backbone.enable_gradient_checkpointing()
            control.enable_gradient_checkpointing()
        x_t, t, context, shown = inputs()
        control.bank.use("depth")
        backbone.predict(x_t, t, context, control(backbone.control_input(shown), t, context)).square().sum().backward()
        grads.append([p.grad for p in control.bank.parameters("depth")])
        assert all(p.grad is None for p in control.bank.parameters("dwpose"))
    assert len(grads[0]) == 2 * 23 and all(grad.abs().max() > 0 for grad in grads[0])
    for plain, again in zip(*grads, strict=True):
        assert torch.equal(plain, again)


def test_checkpointing_keeps_each_condition_under_its_own_lora(tiny_wan):
    """Blocks are computed again on the way back, when another LoRA is active."""
    grads = []
    for checkpointing in (False, True):
        backbone, control = double(tiny_wan)
        randomise_loras(control)
        if checkpointing:
            control.enable_gradient_checkpointing()
        x_t, t, context, shown = inputs()
        terms = []
        for task, latents in (("dwpose", shown), ("depth", -shown)):
            control.bank.use(task)
            terms.append(control(backbone.control_input(latents), t, context))
        backbone.predict(x_t, t, context, terms[0] + terms[1]).square().sum().backward()
        grads.append([p.grad for task in ("dwpose", "depth") for p in control.bank.parameters(task)])
    assert all(torch.equal(plain, again) for plain, again in zip(*grads, strict=True))


def test_the_lora_on_the_base_learns_where_sharding_has_made_other_parameters(tiny_wan):
    backbone = load_backbone(wan_model(tiny_wan, motion_lora_rank=2))
    tree = backbone.with_motion(8)
    for layer in tree.bank.layers.values():
        for part in (layer.down, layer.up):
            part["motion"] = torch.nn.Parameter(part["motion"].detach().clone() + 0.1)
    x_t, t, context, _ = inputs(dtype=torch.float32)
    backbone.predict(x_t, t, context).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tree.bank.parameters("motion"))


@torch.no_grad()
def test_a_released_encoder_is_no_module_and_still_encodes(tiny_wan):
    """So that it stays on the CPU when the rest moves to a GPU."""
    backbone, clip = load_backbone(wan_model(tiny_wan)), torch.rand(1, 5, 3, 32, 32)
    latents, names = backbone.encode(clip), (backbone.fingerprint(), backbone.encoder_fingerprint())
    grey = backbone.control_input(latents)
    before = sum(p.numel() for p in backbone.parameters())
    backbone._grey.clear()
    backbone.release(text=True, encoder=True)
    backbone.release(text=True, encoder=True)
    gone = sum(p.numel() for part in backbone.encoders for p in part.parameters())
    assert sum(p.numel() for p in backbone.parameters()) == before - gone < before
    assert torch.equal(backbone.encode(clip), latents) and torch.equal(backbone.control_input(latents), grey)
    assert (backbone.fingerprint(), backbone.encoder_fingerprint()) == names
    assert not any("encoder" in name for name, _ in backbone.named_parameters())


@torch.no_grad()
def test_latents_and_pixels_are_those_of_diffusers(tiny_wan):
    """Encoded and normalised as in WanVACEPipeline; a photo is a clip of one frame."""
    backbone, _ = double(tiny_wan)
    vae = AutoencoderKLWan.from_pretrained(tiny_wan / "vae").double()
    clips = torch.rand(2, 13, 3, 32, 32, dtype=torch.float64) * 2 - 1
    mean, std = (torch.tensor(v).double().view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    raw = vae.encode(clips.transpose(1, 2)).latent_dist.mode()
    latents = backbone.encode(clips)
    torch.testing.assert_close(latents, ((raw - mean) / std).transpose(1, 2), rtol=0, atol=1e-7)
    assert latents.shape == (2, 4, LATENT_CHANNELS, 4, 4)
    decoded = backbone.decode(latents)
    torch.testing.assert_close(decoded.clamp(-1, 1), vae.decode(raw).sample.transpose(1, 2), rtol=0, atol=1e-6)
    photo = backbone.encode(clips[:, :1])
    torch.testing.assert_close(photo, latents[:, :1], rtol=0, atol=1e-12)  # causal: the first latent is the first frame's


def test_a_long_clip_comes_to_the_encoder_in_parts(tiny_wan):
    backbone, _ = double(tiny_wan)
    seen = []
    backbone.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2]))
    backbone.encode(torch.zeros(1, 13, 3, 32, 32))
    assert seen == [1, 4, 4, 4]


def test_latent_frames_of_a_clip_alone_are_decoded_as_within_it(tiny_wan):
    backbone, _ = double(tiny_wan)
    latents = torch.randn(1, 4, LATENT_CHANNELS, 4, 4, dtype=torch.float64, requires_grad=True)
    whole = backbone.decode(latents).detach()
    for part, frames in ((slice(0, 2), slice(0, 5)), (slice(2, 3), slice(5, 9)), (slice(1, 4), slice(1, 13))):
        assert backbone.pixel_frames(part) == frames
        shown = backbone.decode(latents, part)
        torch.testing.assert_close(shown.detach(), whole[:, frames], rtol=0, atol=1e-12)
        (grad,) = torch.autograd.grad(shown.square().sum(), latents)
        reached = [k for k in range(4) if grad[:, k].abs().max() > 0]
        assert reached == list(range(4)[part])  # what came before is context, and gets no gradient
    grads = []
    for checkpointing in (False, True):
        backbone.checkpointing = checkpointing
        grads.append(torch.autograd.grad(backbone.decode(latents).square().sum(), latents)[0])
    assert torch.equal(*grads)


def test_frame_counts_that_do_not_fit_are_refused_with_the_nearest(tiny_wan):
    backbone, _ = double(tiny_wan)
    assert [backbone.latent_frames(n) for n in (1, 5, 17, 81)] == [1, 2, 5, 21]
    with pytest.raises(UserError, match=r"16 frames: .* 4k \+ 1 frames; the nearest are 13 and 17"):
        backbone.latent_frames(16)


@torch.no_grad()
def test_photos_go_before_the_clip(tiny_wan):
    backbone, _ = double(tiny_wan)
    *_, shown = inputs(batch=1)
    photos = torch.randn(1, 2, LATENT_CHANNELS, SIDE, SIDE, dtype=torch.float64)
    made = backbone.control_input(shown, photos)
    c = LATENT_CHANNELS
    assert made.shape == (1, 2 + FRAMES, 2 * c + 64, SIDE, SIDE)
    assert torch.equal(made[:, 0, :c], photos[:, 1]) and torch.equal(made[:, 1, :c], photos[:, 0])
    assert not made[:, :2, c:].any() and (made[:, 2:, 2 * c :] == 1).all()
    grey = backbone.encode(torch.zeros(1, 5, 3, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(made[:, 2:, :c], grey)


@torch.no_grad()
def test_frozen_in_bfloat16_it_answers_nearly_the_same(tiny_wan):
    """What diffusers keeps exact is float32, and so are latents."""
    backbone = load_backbone(wan_model(tiny_wan))
    control = backbone.make_control(["dwpose"], 2)
    x_t, t, context, shown = inputs(dtype=torch.float32)
    condition = backbone.control_input(shown)
    exact, clip = backbone.predict(x_t, t, context, control(condition, t, context)), torch.rand(1, 5, 3, 32, 32)
    latents, name = backbone.encode(clip), backbone.fingerprint()
    halve(control.requires_grad_(False), torch.bfloat16, control.precise)
    backbone.hold_frozen_in(torch.bfloat16)
    answer = backbone.predict(x_t, t, context, control(condition, t, context))
    trained = load_backbone(wan_model(tiny_wan))
    branch = trained.make_control(["dwpose"], 2)  # learns, so that it stays in float32: as previews see it, outside of autocast
    trained.hold_frozen_in(torch.bfloat16)
    assert trained.predict(x_t, t, context, branch(condition, t, context)).isfinite().all()
    assert answer.dtype == torch.float32 and 0 < (answer - exact).norm() < 0.03 * exact.norm()
    kinds = {n: p.dtype for part in (backbone.transformer, control.net) for n, p in part.named_parameters()}
    assert {kind for n, kind in kinds.items() if any(word in n for word in PRECISE)} == {torch.float32}
    assert kinds["blocks.0.attn1.to_q.weight"] == kinds["vace_blocks.0.attn1.to_q.base.weight"] == torch.bfloat16
    assert torch.equal(backbone.encode(clip), latents) and backbone.fingerprint() == name
    assert backbone.decode(latents).dtype == torch.float32


def test_a_model_in_several_files_is_the_same(tiny_wan, tmp_path):
    folder = shutil.copytree(tiny_wan, tmp_path / "sharded")
    for part, kind in (("transformer", WanVACETransformer3DModel), ("text_encoder", UMT5EncoderModel)):
        network = kind.from_pretrained(folder / part)
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()
        network.save_pretrained(folder / part, max_shard_size="10KB")
        assert len(list((folder / part).glob("*-of-*.safetensors"))) > 1
    whole, parts = load_backbone(wan_model(tiny_wan)), load_backbone(wan_model(folder))
    assert whole.fingerprint() == parts.fingerprint()
    torch.testing.assert_close(*(one.embed_text(["Person looks like <id003>", ""]) for one in (whole, parts)))


def test_embeddings_on_disk_are_those_of_the_encoder_that_is_there(tiny_wan, tmp_path):
    """Weights of the same size are other weights; an encoder that is missing is told in one line."""
    folder, prompt = shutil.copytree(tiny_wan, tmp_path / "wan"), ["Person looks like <id003>"]
    cached = {"text_cache": str(tmp_path / "text")}
    first = load_backbone(wan_model(folder, **cached)).embed_text(prompt)
    other = UMT5EncoderModel.from_pretrained(folder / "text_encoder")
    torch.nn.init.normal_(other.encoder.block[0].layer[0].SelfAttention.v.weight)
    other.save_pretrained(folder / "text_encoder")
    changed = load_backbone(wan_model(folder, **cached)).embed_text(prompt)
    assert (changed - first).abs().max() > 1e-3
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(UserError, match=r"text_encoder: no config.json"):
        load_backbone(wan_model(folder, **cached)).embed_text(prompt)


def changed_config(folder, to, part, **changes):
    """A copy of a model's folder, hard links, with other values in one config file."""
    shutil.copytree(folder, to, copy_function=os.link)
    file = to / part
    values = json.loads(file.read_text()) | changes
    file.unlink()
    file.write_text(json.dumps(values))
    return to


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "two experts .* expected one: Wan 2.1"),
        ("model_index.json", {"boundary_ratio": 0.9}, "has two experts"),
        ("transformer/config.json", {"in_channels": 9}, r"9 channels .*image-to-video.* its VAE has 4; expected a text-"),
        ("vae/config.json", {"patch_size": 2, "is_residual": True}, r"its VAE is not Wan 2.1's \(Wan 2.2\?\)"),
        ("vae/config.json", {"temperal_downsample": [False, False, True]}, "expected four frames to a latent"),
        ("transformer/config.json", {"image_dim": 8}, r"or a picture \(image-to-video\?\)"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "is no flow .* expected Wan's scheduler"),
    ],
)  # fmt: skip
def test_other_kinds_of_models_are_refused_in_one_line(tiny_wan, tmp_path, part, changes, said):
    """From their config files, before any weight is read."""
    folder = changed_config(tiny_wan, tmp_path / "other", part, **changes)
    for load in (load_backbone, backbone_without_weights):
        with pytest.raises(UserError, match=said) as found:
            load(wan_model(folder))
        assert "\n" not in str(found.value)


def test_a_base_of_another_architecture_than_planned_is_refused(tiny_wan, t2v):
    with pytest.raises(UserError, match=r"has vace_layers None, model.architecture=.* has \[0, 2\]; name the architecture of"):
        load_backbone(wan_model(t2v, architecture=str(tiny_wan)))
    load_backbone(wan_model(tiny_wan, architecture=str(tiny_wan)))


def test_a_folder_of_another_family_is_refused(tiny_base, tmp_path):
    with pytest.raises(UserError, match=r"transformer/config.json: no such file"):
        load_backbone(wan_model(tiny_base))
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a file; expected a Wan model in diffusers format"):
        load_backbone(wan_model(tmp_path / "file.safetensors"))


def test_grey_is_encoded_where_the_training_computes(tiny_wan, monkeypatch):
    """The encoder goes there for a moment, and leaves again."""
    backbone = load_backbone(wan_model(tiny_wan))
    whole = backbone.control_input(inputs(dtype=torch.float32)[3])
    backbone = load_backbone(wan_model(tiny_wan))
    backbone.release(text=False, encoder=True)
    done, to, encode, place = [], torch.nn.Module.to, type(backbone).encode, torch.device("cpu", 0)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *told: (done.append(told), to(module, *told))[1])
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda module: (done.append("back"), module)[1])
    monkeypatch.setattr(type(backbone), "encode", lambda self, grey: (done.append("encoded"), encode(self, grey))[1])
    for _ in range(2):
        grey = backbone._grey_latents(FRAMES, SIDE, SIDE, place)
    assert done == [(place,), (place,), "encoded", "back", "back"], "once for each size"
    torch.testing.assert_close(grey, whole[:1, :, :LATENT_CHANNELS], rtol=0, atol=0)
