"""Stages 0 to 3 on a random Wan model, and what its checks refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from meta_animator.checkpoints.files import read_weights
from meta_animator.conversion.lora import extract
from meta_animator.data.batch import collate
from meta_animator.data.tasks import Draw
from meta_animator.diffusion.process import Noised
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.losses.pixel import pixel_loss
from meta_animator.media.images import read_image
from meta_animator.models.backbones.wan_text import WanText
from meta_animator.sampling.animate import Animator
from meta_animator.sampling.opening import open_references
from meta_animator.settings import ExtractConfig
from meta_animator.stages import networks, texts
from meta_animator.stages import sample as sampling
from meta_animator.stages import train as training
from meta_animator.stages.checks import check_run
from meta_animator.stages.diagnose import diagnose
from meta_animator.stages.memory import count
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from meta_animator.training.engine import Trainer
from tests.tiny import make_stage
from tests.tiny_wan import make_wan, wan_config, wan_model

STAGES = ("control", "motion", "reference")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_wan, moving_data):
    """The folder in which stages 0, 1 and 2 have run: control, motion, reference."""
    root = tmp_path_factory.mktemp("wan-runs")
    for stage in STAGES:
        train(wan_config(root / stage, tiny_wan, moving_data, stage, train__preview_every=2))
    return root


def parts_that_differ(before, after):
    return {name.split(".")[0] + "." + name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}


def test_each_stage_learns_its_own_part(trained):
    weights = {stage: read_weights(trained / stage)[1] for stage in STAGES}
    motion = {name for name in weights["motion"] if name.startswith("motion.")}
    assert motion and all(".attn1." in name for name in motion)
    assert any(weights["motion"][name].any() for name in motion if name.endswith("lora_B.weight"))
    before, after = weights["control"], {n: w for n, w in weights["motion"].items() if n not in motion}
    assert {part for part in parts_that_differ(before, after) if part.startswith("lora.")}
    assert not any(part.startswith("control.") for part in parts_that_differ(before, after)), "frozen in stage 1"
    changed = parts_that_differ(after, {n: w for n, w in weights["reference"].items() if n in after})
    assert changed and all(part.startswith("lora.") for part in changed)


@pytest.mark.parametrize("stage", STAGES)
def test_meters_run_along_on_clips_and_photos(trained, stage):
    lines = [json.loads(line) for line in (trained / stage / "metrics.jsonl").read_text().splitlines()]
    (measured,) = [line for line in lines if "loss" not in line]
    assert measured["step"] == 2 and measured["fixed_noise_error"] > 0
    assert measured["obedience"] != 0 and measured["control_gain"] != 0, "this base has a branch that adds something"


def test_a_photo_is_held_out_here_too(trained, tiny_wan, moving_data):
    about = {"data__held_out": 1, "train__measure_every": 1, "train__max_steps": 1, "model__control_from": trained / "motion"}
    train(wan_config(trained / "reference-held", tiny_wan, moving_data, "reference", **about))
    measured = json.loads((trained / "reference-held" / "metrics.jsonl").read_text().splitlines()[-1])
    assert measured.keys() >= {"obedience", "held_out_error", "copying"}
    assert read_json(trained / "reference-held" / "checkpoints" / "best.json")["step"] == 1


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny_wan, moving_data, tmp_path):
    weights = []
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for last in stops:
            about = {"train__max_steps": last, "train__checkpoint_every": 2}
            train(wan_config(tmp_path / name / "control", tiny_wan, moving_data, "control", **about))
        weights.append(read_weights(tmp_path / name / "control")[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_photos_and_clips_take_turns_in_stage_2(tiny_wan, moving_data, trained, tmp_path):
    """Samples of photos have one frame, of films five, and a step has one kind."""
    config = wan_config(tmp_path / "reference", tiny_wan, moving_data, "reference", model__control_from=trained / "motion")
    _, samples, plan = make_stage(config)
    assert {sample.count for sample in samples.samples} == {1, 5}
    for step in plan.batches(0, 6, 0):
        assert len({samples.samples[draw.sample].count for draw in step}) == 1
        for draw in step:
            item = samples[draw]
            frames = samples.samples[draw.sample].count
            assert item["pixels"].shape[0] == frames and item["latents"].shape[0] == {1: 1, 5: 2}[frames]


def test_the_image_loss_sees_one_latent_frame_of_a_clip_and_another_at_each_step(tiny_wan, moving_data, trained, tmp_path):
    """What it says of that part is what a loss over all of the clip says of the same frames."""
    about = {"loss__image_latent_frames": 1, "loss__max_noise_level": 1.0, "data__cache_latents": False, "loss__start_step": 0}
    config = wan_config(tmp_path / "control", tiny_wan, moving_data, "control", **about)
    stage, samples, _ = make_stage(config)
    batch = collate([samples[Draw(k, "dwpose", k)] for k in range(2)])
    with torch.no_grad():
        seen = {step: stage._part(2, step) for step in range(8)}
        assert {part.start for part in seen.values()} == {0, 1} == {seen[step].start for step in (0, 2, 4, 6)}
        for step in (1, 2, 3):
            frames = (slice(0, 1), slice(1, 5))[seen[step].start]
            stage.begin_step([batch], step, lambda counts: counts)
            _, logs = stage(batch, step)
            noised = noised_of(stage, batch)
            context = stage.parts.context(batch.prompts, "cpu")
            shown = stage.models.backbone.control_input(stage.models.backbone.encode_condition(batch.control_pixels))
            residuals = stage.parts.residuals("dwpose", batch.draws, shown, noised.t, context)
            prediction = stage.models.backbone.predict(noised.x_t, noised.t, context, residuals)
            pixels = stage.models.backbone.decode(stage.loss.process.to_x0(prediction, noised.x_t, noised.t))
            error = pixel_loss(batch.pixels[:, frames].flatten(0, 1), pixels[:, frames].flatten(0, 1))
            assert logs["gated_images"] == 2 * (frames.stop - frames.start)
            assert logs["pixel"].value == pytest.approx(error.mean().item(), rel=1e-4)


def noised_of(stage, batch):
    """The batch's latents with the noise that a step puts on them."""
    latents = stage.models.backbone.encode(batch.pixels)
    noise = stage.parts.noise(batch.draws, tuple(latents.shape[1:]))
    return Noised.of(stage.loss.process, latents, noise, stage.timesteps(batch.draws))


