"""Model cards: what the hub reads, code that runs, what is said of the training, and whose README it is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from huggingface_hub import HfApi, ModelCard

from meta_animator.checkpoints.card_facts import base_of, facts, origin_of
from meta_animator.checkpoints.card_strip import strip_of
from meta_animator.checkpoints.cards import USE, licence_text
from meta_animator.checkpoints.files import find_checkpoint
from meta_animator.config import save_config
from meta_animator.conversion.exchange import export_motion
from meta_animator.conversion.lora import extract
from meta_animator.json_files import read_json
from meta_animator.media.images import read_image, write_image
from meta_animator.media.sheets import grid
from meta_animator.media.video import write_video
from meta_animator.models.motion import split_motion_unet
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.settings import ExtractConfig
from meta_animator.stages.train import train
from meta_animator.training.resume import check_same_run
from tests import hub, tiny
from tests.conversion.test_exchange import make_run
from tests.conversion.test_lora import save_run
from tests.conversion.test_wan import ours, save_motion_run, save_wan_run, theirs
from tests.tiny_wan import make_wan, wan_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def online(tmp_path, monkeypatch):
    """The address of an empty hub."""
    with hub.serve() as (address, _):
        hub.connect(monkeypatch, address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield address


def code_of(folder: Path, base: Path) -> str:
    """The Python of a folder's card, for the repository me/NAME."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert '"NAME"' in code
    return code.replace('"NAME"', f'"me/{folder.name}"').replace('"BASE"', repr(str(base)))


def upload(folder: Path) -> None:
    name = HfApi().create_repo(f"me/{folder.name}", token="hf_x").repo_id
    HfApi().upload_folder(repo_id=name, folder_path=folder, token="hf_x")


def loaded(folder: Path, base: Path):
    """`pipe` of the card's code, run on what the hub has after an upload."""
    upload(folder)
    names: dict = {}
    exec(code_of(folder, base), names)
    return names["pipe"]


