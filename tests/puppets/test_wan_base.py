"""The stages that train the embedded Wan, and their export as a WanVACEPipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLWan, WanVACEPipeline
from PIL import Image
from transformers import AutoTokenizer

from meta_animator.data.batch import collate
from meta_animator.data.samples import to_pixels
from meta_animator.data.tasks import Draw
from meta_animator.errors import UserError
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.wan_text import MOST_TOKENS
from meta_animator.models.backbones.wan_vae import decode
from meta_animator.puppets.base import wan_autoencoder, wan_vae
from meta_animator.puppets.base.build import STAGES
from meta_animator.puppets.base.export import export_base
from meta_animator.puppets.base.wan_judge import decibels, judge_wan, note
from meta_animator.puppets.base.wan_networks import growing_wan
from meta_animator.puppets.base.wan_text import wan_tokenizer
from meta_animator.puppets.base.wan_transformer import shares
from meta_animator.settings import ModelConfig
from meta_animator.stages.train import train
from tests import tiny

TASKS = "[dwpose,seg]"


@pytest.fixture
def wan_config(make_config, tiny_wan, moving_data):
    def make(stage, name=None, **overrides):
        facts = {
            "model__architecture": tiny_wan, "model__base": tiny_wan, "model__tasks": TASKS, "data__num_frames": 5,
            "data__train": f"[{moving_data / 'train'}]", "data__prompt": "'{description}'", "train__max_steps": 2,
        }  # fmt: skip
        return make_config(stage, name or stage, **(facts | overrides))

    return make


@pytest.fixture
def wan_stage(wan_config):
    """wan_stage(stage, **overrides) -> (the stage, a batch of two for each of its tasks)."""

    def make(stage, **overrides):
        config = wan_config(stage, **overrides)
        torch.manual_seed(0)
        training = STAGES[stage](config, Accelerator(cpu=True))
        drawn = {task: [Draw(k, task, index) for k, index in enumerate(some[:2])] for task, some in training.plan.samples.items()}
        return training.stage.eval(), {task: collate([training.samples[draw] for draw in some]) for task, some in drawn.items()}

    return make


def test_parts_from_random_weights_make_a_pipeline(wan_config, tmp_path):
    """VAE, then transformer and text encoder; diffusers' pipeline of the folder does what the training's networks do."""
    out = tmp_path / "out"
    for stage in ("base_wan_vae", "base_wan"):
        config = wan_config(stage, model__base=out)
        train(config, stages=STAGES)
        export_base(Path(config.output_dir), out)
    pipeline = WanVACEPipeline.from_pretrained(out, torch_dtype=torch.float32)
    networks = growing_wan(ModelConfig(base=str(out), base_from=str(out), architecture=config.model.architecture), [])
    tiny.randomise_zeros(networks.transformer.vace_blocks)
    pipeline.transformer.load_state_dict(networks.transformer.state_dict())
    tokens = pipeline.tokenizer(["a tall person"], padding="max_length", max_length=MOST_TOKENS, return_tensors="pt")
    states = pipeline.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state * tokens.attention_mask[..., None]
    text = networks.text_states(["a tall person"])
    assert torch.allclose(states, text, atol=1e-6)
    noise = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    *video, photo = [Image.fromarray(image) for image in images]
    made = pipeline(
        video=video, reference_images=[photo], prompt_embeds=states, height=64, width=64, num_frames=5, num_inference_steps=1,
        latents=noise, guidance_scale=1.0, output_type="latent",
    ).frames  # fmt: skip
    pixels = torch.stack([to_pixels(image) for image in images])[None]
    condition, reference = networks.encode(pixels[:, :5]), networks.encode(pixels[:, 5:])
    context = networks.context_of(condition, networks.encode(torch.zeros(1, 5, 3, 64, 64)), reference)
    x = noise.transpose(1, 2)
    moved = x - networks.predict(x, torch.tensor([999.0]), text, context)
    assert torch.allclose(made.transpose(1, 2), moved, atol=1e-4), "one step, from pure noise to none"
    backbone = load_backbone(ModelConfig(backbone="wan", base=str(out)))
    assert torch.allclose(backbone.encode(pixels[:, :5]), condition, atol=1e-5)
    assert torch.allclose(backbone.embed_text(["a tall person"]), text, atol=1e-5)
    assert backbone.rare_words()[:2] == ["<id000>", "<id001>"]
    numbers, rows = judge_wan(out, people=1, shown=1, steps=1)
    assert numbers["posed person"] == numbers["shuffled person"], "of one person the next is the same one"
    assert [row[0].shape for row in rows] == [(64, 64, 3)] * 4


def test_latents_of_the_exported_vae_have_unit_scale(wan_config, moving_data, tmp_path):
    config = wan_config("base_wan_vae", train__max_steps=1)
    train(config, stages=STAGES)
    export_base(Path(config.output_dir), tmp_path / "out")
    vae = AutoencoderKLWan.from_pretrained(tmp_path / "out" / "vae", torch_dtype=torch.float32)
    films = wan_vae.read_clips([str(moving_data / "train")], "train")
    frames = [[clip.load(k, ("frame",)).frame for k in range(5)] for clip in films]
    pixels = torch.stack([torch.stack([to_pixels(frame) for frame in clip]) for clip in frames]).transpose(1, 2)
    latents = vae.encode(pixels).latent_dist.mode()
    mean, std = (torch.tensor(getattr(vae.config, f"latents_{name}")) for name in ("mean", "std"))
    assert torch.allclose(latents.mean((0, 2, 3, 4)), mean, atol=0.02)
    assert torch.allclose(latents.transpose(0, 1).flatten(1).std(1), std, rtol=0.02, atol=0.01)


def test_first_frames_are_computed_as_images(tiny_wan):
    vae = AutoencoderKLWan.from_pretrained(tiny_wan / "vae")
    pixels = torch.randn(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for conv in vae.encoder.modules():
            if isinstance(conv, torch.nn.Conv3d) and conv.kernel_size[0] == 3:
                conv.weight[:, :, 0] += 0.1  # of frames before the first there are none
    before = wan_autoencoder.encode(vae, pixels)[0]
    calls, conv3d = [], torch.nn.Conv3d.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv3d, "forward", lambda conv, x: calls.append(x) or conv3d(conv, x))
        wan_autoencoder.encode(vae, pixels[:, :, :1])
        all_of_them = len(calls)
        after = wan_autoencoder.encode(wan_autoencoder.with_images_as_images(vae), pixels)[0]
        calls.clear()
        wan_autoencoder.encode(vae, pixels[:, :, :1])
    assert torch.allclose(after, before, atol=1e-5) and all_of_them > 10 and len(calls) == 0


def test_a_fresh_vae_sees_each_frame_by_itself(tiny_wan):
    """So that what it learns on photos holds for clips."""
    vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(tiny_wan / "vae"))
    wan_autoencoder.start_as_average(vae)
    photo, other = torch.randn(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    clip = torch.cat([photo, *[other] * 2, *[photo] * 2], dim=1)[None]
    latents = wan_autoencoder.encode(vae, clip)[0]
    alone = [wan_autoencoder.encode(vae, one[None])[0] for one in (photo, other)]
    assert torch.allclose(latents, torch.cat(alone, dim=2), atol=1e-5)
    decoded = decode(vae, latents)
    assert torch.allclose(decoded[:, :, 1:], decode(vae, alone[1]).expand(-1, -1, 4, -1, -1), atol=1e-5)


def test_the_decoder_alone_learns_on(wan_config, tiny_wan, tmp_path):
    config = wan_config("base_wan_vae", model__base_from=tiny_wan, train__trainable="decoder", train__max_steps=1)
    train(config, stages=STAGES)
    export_base(Path(config.output_dir), tmp_path / "out")
    old, new = (AutoencoderKLWan.from_pretrained(f / "vae", torch_dtype=torch.float32) for f in (tiny_wan, tmp_path / "out"))
    same = {name: torch.equal(p.half(), old.get_parameter(name).half()) for name, p in new.named_parameters()}
    kept = {name for name in same if name.startswith(("encoder.", "quant_conv."))}
    assert {name for name in same if same[name]} >= kept and sum(same.values()) < len(kept) + 5
    assert new.config.latents_std == old.config.latents_std


def test_errors_on_the_person_and_in_the_face_count_more(wan_stage):
    stage, batches = wan_stage("base_wan_vae")
    batch = batches[wan_vae.PERSON]
    pixels, weights = stage.shown(batch)
    person = (batch.control_pixels > -1).any(2, keepdim=True)
    assert torch.equal(pixels, batch.pixels) and abs(float(weights.mean()) - 1) < 1e-5
    assert float(weights[person].min()) > 3 * float(weights[~person].min())
    assert float(weights[person].max()) > 2 * float(weights[person].min()), "the face"
    images, even = stage.shown(batches["seg"])
    assert torch.equal(images[1:], batches["seg"].control_pixels[1:]) and not images[0].any() and bool((even == 1).all())


def test_what_a_step_shows(wan_config):
    clips = torch.arange(4.0)[:, None, None, None, None] + torch.zeros(4, 13, 2, 64, 64)
    shapes = {shape: wan_vae.cut_clips(clips, torch.arange(4), shape, 0).shape for shape in ("photo", "small", "part", "clip")}
    assert shapes == {
        "photo": (12, 2, 1, 64, 64), "small": (8, 2, 5, 32, 32), "part": (8, 2, 5, 48, 48), "clip": (2, 2, 13, 64, 64)
    }  # fmt: skip
    early, late = ([wan_vae.shape_of(0, step, progress) for step in range(400)] for progress in (0.1, 0.9))
    assert "part" not in early and "small" not in late
    assert 0.05 < early.count("clip") / 400 < 0.15 and 0.42 < late.count("clip") / 400 < 0.58
    with pytest.raises(UserError, match="takes 4 k \\+ 1 frames, such as 5 or 9"):
        STAGES["base_wan_vae"](wan_config("base_wan_vae", data__num_frames=7), Accelerator(cpu=True))


@pytest.mark.parametrize("drop", (0.0, 1.0))
def test_base_and_branch_learn_together(wan_stage, drop):
    """Without control the branch learns nothing, and the condition does not matter."""
    stage, batches = wan_stage("base_wan", train__control_drop=drop)
    batch, networks = batches["dwpose"], stage.networks
    tiny.randomise_zeros(networks.transformer.vace_blocks)
    loss, _ = stage(batch, 0)
    loss.backward()

    def learn(parameters):
        return [p.grad is not None and bool(p.grad.any()) for p in parameters]

    assert sum(learn(networks.transformer.blocks.parameters())) > 20
    assert any(learn(networks.text_encoder.parameters())) and not any(learn(networks.vae.parameters()))
    assert any(learn(networks.transformer.vace_blocks.parameters())) == (not drop)
    batch.control_latents = batch.control_latents + 1
    assert torch.equal(stage(batch, 0)[0], loss) == bool(drop)


def test_the_transformer_learns_from_single_frames_too(wan_stage):
    weights = {"data__task_weights": "{dwpose: 4}"}  # a clip's frames are then not all in the cache of one task
    stage, batches = wan_stage("base_wan", data__num_frames=1, train__control_drop=0.0, **weights)
    assert stage.grey.shape[1] == 1 and batches["dwpose"].latents.shape[1] == 2, "a photo beside the frame"
    loss, _ = stage(batches["dwpose"], 0)
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in stage.networks.transformer.vace_blocks.parameters())


def test_a_fresh_branch_adds_nothing(wan_stage):
    stage, batches = wan_stage("base_wan", train__control_drop=0.0)
    with torch.no_grad():
        before = stage(batches["dwpose"], 0)[0]
        batches["dwpose"].control_latents += 1
        assert torch.equal(stage(batches["dwpose"], 0)[0], before)


def test_errors_count_more_in_the_latents_of_frames_that_show_a_face(wan_stage):
    stage, batches = wan_stage("base_wan", loss__face_region_weight=5)
    batch = batches["dwpose"]
    batch.face_visible = torch.tensor([[False, False, True, False, False], [True, False, False, False, False]])
    batch.landmarks = torch.full((2, 5, 5, 2), 20.0) + 4 * torch.tensor([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]])
    latents = batch.latents[:, 1:]
    weights = stage.place_weights(batch, latents)
    assert weights.shape == (2, 2, 1, 8, 8) and set(weights.unique().tolist()) == {1.0, 5.0}
    assert (weights.amax((2, 3, 4)) > 1).tolist() == [[False, True], [True, False]]
    photo = stage.place_weights(batch, latents[:, :1])
    assert torch.equal(photo, weights[:, :1])


def test_errors_count_more_where_the_person_is(wan_stage):
    stage, batches = wan_stage("base_wan", loss__person_region_weight=3, loss__face_region_weight=5)
    batch = batches["dwpose"]
    assert batch.person_boxes.shape == (2, 5, 4) and (batch.person_boxes[..., 2] > batch.person_boxes[..., 0]).all()
    batch.face_visible[:], batch.landmarks[:] = False, 0.0
    batch.person_boxes[:] = torch.tensor([0.0, 0.0, -1.0, -1.0])
    batch.person_boxes[0, 3] = torch.tensor([8.0, 16.0, 23.0, 31.0])
    weights = stage.place_weights(batch, batch.latents[:, 1:])
    expected = torch.ones(2, 2, 1, 8, 8)
    expected[0, 1, 0, 2:4, 1:3] = 3.0
    assert torch.equal(weights, expected)
    batch.face_visible[0, 4] = True
    batch.landmarks[0, 4] = torch.tensor([[18.0, 26.0], [21.0, 26.0], [19.5, 27.5], [18.0, 29.0], [21.0, 29.0]])
    both = stage.place_weights(batch, batch.latents[:, 1:])
    assert both.max() == 15 and both[0, 1, 0, 3, 2] == 15, "a face has both"


def test_timesteps_lie_where_the_layout_is_decided(wan_stage):
    """Half of them above 750: uniform, then shifted by 3."""
    stage, _ = wan_stage("base_wan", train__timestep_shift=3)
    t = stage.timesteps(torch.arange(600))
    assert abs(float((t > 750).float().mean()) - 0.5) < 0.06 and t.min() >= 1 and t.max() <= 1000
    assert torch.equal(t[5:6], stage.timesteps(torch.tensor([5]))), "of the draw alone"


def test_seldom_drawn_tasks_have_fewer_samples():
    table = {"dwpose": list(range(8)), "depth": list(range(8)), "seg": list(range(8))}
    few = shares(table, {"dwpose": 4, "depth": 2})
    assert few == {"dwpose": list(range(8)), "depth": [0, 2, 4, 6], "seg": [0, 4]}


def test_every_word_and_identifier_is_one_token(tmp_path):
    wan_tokenizer(["a tall person with long-sleeved top, blue shoes"], identifiers=3).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def pieces(text):
        return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)

    assert pieces("Person looks like <id002>") == ["▁Person", "▁looks", "▁like", "<id002>", "</s>"]
    assert pieces("a long-sleeved top, blue") == ["▁a", "▁long", "-", "sleeved", "▁top", ",", "▁blue", "</s>"]
    assert wan_tokenizer(["blue shoes, a tall person top with long-sleeved"], 3).get_vocab() == tokenizer.get_vocab()
    assert pieces("") == ["</s>"] and tokenizer.unk_token not in pieces("zebra 42!")


def test_errors_are_gathered_by_frame_and_by_person():
    truth, shown, person = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    shown[:, :, 0], person[:, :2] = 0.2, True
    errors = {}
    note(errors, "photo", shown, truth, person)
    assert abs(decibels(torch.cat(errors["photo"])) - 26.02) < 0.01  # 4 / (0.04 / 4)
    assert abs(decibels(torch.cat(errors["photo person"])) - 23.01) < 0.01  # half of the person's places


def test_pictures_are_encoded_where_the_vae_is(tiny_wan):
    """A grey clip is made on the CPU; "meta" stands for a GPU."""
    model = ModelConfig(backbone="wan", base=str(tiny_wan), architecture=str(tiny_wan))
    networks = growing_wan(model, ["a word"])
    networks.vae.to("meta")
    assert networks.encode(torch.zeros(1, 5, 3, 32, 32)).device.type == "meta"