def test_the_text_encoder_is_loaded_once_for_all_stages(trained, tiny_wan, moving_data, tmp_path, monkeypatch):
    """What stage 0 embedded, a later run takes from the disk."""
    assert list((trained / "text").glob("*.safetensors"))
    monkeypatch.setattr(WanText, "_embed", lambda *_: pytest.fail("a prompt was embedded again"))
    train(wan_config(trained / "again", tiny_wan, moving_data, "control", train__max_steps=1, data__clip_frames=1))


def test_prompts_too_many_for_the_memory_are_on_disk_before_the_first_step(tiny_wan, moving_data, tmp_path, monkeypatch):
    there = []

    class Seen(Trainer):
        def run(self):
            files = list((tmp_path / "texts").glob("*.safetensors"))
            there.append((len(files), self.stage.models.backbone.text.encoder))
            super().run()

    monkeypatch.setattr(training, "Trainer", Seen)
    monkeypatch.setattr(texts, "MAX_PROMPTS", 1)
    asked, first = [], networks.main_first  # where the first process fails, none waits for it
    monkeypatch.setattr(networks, "main_first", lambda accelerator, embed: asked.append(embed) or first(accelerator, embed))
    changes = {"train__max_steps": 1, "data__prompt_drop": 0.3, "data__prompt": "{description} {identifier}"}
    train(wan_config(tmp_path / "run", tiny_wan, moving_data, "control", model__text_cache=tmp_path / "texts", **changes))
    ((count, encoder),) = there
    assert count >= 3 and encoder is None and len(asked) == 1