def latents(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    shown = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    return pipe(conditions={"dwpose": shown}, num_inference_steps=2, output_type="latent", generator=generator, **options).frames


@pytest.fixture
def tuned(make_config, tmp_path, tiny_base):
    """(networks of a stage-2 run that has left its config, the extraction's config)"""
    run = make_config("reference", name="run")
    models = save_run(run)
    save_config(run, Path(run.output_dir) / "config.yaml")
    return models, make_config("extract", name="loras", extract__checkpoint=run.output_dir)


def test_extracted_loras_are_published_by_the_cards_command_and_loaded_by_its_code(tuned, tmp_path, tiny_base, online):
    models, config = tuned
    tiny.extract(config)
    card = ModelCard.load(tmp_path / "loras" / "README.md")
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "image-to-video"
    assert {"meta-animator", "lora", "dwpose", "blurred"} <= set(card.data.tags)
    assert card.data.instance_prompt == "Person looks like <id001>"
    assert card.data.license is None and "license:" in card.text, "nobody knows that of a random base"

    (command,) = re.findall(r"`(hf upload [^`]+)`", card.text)
    words = shlex.split(command.replace("NAME", "me/loras"))
    program = Path(sys.executable).with_name(words[0])
    environment = {"HF_ENDPOINT": online, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x"}
    done = subprocess.run([program, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names: dict = {}
    exec(code_of(tmp_path / "loras", tiny_base), names)
    own = MetaAnimatorPipeline.from_assembly(models, prompt="Person looks like <id001>")
    made = latents(own)
    torch.testing.assert_close(latents(names["pipe"]), made)
    assert not torch.allclose(latents(names["pipe"], loras={}), made, atol=1e-3), "the LoRA does something"
    assert all((tmp_path / "loras" / name / "README.md").is_file() for name in ("controlnet", "seg"))


def test_a_merged_controlnet_and_a_saved_pipeline(tuned, tmp_path, tiny_base, online, monkeypatch):
    models, config = tuned
    config.extract.merge = "dwpose"
    tiny.extract(config)
    own = MetaAnimatorPipeline.from_assembly(models, prompt="Person looks like <id001>")
    made = latents(own)
    torch.testing.assert_close(latents(loaded(tmp_path / "loras" / "controlnet", tiny_base)), made, rtol=0, atol=1e-4)
    own.save_pretrained(tmp_path / "animator")
    torch.testing.assert_close(latents(loaded(tmp_path / "animator", tiny_base)), made)
    assert "LoRA rank | 4" in (tmp_path / "animator" / "README.md").read_text()
    again = MetaAnimatorPipeline.from_pretrained(tmp_path / "animator")
    again.unet.register_to_config(_name_or_path="theirs/base")
    again.save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "animator", tmp_path / "again", tmp_path / "loras"):
        assert not [file for file in folder.rglob("*.json") if str(tmp_path.parent) in file.read_text()], "nobody's home is told"
    assert read_json(tmp_path / "again" / "unet" / "config.json")["_name_or_path"] == "theirs/base"
    monkeypatch.setattr(models.backbone, "base_loras", {"style.safetensors 0123": 0.8}, raising=False)
    MetaAnimatorPipeline.from_assembly(models).save_pretrained(tmp_path / "styled")
    assert "their licences count, too" in (tmp_path / "styled" / "README.md").read_text()


@pytest.mark.parametrize("vace", [True, False])
def test_on_wan_plain_diffusers_loads_a_set_and_a_pipeline(vace, tmp_path, online):
    base = make_wan(tmp_path / "base", vace=vace)
    models, run = save_wan_run(tmp_path / "run", base), str(tmp_path / "run")
    extract(ExtractConfig(checkpoint=run), wan_model(base), tmp_path / "loras")
    made = ours(models, "dwpose")
    torch.testing.assert_close(theirs(loaded(tmp_path / "loras", base).transformer), made, rtol=0, atol=1e-5)
    (folder,) = extract(ExtractConfig(checkpoint=run, merge="dwpose"), wan_model(base), tmp_path)
    torch.testing.assert_close(theirs(loaded(folder, base).transformer), made, rtol=0, atol=1e-5)
    assert ModelCard.load(folder / "README.md").data.instance_prompt == "Person looks like <id001>"


def test_motion_of_both_families(tmp_path, tiny_wan, tiny_base, online):
    models = make_run(tmp_path / "run", tiny_base)
    export_motion(tmp_path / "run", tmp_path / "adapter", tiny_base)
    _, adapter = split_motion_unet(loaded(tmp_path / "adapter", tiny_base))
    assert isinstance(adapter, MotionAdapter)
    own = {n.removeprefix("motion."): w for n, w in models.state().items() if n.startswith("motion.")}
    assert own and all(torch.equal(dict(adapter.named_parameters())[n], w) for n, w in own.items())

    moving = save_motion_run(tmp_path / "moving", tiny_wan)
    export_motion(tmp_path / "moving", tmp_path / "lora", tiny_wan)
    pipe = loaded(tmp_path / "lora", tiny_wan)
    down = {n for n, _ in moving.motion.named_parameters() if n.endswith("lora_A.weight")}
    assert down and sum("lora_A" in n for n, _ in pipe.transformer.named_parameters()) == len(down)


def test_somebodys_readme_stays_and_our_own_is_written_anew(tuned, tmp_path, capsys):
    _, config = tuned
    folder = tmp_path / "loras"
    (folder / "seg").mkdir()
    (folder / "seg" / "README.md").write_text("mine")
    tiny.extract(config)
    assert (folder / "seg" / "README.md").read_text() == "mine" and (folder / "seg" / "metadata.json").is_file()
    assert capsys.readouterr().out.count("stays as it is") == 1
    whole = folder / "README.md"
    whole.write_text(whole.read_text().replace("steps: 7", "steps: 7, on a rainy day"))
    config.extract.checkpoint = str(save_again(config, tmp_path))
    tiny.extract(config)
    assert "on a rainy day" in whole.read_text() and "weights" in (folder / "dwpose" / "README.md").read_text()
    assert "steps: 8" in (folder / "dwpose" / "README.md").read_text(), "nobody has touched this one"
    assert capsys.readouterr().out.count("stays as it is") == 2


def save_again(config, tmp_path) -> Path:
    """The same checkpoint, one step on."""
    folder = find_checkpoint(config.extract.checkpoint)
    later = tmp_path / "later"
    folder.rename(later)
    file = later / "manifest.json"
    file.write_text(file.read_text().replace('"step": 7', '"step": 8'))
    return later


RED, GREEN, BLUE = (np.full((64, 64, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250)))


def colours(picture) -> str:
    """Which of the three are in a picture, lossy ones too."""
    named = {"r": RED, "g": GREEN, "b": BLUE}
    return "".join(name for name, one in named.items() if (np.abs(picture - one[0, 0].astype(int)).max(-1) < 40).any())


def test_the_strip_shows_what_was_made_and_nobodys_photos(tuned, make_config, tmp_path):
    _, config = tuned
    run = tmp_path / "run"
    tiny.extract(config)
    assert not (tmp_path / "loras" / "strip.png").exists() and "strip.png" not in (tmp_path / "loras" / "README.md").read_text()

    origin = origin_of(run, read_json(find_checkpoint(run) / "manifest.json"), "")
    titles = ["condition", "generated", "truth"] * 4
    rows = [[RED, GREEN, BLUE] * 4, [BLUE, BLUE, BLUE] * 4]
    write_image(run / "previews" / "step-000002.png", grid(rows, titles, ["dwpose", "seg"]))
    assert colours(strip_of(origin)) == "rg" and colours(grid(rows)) == "rgb"
    (run / "previews" / "step-000002.png").write_bytes(b"torn")
    assert strip_of(origin) is None
    film = np.concatenate([RED, GREEN, BLUE], axis=1)
    write_video(run / "previews" / "step-000003-dwpose.mp4", [film] * 3, 8)
    assert colours(strip_of(origin)) == "rg"
    write_video(run / "previews" / "step-000004-fg_inpainting.mp4", [film] * 3, 8)  # whose condition is a piece of the photo
    assert colours(strip_of(origin)) == "g"

    for name, wrong in (("videos/wave", False), ("shuffled", True)):
        sampled = make_config(
            "sample", name, model__control_from=run, sample__shuffle_driving=wrong, output_dir=tmp_path / name
        )  # fmt: skip
        save_config(sampled, tmp_path / name / "config.yaml")
        write_image(tmp_path / name / "frames" / "000000.png", GREEN if wrong else BLUE)
        write_image(tmp_path / name / "driving" / "000000.png", RED)
    tiny.extract(config)
    assert colours(read_image(tmp_path / "loras" / "strip.png")) == "rb", "this one is made, too"
    sampled.sample.shuffle_driving, sampled.sample.tasks = False, {"blurred": 1.0}
    save_config(sampled, tmp_path / "shuffled" / "config.yaml")
    assert colours(strip_of(origin)) == "g", "blurred photos are photos"
    text = (tmp_path / "loras" / "README.md").read_text()
    assert "![Generated frames; below them the drawings, if any, that drove them](strip.png)" in text


def test_a_card_says_what_the_run_has_kept(prepared, puppet_data):
    metadata = read_json(find_checkpoint(prepared) / "manifest.json")
    assert metadata["data"] == {"people": 4, "clips": 4, "frames": 16}
    rows = facts(origin_of(prepared, metadata, "elsewhere"))
    assert rows["learned from"] == "4 photos or clips of 4 people, 16 frames"
    assert rows["trained"] == "stage 0, on many people; steps: 2, samples in a step: 2"
    assert "elsewhere" not in rows["base"] and "prompt" not in rows
    old = {name: value for name, value in metadata.items() if name not in ("data", "samples_per_step")}
    rows = facts(origin_of(prepared, old, ""))
    assert rows["trained"] == "stage 0, on many people; steps: 2" and "learned from" not in rows
    styled = origin_of(prepared, metadata | {"base_loras": {"style.safetensors 0123": 0.8}}, "")
    assert facts(styled)["base"].endswith("with `style.safetensors 0123` (0.8)")
    assert "their licences count" in licence_text(styled) and "their licences" not in licence_text(origin_of(prepared, old, ""))
    check_same_run({"data": {"people": 5}}, metadata, Path("run"))  # a run goes on with more photos


def test_a_stage_2_says_how_much_it_has_seen_and_what_it_began_from(make_config, prepared, tmp_path):
    train(make_config("reference", "run", model__control_from=prepared, train__max_steps=1, train__preview_every=0))
    tiny.extract(make_config("extract", "loras", extract__checkpoint=tmp_path / "run"))
    text = (tmp_path / "loras" / "README.md").read_text()
    others = "beside them some frames of 4 photos or clips of 4 people"
    assert f"| learned from | 4 photos or clips of one person, 4 frames; {others} |" in text
    assert f"| began from | `{Path(prepared).name}` |" in text and "pictures of one person" in text


def test_bases_and_what_their_licences_ask():
    known = {
        "assets/base": ("", "apache-2.0", "assets/base"),
        str(ROOT / "assets" / "base_wan"): ("", "apache-2.0", "assets/base_wan"),
        "models/wan": ("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "apache-2.0", "Wan-AI/Wan2.1-VACE-1.3B-diffusers"),
        "/w/Realistic_Vision_V6.0_NV_B1_fp16.safetensors": (
            "SG161222/Realistic_Vision_V6.0_B1_noVAE", "creativeml-openrail-m", "BASE"
        ),
        "somebody/model": ("somebody/model", "", "somebody/model"),
        "/home/anna/secret/sd15": ("", "", "BASE"),
    }  # fmt: skip
    assert {given: (base.hub, base.licence, base.code) for given in known if (base := base_of(given))} == known
    assert base_of("/home/anna/secret/sd15").name == "`sd15`"


def test_the_cards_ask_what_the_readme_asks():
    assert USE in " ".join((ROOT / "README.md").read_text().split())
