"""Five steps here and in diffusers' WanVACEPipeline, with guidance and a photo: the same picture, and what is said where not."""

import runpy
import shutil
from pathlib import Path

import pytest
import torch

from meta_animator.conversion.lora import extract
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json
from meta_animator.settings import ExtractConfig
from meta_animator.stages.same_picture import Embedded, Trial, check, first_noise, load_ours, load_theirs, make_ours, make_theirs
from tests.conversion.test_wan import save_motion_run, save_wan_run
from tests.tiny_wan import LATENT_CHANNELS, make_wan, wan_model

TRIAL = Trial(task="depth", frames=9, height=32, width=32)


@pytest.fixture(scope="module", params=["vace", "t2v"])
def out(request, tmp_path_factory, tiny_wan):
    """(base, folder with run, loras/ and pipeline/)"""
    root = tmp_path_factory.mktemp(f"same-{request.param}")
    base = tiny_wan if request.param == "vace" else make_wan(root / "base", vace=False)
    save_wan_run(root / "run", base)
    extract(ExtractConfig(checkpoint=str(root / "run")), wan_model(base), root / "loras")
    extract(ExtractConfig(checkpoint=str(root / "run"), merge="depth"), wan_model(base), root)
    return base, root


@pytest.mark.parametrize(("ours", "theirs"), [("run", None), ("loras", "pipeline"), ("pipeline", None)])
def test_what_was_extracted_makes_the_same_picture_in_diffusers(out, ours, theirs):
    base, root = out
    verdict = check(root / ours, theirs and root / theirs, wan_model(base), TRIAL)
    assert verdict.same and "the same picture" in str(verdict)
    assert verdict.text < 1e-5 and verdict.latents < 1e-4 and verdict.pixels < 1e-5


def test_the_motion_of_stage_1_is_checked_with_it(out, tmp_path):
    base, root = out
    save_motion_run(tmp_path / "motion", base)
    model = wan_model(base, motion_from=str(tmp_path / "motion"))
    assert check(root / "run", None, model, TRIAL).same
    assert not check(root / "run", root / "pipeline", model, TRIAL).same


def test_a_persons_lora_on_the_base_is_checked_with_it(out, tmp_path):
    base, root = out
    save_wan_run(tmp_path / "run", base, person_lora_rank=2)
    extract(ExtractConfig(checkpoint=str(tmp_path / "run")), wan_model(base), tmp_path / "loras")
    extract(ExtractConfig(checkpoint=str(tmp_path / "run"), merge="depth"), wan_model(base), tmp_path)
    for ours, theirs in (("run", None), ("loras", "pipeline")):
        verdict = check(tmp_path / ours, theirs and tmp_path / theirs, wan_model(base), TRIAL)
        assert verdict.same and verdict.latents < 1e-4
    assert not check(tmp_path / "run", root / "loras", wan_model(base), TRIAL).same
    shutil.copytree(tmp_path / "loras", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / "controlnet")
    shutil.copytree(root / "loras" / "controlnet", tmp_path / "mixed" / "controlnet")
    metadata = tmp_path / "mixed" / "person" / "metadata.json"
    write_json(metadata, read_json(metadata) | {"control": "another"})  # the same branch, of other weights
    with pytest.raises(UserError, match=r"person: is from another extraction than .*controlnet; delete it, or extract anew"):
        check(tmp_path / "mixed", None, wan_model(base), TRIAL)


def test_five_steps_are_those_of_diffusers_in_float64(out, monkeypatch):
    """Its pipeline rounds noise and condition to float32, from which it is kept here: that is all that differs."""
    base, root = out
    models, loras, prompt = load_ours(root / "run", wan_model(base), "depth")
    texts = Embedded(*(models.backbone.embed_text([text]).double() for text in (prompt, "")))
    given = []
    make_input = models.backbone.control_input
    monkeypatch.setattr(models.backbone, "control_input", lambda *latents: given.append(make_input(*latents)) or given[0])
    ours = make_ours(models.double(), loras, TRIAL, texts)

    pipeline = load_theirs(root / "loras", wan_model(base), "depth").to(torch.float64)
    noise = first_noise(TRIAL, (3, *ours.latents.shape[2:])).double()
    monkeypatch.setattr(pipeline, "prepare_latents", lambda *_: noise.transpose(1, 2))
    shown, make_condition = given[0].transpose(1, 2)[:, : 2 * LATENT_CHANNELS], pipeline.prepare_video_latents

    def condition(*arguments):
        torch.testing.assert_close(make_condition(*arguments), shown, rtol=0, atol=1e-7)
        return shown

    monkeypatch.setattr(pipeline, "prepare_video_latents", condition)
    theirs = make_theirs(pipeline, TRIAL, texts)
    assert ours.latents.dtype == torch.float64 and ours.latents.shape == (1, 4, LATENT_CHANNELS, 4, 4)
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=0, atol=1e-8)


def test_another_lora_is_another_picture_and_the_script_says_so(out, capsys, monkeypatch):
    base, root = out
    main = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "convert.py"))["main"]
    command = ["convert.py", "check", str(root / "run"), "--base", str(base), "--height", "32", "--width", "32"]
    monkeypatch.setattr("sys.argv", [*command, "--task", "dwpose"])
    main()
    assert capsys.readouterr().out.endswith(": the same picture\n")
    monkeypatch.setattr("sys.argv", [*command[:3], str(root / "pipeline"), *command[3:], "--task", "dwpose"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().out.endswith(": NOT the same picture\n")


def test_folders_without_the_lora_and_odd_sizes_are_refused(out, tmp_path):
    base, root = out
    with pytest.raises(UserError, match="--height, --width: 40 x 32; this base takes multiples of 16"):
        check(root / "run", root / "pipeline", wan_model(base), Trial(task="depth", height=40, width=32))
    with pytest.raises(UserError, match="has no folder 'depth' of a LoRA; expected what extract_LoRA_weights"):
        check(root / "run", tmp_path, wan_model(base), TRIAL)
    with pytest.raises(UserError, match="neither a checkpoint nor a run folder"):
        check(tmp_path, None, wan_model(base), TRIAL)