def test_stage_3_gives_as_many_frames_as_the_driving_has(trained, tiny_wan, moving_data):
    """Six, where the base takes five or nine, in windows of five."""
    folder = trained / "sample"
    video = sample(wan_config(folder, tiny_wan, moving_data, "sample"))
    frames = [read_image(file) for file in sorted((folder / "frames").iterdir())]
    assert video.is_file() and len(frames) == 6
    assert frames[0].shape == (64, 64, 3)


def test_of_several_processes_the_first_embeds_the_prompt_of_stage_3(trained, tiny_wan, moving_data, tmp_path, monkeypatch):
    """One text encoder of eleven gigabytes in main memory is enough; the others read what it wrote."""
    asked, first = [], sampling.main_first
    monkeypatch.setattr(sampling, "several_processes", lambda: True)
    monkeypatch.setattr(sampling, "main_first", lambda accelerator, embed: asked.append(embed) or first(accelerator, embed))
    texts, few = tmp_path / "texts", {"sample__max_frames": 5, "sample__fit_pose": "no"}
    monkeypatch.setattr(Animator, "animate", lambda *_, **__: pytest.fail(f"{len(list(texts.iterdir()))} texts"))
    with pytest.raises(pytest.fail.Exception, match=r"^2 texts"):
        sample(wan_config(trained / "sample", tiny_wan, moving_data, "sample", model__text_cache=texts, **few))
    assert len(asked) == 1
    monkeypatch.setattr(sampling, "several_processes", lambda: False)
    monkeypatch.setattr(Animator, "animate", lambda own, *_, **__: pytest.fail(f"reads with {own.models.backbone.text.encoder}"))
    again = {"model__text_cache": tmp_path / "others", **few}
    with pytest.raises(pytest.fail.Exception, match=r"^reads with None"):
        sample(wan_config(trained / "sample", tiny_wan, moving_data, "sample", **again))
    assert len(list((tmp_path / "others").iterdir())) == 2, "embedded, and the encoder gone before the VAE needs its room"


def test_stage_3_makes_the_same_of_what_was_extracted(trained, tiny_wan, moving_data, tmp_path):
    """The branch's folder and a LoRA's stand in for the run that they came from, bit for bit."""
    weights = read_weights(trained / "reference")[1]
    task = next(name.split(".")[1] for name, weight in weights.items() if "lora_B" in name and weight.any())
    extract(ExtractConfig(checkpoint=str(trained / "reference")), wan_model(tiny_wan), tmp_path / "loras")
    control = {"model__control_from": tmp_path / "loras" / "controlnet"}
    lora = {weight: {**control, "sample__loras": f"{{{tmp_path}/loras/{task}: {weight}}}"} for weight in (1.0, 100.0)}
    frames = {}
    for name, changes in {"run": {}, "folders": lora[1.0], "strong": lora[100.0]}.items():
        few = {"sample__max_frames": 5, "sample__fit_pose": "no", "sample__tasks": f"{{{task}: 1.0}}"}
        sample(wan_config(trained / "sample", tiny_wan, moving_data, "sample", **changes, **few, output_dir=tmp_path / name))
        frames[name] = np.stack([read_image(file) for file in sorted((tmp_path / name / "frames").iterdir())])
    assert np.array_equal(frames["run"], frames["folders"]) and not np.array_equal(frames["run"], frames["strong"])


def test_a_vace_base_needs_no_stage_0(tiny_wan, moving_data, tmp_path):
    """Stage 2 goes on with the branch as it was published, on fresh LoRAs, and stage 3 samples from that."""
    config = wan_config(tmp_path / "reference", tiny_wan, moving_data, "reference", model__control_from="")
    train(config)
    weights = read_weights(tmp_path / "reference")[1]
    theirs = load_file(tiny_wan / "transformer" / "diffusion_pytorch_model.safetensors")
    branch = {name: weight for name, weight in theirs.items() if name.startswith("vace_")}
    ours = [weight for name, weight in weights.items() if name.startswith("control.")]
    assert len(ours) == len(branch) and all(any(torch.equal(one, weight) for one in ours) for weight in branch.values())
    assert any(weight.any() for name, weight in weights.items() if name.startswith("lora.") and "lora_B" in name)
    bare = {"model__motion_from": "", "model__motion_lora_rank": 0}
    sample(wan_config(tmp_path / "sample", tiny_wan, moving_data, "sample", **bare))
    assert len(list((tmp_path / "sample" / "frames").iterdir())) == 6
    check_run(wan_config(tmp_path / "motion", tiny_wan, moving_data, "motion", model__control_from=""))


