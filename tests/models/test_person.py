"""A person's LoRA on the base: beside the control network in training, in the base's weights everywhere else."""

import dataclasses
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, WanVACETransformer3DModel

from meta_animator.checkpoints.files import Checkpoint, list_checkpoints, read_weights, save_checkpoint
from meta_animator.checkpoints.loading import load_control
from meta_animator.checkpoints.metadata import check_parts, metadata_of
from meta_animator.conversion.lora import extract
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.models import person
from meta_animator.models.assembly import Assembly, part_of
from meta_animator.models.backbones import load_backbone
from meta_animator.models.person import PersonLoRA, fold_person
from meta_animator.settings import ExtractConfig, ModelConfig
from meta_animator.stages.checks import check_run
from meta_animator.stages.sample import load_animator, sample
from meta_animator.stages.train import train
from meta_animator.weights import under
from tests import tiny
from tests.tiny_wan import wan_model

RANK = 3


def learned(backbone, seed=5):
    """A LoRA on it that changes something."""
    lora = PersonLoRA(backbone, RANK)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in lora.named_parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return lora


def inputs(backbone, family):
    g = torch.Generator().manual_seed(1)
    shape = (1, 1, 4, 16, 16) if family == "sd" else (1, 3, 4, 8, 8)
    x_t, context = torch.randn(shape, generator=g), torch.randn(1, *backbone.text_shape, generator=g)
    return x_t, torch.tensor([400]), context


@pytest.fixture(params=["sd", "wan"])
def model(request, tiny_base, tiny_wan):
    return ModelConfig(base=str(tiny_base)) if request.param == "sd" else wan_model(tiny_wan)


