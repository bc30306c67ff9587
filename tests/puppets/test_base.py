"""The stages that train the embedded base model, their export, and going on from a base that is there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from meta_animator.checkpoints.files import read_weights
from meta_animator.data.batch import collate
from meta_animator.data.samples import FRAME
from meta_animator.data.tasks import Draw
from meta_animator.errors import UserError
from meta_animator.models.backbones import load_backbone
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.puppets.base import unet
from meta_animator.puppets.base.build import STAGES
from meta_animator.puppets.base.export import export_base
from meta_animator.puppets.base.judge import equal_error_rate
from meta_animator.puppets.base.vae_and_face import FaceStage, as_images, cut_out, disturbed, jittered
from meta_animator.settings import ModelConfig
from meta_animator.stages.train import train
from meta_animator.weights import load_tensors
from tests import tiny


@pytest.fixture
def run(make_config, tiny_base):
    """run(stage, **overrides) -> the folder of a training of three steps."""

    def train_one(stage, name=None, **overrides):
        facts = {"model__architecture": tiny_base, "train__max_steps": 3, "data__prompt": "'{description}'"}
        config = make_config(stage, name or stage, **(facts | overrides))
        train(config, stages=STAGES)
        return Path(config.output_dir)

    return train_one


def weights(kind, folder):
    return kind.from_pretrained(folder, torch_dtype=torch.float32).state_dict()


def test_the_decoder_alone_learns_on(run, tiny_base, tmp_path):
    export_base(run("base_vae", model__base_from=tiny_base, train__trainable="decoder"), tmp_path / "out")
    before, after = (weights(AutoencoderKL, folder / "vae") for folder in (tiny_base, tmp_path / "out"))
    kept = {name for name in before if name.startswith(("encoder.", "quant_conv."))}
    assert all(torch.equal(after[name], before[name].half().float()) for name in kept)
    moved = [name for name in before if name not in kept and not torch.equal(after[name], before[name].half().float())]
    assert len(moved) > len(before) // 4
    old, new = (AutoencoderKL.load_config(folder / "vae")["scaling_factor"] for folder in (tiny_base, tmp_path / "out"))
    assert new == old


def test_a_small_vae_learns_the_latents_of_the_base(run, tiny_base, tmp_path):
    folder, out = run("base_vae", model__base_from=tiny_base, train__trainable="tiny_vae"), tmp_path / "out" / "tiny_vae"
    assert all(name.startswith("networks.tiny_vae.") for name in read_weights(folder)[1]), "the base's VAE is not saved"
    export_base(folder, out.parent)
    still = run("base_vae", name="still", model__base_from=tiny_base, train__trainable="tiny_vae", train__learning_rate=0)
    export_base(still, tmp_path / "still")
    before, after = (weights(AutoencoderTiny, folder) for folder in (tmp_path / "still" / "tiny_vae", out))
    assert before.keys() == after.keys() and not any(torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in load_tensors(out / "diffusion_pytorch_model.safetensors").values()} == {torch.float16}
    run("control", model__tiny_vae=out)
    with pytest.raises(UserError, match=r"its vae is .*, this run's is"):  # its teacher, at every step
        other = tiny.make_base(tmp_path / "other", seed=1)
        run("base_vae", model__base_from=other, train__trainable="tiny_vae", train__max_steps=4)


def test_a_small_vae_of_another_shape_than_the_bases_is_refused(run, tiny_base, tmp_path):
    facts = {"model__base_from": tiny_base, "train__trainable": "tiny_vae"}
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none/tiny_vae/config\.json"):
        run("base_vae", name="a", model__architecture=tmp_path / "none", **facts)
    tiny.tiny_vae(latent_channels=8).save_pretrained(tmp_path / "eight" / "tiny_vae")
    with pytest.raises(UserError, match="eight/tiny_vae: reads latents of 8 channels for 4 x 4 pixels; the base's have 4"):
        run("base_vae", name="b", model__architecture=tmp_path / "eight", **facts)


def test_what_the_small_vae_learns_from(make_config, tiny_base):
    """Its decoder's pictures of the VAE's latents, and its encoder's latents, scaled as the UNet's are."""
    config = make_config("base_vae", model__base_from=tiny_base, model__architecture=tiny_base, train__trainable="tiny_vae")
    training = STAGES["base_vae"](config, Accelerator(cpu=True))
    stage, batch = training.stage, collate([training.samples[Draw(k, FRAME, k)] for k in range(3)])
    stage.vae.register_to_config(scaling_factor=0.5)
    loss, logs = stage(batch, 0)
    loss.backward()
    tiny, pixels = stage.networks["tiny_vae"], cut_out(as_images(batch), config.seed)
    latents = 0.5 * stage.vae.encode(pixels).latent_dist.mode()
    assert torch.equal(logs["latent"], (tiny.encode(pixels).latents - latents).square().mean())
    assert torch.equal(logs["l1"], (tiny.decode(latents).sample - pixels).abs().mean())
    assert {name for name, p in stage.named_parameters() if p.grad is not None} == set(stage.trainable_state())
    assert all(name.startswith("networks.tiny_vae.") for name in stage.trainable_state())


def test_parts_from_random_weights_make_a_base(run, make_config, tmp_path):
    """VAE, UNet and face embedder, one after the other; stage 0 trains on the result and is exported beside it."""
    out = tmp_path / "out"
    for stage in ("base_vae", "base_unet", "base_face"):
        export_base(run(stage, model__base=out, loss__image_weight=0), out)
    facts = {"model__base": out, "model__face": out / "face", "train__max_steps": 1}
    control = make_config("control", "control-run", **facts, model__control_from=out / "control")
    train(control)
    assert [folder.name for folder in export_base(Path(control.output_dir), out)] == ["control"]
    assert str(tmp_path) not in (out / "control" / "manifest.json").read_text(), "no folder of the machine that trained it"
    motion = make_config("motion", "motion-run", **facts, model__control_from=out / "control")
    train(motion)
    assert [folder.name for folder in export_base(Path(motion.output_dir), out)] == ["motion"]
    backbone = load_backbone(ModelConfig(base=str(out)))
    assert torch.isfinite(backbone.embed_text(["a tall person"])).all()
    assert FaceEmbedder.from_pretrained(out / "face").config.embedding_dim == 8


def test_a_unet_goes_on_from_a_base(run, tiny_base, tmp_path):
    """With its tokenizer: another order of words would call other embeddings."""
    out = tmp_path / "out"
    quiet = {"train__learning_rate": 1e-6, "loss__image_weight": 0}
    export_base(run("base_unet", model__base=tiny_base, model__base_from=tiny_base, **quiet), out)
    before, after = (weights(UNet2DConditionModel, folder / "unet") for folder in (tiny_base, out))
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in before)
    assert (out / "tokenizer" / "tokenizer.json").read_text() == (tiny_base / "tokenizer" / "tokenizer.json").read_text()


def test_a_growing_base_says_whether_its_control_is_obeyed(run, tiny_base):
    """With the text encoder as it is at that step; what is learned stays the same, bit for bit."""
    quiet = {"model__base": tiny_base, "model__base_from": tiny_base, "loss__image_weight": 0}
    told = {}
    for every in (0, 1):
        folder = run("base_unet", name=f"measured-{every}", train__measure_every=every, train__log_every=1, **quiet)
        told[every] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = [row for row in told[1] if "control_gain" in row]
    assert [row["step"] for row in measured] == [1, 2, 3] and all(np.isfinite(row["obedience"]) for row in measured)
    assert len({row["fixed_noise_error"] for row in measured}) == 3, "it learns"
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in told.values()]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_settings_that_do_not_go_together(run, tiny_base):
    for stage, overrides, match in (
        ("base_unet", {"train__trainable": "decoder"}, "stage 'base_unet' has no such part"),
        ("base_vae", {"train__trainable": "lora"}, "stage 'base_vae' has no such part"),
        ("base_vae", {"train__trainable": "decoder"}, "trainable=decoder: name the base with its VAE"),
        ("base_vae", {"train__trainable": "tiny_vae"}, "trainable=tiny_vae: name the base with its VAE"),
        ("base_face", {"train__trainable": "tiny_vae"}, "stage 'base_face' has no such part"),
        ("control", {"train__trainable": "decoder"}, "is for base_vae"),
        ("reference", {"train__trainable": "tiny_vae"}, "is for base_vae"),
    ):
        with pytest.raises(UserError, match=match):
            run(stage, name=f"{stage}-bad", **overrides)


def test_every_second_cut_out_shows_the_face(make_config):
    _, samples, _ = tiny.make_stage(make_config())
    batch = collate([samples[tiny.Draw(k, "seg", k % 4)] for k in range(4)])
    batch.draws, batch.pixels = torch.arange(400), torch.zeros(400, 3, 64, 64)
    batch.landmarks, batch.face_visible = torch.full((400, 5, 2), 40.0), torch.ones(400, dtype=torch.bool)
    batch.pixels[:, :, 40, 40] = 1
    parts = cut_out(batch, seed=0)
    assert parts.shape == (400, 3, 32, 32)
    middle = float((parts[:, 0, 16, 16] == 1).float().mean())
    assert 0.42 < middle < 0.6


def test_equal_error_rate():
    rng = np.random.default_rng(0)
    assert equal_error_rate(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1
    same, other = rng.normal(1, 1, 20_000), rng.normal(-1, 1, 50_000)
    assert abs(equal_error_rate(same, other) - 0.1587) < 0.005  # both kinds of error beyond one standard deviation


@pytest.fixture
def unet_stage(make_config, tiny_base):
    """unet_stage(control_drop) -> (a base_unet stage whose zero convolutions are filled, a batch for it)."""

    def make(control_drop):
        facts = {"model__architecture": tiny_base, "model__base_from": tiny_base, "loss__image_weight": 0}
        long = {"train__max_steps": 10**6}  # latents of every draw are there
        config = make_config("base_unet", f"drop-{control_drop}", **facts, **long, train__control_drop=control_drop)
        torch.manual_seed(config.seed)
        training = unet.build(config, Accelerator(cpu=True))
        stage, samples = training.stage, training.samples
        tiny.randomise_zeros(stage.models.control)
        return stage, tiny.first_batch(samples, "dwpose")

    return make


@pytest.mark.parametrize("drop", (0.0, 1.0))
def test_unet_text_encoder_and_control_learn_together(unet_stage, drop):
    """Nothing else does; without control, the Meta ControlNet learns nothing, and the condition does not matter."""
    stage, batch = unet_stage(drop)
    loss, _ = stage(batch, 0)
    loss.backward()
    models = stage.models

    def share_that_learns(parameters):
        moved = [p.grad is not None and bool(p.grad.any()) for p in parameters]
        return sum(moved) / len(moved)

    assert share_that_learns(models.backbone.unet.parameters()) > 0.5
    assert share_that_learns(models.backbone.text_encoder.parameters()) > 0.5
    assert share_that_learns(models.control.base_state().values()) == (0 if drop else 1)
    assert share_that_learns([*models.backbone.vae.parameters(), *models.control.bank.parameters("dwpose")]) == 0
    with torch.no_grad():
        for parameter in models.control.bank.parameters("dwpose"):
            parameter.add_(1)
    assert torch.equal(stage(batch, 0)[0], loss), "no LoRA is active"
    batch.control_latents = batch.control_latents + 1
    assert torch.equal(stage(batch, 0)[0], loss) == bool(drop)


def test_the_exported_control_is_what_learned_beside_the_unet(run, make_config, tiny_base, tmp_path):
    """It has no LoRA, and stage 0 starts from it with fresh ones."""
    folder = run("base_unet", model__base=tiny_base, loss__image_weight=0, train__control_drop=0.5)
    export_base(folder, tmp_path / "out")
    _, trained = read_weights(folder)
    metadata, exported = read_weights(tmp_path / "out" / "control")
    assert metadata["tasks"] == []
    assert set(exported) == {name for name in trained if name.startswith("control.")}
    assert all(torch.equal(exported[name].float(), trained[name].half().float()) for name in exported)
    config = make_config(model__base=tmp_path / "out", model__control_from=tmp_path / "out" / "control")
    models = tiny.make_stage(config)[0].models
    assert all(torch.equal(models.state()[name], exported[name].float()) for name in exported)


def test_the_centres_of_people_start_short_enough_to_turn(make_config):
    """Adam moves each number by the learning rate: in a centre of length l that is an angle of sqrt(numbers) / l times it."""
    embedder = FaceEmbedder(FaceConfig(channels=(8, 12), embedding_dim=96, input_size=8))
    lengths = FaceStage(make_config("base_face"), None, [f"person {k}" for k in range(300)], embedder).centres.norm(dim=1)
    assert lengths.min() > 0.7 and lengths.max() < 1.3


def test_faces_are_disturbed_by_draw_and_not_by_batch():
    crops, points = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.rand(1, 5, 2).expand(3, 5, 2) * 20
    together = disturbed(crops, torch.tensor([4, 5, 6]), seed=0)
    alone = disturbed(crops[:1], torch.tensor([4]), seed=0)
    assert torch.allclose(together[:1], alone, atol=1e-6) and not torch.allclose(alone, crops[:1], atol=0.02)
    moved = jittered(points, torch.tensor([4, 5, 6]), seed=0)
    assert torch.equal(moved[:1], jittered(points[:1], torch.tensor([4]), seed=0))
    shift = (moved - points).norm(dim=2)
    assert shift.min() > 0 and shift.max() < 5  # of a face of about 20 pixels