def test_the_positions_of_a_motion_module_are_no_limit_here(trained, tiny_wan, moving_data):
    few = {"model__motion_max_seq_length": 4}
    check_run(wan_config(trained / "long", tiny_wan, moving_data, "motion", model__control_from=trained / "control", **few))
    about = {"model__control_from": trained / "reference", "model__motion_from": trained / "motion", **few}
    check_run(wan_config(trained / "long", tiny_wan, moving_data, "sample", sample__window=9, **about))


@pytest.mark.parametrize("stage", ["motion", "reference"])
def test_a_base_without_a_branch_needs_stage_0(moving_data, tiny_wan, tmp_path, stage):
    def check(base, architecture=""):
        about = {"model__control_from": "", "model__architecture": architecture}
        check_run(wan_config(tmp_path / stage, base, moving_data, stage, **about))

    with pytest.raises(UserError, match=r"control_from is empty.*brings no control branch; a VACE base needs no stage 0"):
        check(make_wan(tmp_path / "t2v", vace=False), tiny_wan)  # what the base says counts
    with pytest.raises(UserError, match=r"is not here, and model.architecture does not say"):
        check(Path("owner/name"))
    check(Path("owner/name"), tiny_wan)


def test_films_that_are_too_short_are_told(tiny_wan, moving_data, trained, tmp_path, capsys):
    about = {"model__control_from": trained / "motion", "data__clip_frames": 9}
    with pytest.raises(UserError, match=r"data.auxiliary: no film is long enough for 9 frames"):
        make_stage(wan_config(tmp_path / "reference", tiny_wan, moving_data, "reference", **about))
    assert "note: 3 of 3 films are too short for 9 frames at this fps, and left out" in capsys.readouterr().out


def test_clips_of_a_film_overlap_by_half(tiny_wan, moving_data, tmp_path):
    """Each is encoded by itself, other than single frames."""
    _, samples, _ = make_stage(wan_config(tmp_path / "control", tiny_wan, moving_data, "control"))
    assert sorted((sample.clip, sample.first) for sample in samples.samples) == [(0, 0), (1, 0), (2, 0)]


def test_diagnosis_with_the_truth_in_the_place_of_the_parts(trained, tiny_wan, moving_data):
    """Six frames, where the base takes five or nine."""
    changes = {"sample__fit_pose": "no", "sample__references": 2}
    numbers, rows = diagnose(wan_config(trained / "sample", tiny_wan, moving_data, "sample", **changes))
    assert {"decoder", "truth with noise 0.2", "as configured", "no control"} <= numbers.keys()
    assert all(len(row) == 4 for row in rows)


def test_the_named_photo_is_shown_first(moving_data):
    size, folder = (64, 64), str(moving_data / "person")
    plain = [one.frame for one in open_references(folder, "", 3, size)]
    named = [one.frame for one in open_references(folder, "photo-2", 2, size)]
    assert (named[0] == plain[2]).all() and (named[1] == plain[0]).all() and (plain[0] != plain[2]).any()
    with pytest.raises(UserError, match=r"sample.references: 9 photos are asked for, .*person has 3 of 'held-out'"):
        open_references(folder, "", 9, size)