def test_a_fresh_one_changes_nothing_and_a_learned_one_is_the_folded_one(model):
    plain, beside, folded = (load_backbone(model) for _ in range(3))
    family, weights = model.backbone, plain.named_weights()
    given = inputs(plain, family)
    with torch.no_grad():
        wanted = plain.predict(*given)
        lora = PersonLoRA(beside, RANK)
        torch.testing.assert_close(beside.predict(*given), wanted, rtol=0, atol=0)
    assert beside.fingerprint() == plain.fingerprint()
    own = beside.named_weights()
    assert own.keys() == weights.keys() and all(torch.equal(own[n], w) for n, w in weights.items())
    layers = [m for m in plain.network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(list(lora.named_parameters())) == 2 * len(layers) > 20

    beside = load_backbone(model)
    state = dict(learned(beside).named_parameters())
    fold_person(folded, state, "run")
    with torch.no_grad():
        changed, again = beside.predict(*given), folded.predict(*given)
    assert (changed - wanted).abs().max() > 1e-2
    torch.testing.assert_close(again, changed, rtol=1e-4, atol=1e-5)
    assert folded.fingerprint() == plain.fingerprint() and list(folded.base_loras.values()) == [1.0]
    again = folded.named_weights()
    assert all(torch.equal(again[n], w) for n, w in weights.items())  # of the base without it


def test_one_weight_after_the_other_is_changed(model, monkeypatch):
    """All that a LoRA adds, in float64, is larger than a base."""
    alive, most, made_by = weakref.WeakSet(), [], person.added

    def added(down, up):
        most.append(len(alive))
        made = made_by(down, up)
        alive.add(made)
        return made

    state = dict(learned(load_backbone(model)).named_parameters())
    monkeypatch.setattr(person, "added", added)
    fold_person(load_backbone(model), state, "run")
    assert len(most) == len(state) // 2 and max(most) <= 1


def test_what_does_not_fit_is_one_line_and_changes_nothing(model):
    backbone, other = load_backbone(model), load_backbone(model)
    state = dict(learned(other).named_parameters())
    before = {n: w.clone() for n, w in backbone.network.named_parameters()}
    last = max(state)
    for damaged in ({n: w for n, w in state.items() if n != last}, state | {last: state[last][:, :1]}):
        with pytest.raises(UserError, match=r"^run: its LoRA on the base does not fit .* is it damaged\?$"):
            fold_person(backbone, damaged, "run")
    assert all(torch.equal(before[n], w) for n, w in backbone.network.named_parameters()) and not backbone.base_loras


# in the stages


NO_FACE = {"model__face": "", "loss__face_weight": 0}
PERSON = {"model__person_lora_rank": RANK, "train__max_steps": 3, "train__checkpoint_every": 3, **NO_FACE}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, tiny_base, puppet_data, prepared):
    """The config of a stage 2 that ran, with a person's LoRA."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    config = tiny.make_config(
        folder, tiny_base, puppet_data, "reference", **PERSON, model__control_from=prepared, train__person_learning_rate=3e-2,
        train__ema_decay=0.5,
    )  # fmt: skip
    train(config)
    return config


def test_it_learns_beside_the_control_network_at_a_rate_of_its_own(tuned, make_config, prepared):
    metadata, weights = read_weights(tuned.output_dir)
    person = under(weights, "person.")
    assert metadata["person_lora_rank"] == RANK
    assert {part_of(n) for n in weights} == {"control", "person", *(f"lora.{t}" for t in tiny.TASKS)}
    assert all(w.abs().max() > 0 for w in person.values())

    def rates(**more):
        stage = tiny.make_stage(make_config("reference", "rates", **PERSON, model__control_from=prepared, **more))[0]
        return {group.name: (group.lr, len(group.parameters)) for group in stage.param_groups()}

    groups = rates(train__person_learning_rate=3e-2)
    assert groups["person"] == (3e-2, len(person)) and groups["control"][0] == 1e-2
    groups = rates(train__lora_learning_rate=4e-2, train__trainable="lora")
    assert groups.keys() == {"lora", "person"} and groups["person"][0] == 4e-2


def test_a_stop_in_between_changes_nothing(tuned, make_config, prepared):
    settings = PERSON | {"model__control_from": prepared, "train__person_learning_rate": 3e-2, "train__ema_decay": 0.5}
    config = make_config("reference", "again", **(settings | {"train__checkpoint_every": 1}))
    train(dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=3)))
    shutil.rmtree(list_checkpoints(Path(config.output_dir))[-1])
    train(config)
    one, two = (read_weights(c.output_dir)[1] for c in (tuned, config))
    assert one.keys() == two.keys() and all(torch.equal(two[n], w) for n, w in one.items())


def test_stage_3_finds_it_in_the_checkpoint_and_extracted_folders_do_as_well(tuned, make_config, puppet_data, tmp_path, capsys):
    settings = {
        "sample__reference": puppet_data / "person", "sample__driving": puppet_data / "train", "sample__num_inference_steps": 3,
        "sample__max_frames": 2, "model__tasks": "[dwpose]",
    }  # fmt: skip
    folders = tiny.extract(make_config("extract", "loras", extract__checkpoint=tuned.output_dir))
    loras = tmp_path / "loras"
    assert loras / "person" in folders and "folded into the base" not in (loras / "person" / "README.md").read_text()
    assert 'base_loras={f"{folder}/person": 1.0}' in (loras / "README.md").read_text()

    def shown(name, **more):
        sample(make_config("sample", name, **settings, **more))
        first = min((tmp_path / name / "frames").glob("*.png"))
        return read_image(first).astype(int), capsys.readouterr().out

    (whole, said), extracted = shown("whole", model__control_from=tuned.output_dir), {
        "model__control_from": loras / "controlnet", "sample__loras": {str(loras / "dwpose"): 1.0},
    }  # fmt: skip
    parts, without = shown("parts", **extracted, model__base_loras={str(loras / "person"): 1.0}), shown("without", **extracted)
    assert "base_loras" not in said + parts[1] and "was trained with model.base_loras person " in without[1]
    assert abs(parts[0] - whole).max() <= 1 < abs(without[0] - whole).max()
    kohya = shown("kohya", **extracted, model__base_loras={str(loras / "person" / "comfyui_lora.safetensors"): 1.0})
    assert abs(kohya[0] - whole).max() <= 1


def test_diffusers_loads_the_extracted_folder(tuned, make_config, tiny_base):
    tiny.extract(make_config("extract", "loras", extract__checkpoint=tuned.output_dir, extract__tasks="[dwpose]"))
    folder = Path(make_config("extract", "loras").output_dir) / "person"
    backbone = load_backbone(tuned.model)
    pipe = StableDiffusionPipeline(
        vae=backbone.vae, text_encoder=backbone.text_encoder, tokenizer=backbone.tokenizer, unet=backbone.unet, scheduler=None,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    given = inputs(backbone, "sd")
    pipe.load_lora_weights(folder)
    own = load_animator(make_config("sample", model__control_from=tuned.output_dir)).models.backbone
    with torch.no_grad():
        torch.testing.assert_close(backbone.predict(*given), own.predict(*given), rtol=1e-4, atol=1e-5)


def test_a_merged_controlnet_has_the_persons_lora_beside_it(tuned, make_config):
    folders = tiny.extract(make_config("extract", "merged", extract__checkpoint=tuned.output_dir, extract__merge="dwpose"))
    assert [folder.name for folder in folders] == ["controlnet", "person"]
    assert "`person`, beside it" in (folders[0] / "README.md").read_text()


def test_who_goes_on_with_it_says_its_rank(tuned, make_config, prepared):
    go_on = {"model__control_from": tuned.output_dir}
    with pytest.raises(UserError, match=rf"has a LoRA of rank {RANK} on the base; set model.person_lora_rank={RANK}$"):
        check_run(make_config("reference", "none", **NO_FACE, **go_on))
    with pytest.raises(UserError, match=r"is of stage 2, with one person's LoRA on the base; name a run of stage 0$"):
        check_run(make_config("control", "stage0", **NO_FACE, **go_on))
    stage = tiny.make_stage(make_config("reference", "more", **(PERSON | go_on)))[0]
    state, weights = stage.trainable_state(), read_weights(tuned.output_dir)[1]
    assert all(torch.equal(state[n], w) for n, w in weights.items() if n.startswith("person."))
    metadata, weights = read_weights(tuned.output_dir)
    with pytest.raises(UserError, match="tells of a person's LoRA on the base, but its weights hold none"):
        check_parts(metadata, [n for n in weights if not n.startswith("person.")], "run")


def test_half_precision_trains_it_in_float32(make_config, prepared):
    losses, gradients = [], []
    for name in ("no", "bf16"):
        settings = PERSON | {"model__control_from": prepared, "train__mixed_precision": name, "data__cache_latents": False}
        stage, samples, _ = tiny.make_stage(make_config("reference", name, **settings))
        person = dict(stage.models.person.named_parameters())
        with torch.no_grad():
            for k, weight in enumerate(person.values()):
                weight.copy_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k)))
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"), stage.rounding_once():
            loss, _ = stage(tiny.first_batch(samples, "dwpose"), 0)
            loss.backward()
        assert stage.models.backbone.unet.conv_in.base_layer.weight.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
        assert {w.dtype for w in person.values()} == {torch.float32}
        losses.append(loss.item())
        gradients.append(torch.cat([weight.grad.flatten() for weight in person.values()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.98


# Wan


def test_a_wan_pipeline_has_it_in_its_transformer(tiny_wan, tmp_path):
    model = wan_model(tiny_wan)
    torch.manual_seed(3)
    models = Assembly(dataclasses.replace(model, person_lora_rank=RANK), load_backbone(model), with_person=True)
    with torch.no_grad():
        for _, weight in models.person.named_parameters():
            weight.normal_(std=0.1)
    metadata = {"stage": "reference", "person": "", "prompt": ""} | metadata_of(models)
    save_checkpoint(tmp_path / "run", Checkpoint(step=1, metadata=metadata, model=models.state()), keep=1)
    fresh = Assembly(model, load_backbone(model))
    load_control(fresh, *read_weights(tmp_path / "run"), "run")
    (folder,) = extract(ExtractConfig(checkpoint=str(tmp_path / "run"), merge="depth"), model, tmp_path / "out")
    whole = WanVACETransformer3DModel.from_pretrained(folder / "transformer")
    own, plain = dict(fresh.backbone.network.named_parameters()), dict(load_backbone(model).network.named_parameters())
    name = "blocks.0.attn2.to_q.weight"
    torch.testing.assert_close(whole.state_dict()[name], own[name], rtol=0, atol=1e-6)
    assert not torch.allclose(own[name], plain[name])