def test_photos_beside_the_clip_show_one_person(moving_data):
    """Of a data set of several people."""
    with pytest.raises(UserError, match=r"sample.references: 2 photos are asked for, .*train has 1 of 'p1'"):
        open_references(str(moving_data / "train"), "p1", 2, (64, 64))


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        ("control", {"data__clip_frames": 6}, r"data.clip_frames: 6 frames: .* 4k \+ 1 frames; the nearest are 5 and 9"),
        ("motion", {"data__num_frames": 16}, r"data.num_frames: 16 frames: .* the nearest are 13 and 17"),
        ("sample", {"sample__window": 16}, r"sample.window: 16 frames: .* 13 and 17"),
        ("sample", {"sample__window": 9, "sample__overlap": 3}, r"sample.window - sample.overlap: 6 frames: .* 5 and 9"),
        ("control", {"model__base_loras": "{nowhere.safetensors: 1.0}"}, "model.base_loras: nowhere.safetensors: no such file"),
        ("sample", {"sample__window": 5, "sample__overlap": 5}, r"sample.overlap: 5 must be .* less than sample.window \(5\)"),
        ("sample", {"sample__references": 9}, "sample.references: 9 photos are asked for, .* has 3"),
        ("sample", {"model__motion_from": "tests"}, "model.motion_from: .* checkpoint"),
        ("control", {"data__height": 72}, r"data.height: 72 is not divisible by 16"),
        ("sample", {"sample__init_noise": "inversion"}, "sample.init_noise: is for model.backbone=sd; set .*=random"),
        ("sample", {"model__motion_lora_rank": 0}, "holds a LoRA; set model.motion_lora_rank to its rank"),
        ("control", {"model__beta_schedule": "linear"}, "model.beta_schedule: is for model.backbone=sd"),
        ("control", {"model__tiny_vae": "anything"}, "model.tiny_vae: is for model.backbone=sd; set model.tiny_vae=''"),
        (
            "motion", {"train__train_lora_in_motion": False, "model__motion_lora_rank": 0},
            "stage 1 has nothing to train: set train.train_lora_in_motion=true",
        ),
    ],
)  # fmt: skip
def test_what_this_family_does_not_take_is_refused(trained, tiny_wan, moving_data, stage, changes, said):
    with pytest.raises(UserError, match=said):
        check_run(wan_config(trained / f"refused-{stage}", tiny_wan, moving_data, stage, **{
            "model__control_from": trained / "reference", "model__motion_from": "" if stage != "sample" else trained / "motion",
            **changes,
        }))  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("control", "data__clip_frames", 5), ("motion", "train__timestep_shift", 3),
        ("control", "model__text_cache", "folder"), ("control", "model__flow_shift", 3),
        ("motion", "loss__image_latent_frames", 1),
    ],
)  # fmt: skip
def test_what_the_other_family_does_not_take_is_refused(tiny_base, puppet_data, tmp_path, make_config, stage, key, value):
    with pytest.raises(UserError, match=f"{key.replace('__', '.')}: is for model.backbone=wan"):
        check_run(make_config(stage, **{key: value}))


def test_published_sizes_are_counted_without_weights():
    """The numbers of WAN 2.1 VACE 1.3B: its branch, nine LoRAs, and what stage 2 needs of a GPU."""
    from meta_animator.config import load_config
    from meta_animator.stages.memory import GIB, stage_without_weights

    control = stage_without_weights(load_config("configs/wan/step0.yaml", ["train.trainable=all"])).param_groups()
    sizes = {group.name: sum(p.numel() for p in group.parameters.values()) for group in control}
    assert sizes == {"control": 734_975_232, "lora": 9 * 46_891_008}
    larger = load_config("configs/wan/step0.yaml", ["model.architecture=configs/wan/architecture_14b", "model.tasks=[dwpose]"])
    assert sum(p.numel() for p in stage_without_weights(larger).param_groups()[0].parameters.values()) == 67_239_936
    few = ["model.tasks=[dwpose]"]  # counting goes through one task's step in any case; the others' LoRAs are known by name
    others = 8 * 3 * 4 * 46_891_008  # weights and AdamW's states
    assert count(load_config("configs/wan/step2.yaml", few)).total + others < 12 * GIB
    assert count(load_config("configs/wan/step2.yaml", [*few, "data.clip_frames=17"])).total + others < 24 * GIB
