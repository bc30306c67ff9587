"""Ours out, for Wan: what PEFT, diffusers and ComfyUI load, and back into a run of ours."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, WanVACEPipeline, WanVACETransformer3DModel
from peft import PeftModel

from meta_animator.checkpoints.extracted import load_control_folder, load_loras
from meta_animator.checkpoints.files import Checkpoint, save_checkpoint
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.conversion.exchange import export_motion
from meta_animator.conversion.lora import extract
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ExtractConfig
from meta_animator.weights import load_tensors
from tests.tiny import make_config, randomise_zeros
from tests.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, make_wan, wan_model

TASKS = ["dwpose", "depth"]


def save_wan_run(run, base, **changes):
    """A run folder with one checkpoint of random weights; returns the models that it holds."""
    torch.manual_seed(5)
    models = Assembly(wan_model(base, **changes), load_backbone(wan_model(base, **changes)), with_person=True)
    randomise_zeros(models.control, seed=5)
    for name, weight in models.person.named_parameters() if models.person else ():
        if name.endswith("lora_B.weight"):
            torch.nn.init.normal_(weight, std=0.1)
    models.identifiers = {"held-out": "<id001>"}
    about = {"stage": "reference", "prompt": "Person looks like {identifier}", "person": "held-out"}
    save_checkpoint(run, Checkpoint(step=7, metadata=about | metadata_of(models), model=models.state()), keep=1)
    return models


def save_motion_run(run, base):
    """The same of stage 1: a LoRA on the base's self-attention."""
    torch.manual_seed(6)
    config = wan_model(base, motion_lora_rank=3)
    models = Assembly(config, load_backbone(config), with_motion=True)
    for name, weight in models.motion.named_parameters():
        if name.endswith("lora_B.weight"):
            torch.nn.init.normal_(weight, std=0.3)
    state = {n: w for n, w in models.state().items() if n.startswith("motion.")}
    save_checkpoint(run, Checkpoint(step=3, metadata={"stage": "motion"} | metadata_of(models), model=state), keep=1)
    return models


@pytest.fixture(scope="module", params=["vace", "t2v"])
def trained(request, tmp_path_factory, tiny_wan):
    """(base, models of a checkpoint on it, the checkpoint's run folder)"""
    root = tmp_path_factory.mktemp(request.param)
    base = tiny_wan if request.param == "vace" else make_wan(root / "base", vace=False)
    return base, save_wan_run(root / "run", base), root / "run"


@pytest.fixture(scope="module")
def extracted(trained):
    """(base, models of a checkpoint, folder of what was extracted from it)"""
    base, models, run = trained
    folders = extract(ExtractConfig(checkpoint=str(run)), wan_model(base), run.parent / "loras")
    assert [folder.name for folder in folders] == ["controlnet", *TASKS]
    return base, models, run.parent / "loras"


@torch.no_grad()
def ours(models, lora, seed=0):
    x_t, t, context, control_input = inputs(seed)
    models.control.bank.use(lora)
    control = models.control(control_input.transpose(1, 2), t, context)
    return models.backbone.predict(x_t.transpose(1, 2), t, context, control).transpose(1, 2)


@torch.no_grad()
def theirs(transformer, seed=0):
    x_t, t, context, control_input = inputs(seed)
    return transformer(x_t, t, context, control_hidden_states=control_input, return_dict=False)[0]


def inputs(seed):
    """(x_t b c f h w, t, context, control input)"""
    g = torch.Generator().manual_seed(seed)
    x_t, shown = torch.randn(1, LATENT_CHANNELS, 2, 4, 4, generator=g), torch.randn(1, 72, 2, 4, 4, generator=g)
    return x_t, torch.tensor([430.0]), torch.randn(1, 5, TEXT_WIDTH, generator=g), shown


def test_back_in_a_fresh_model_weights_are_equal_bit_for_bit(extracted):
    base, models, folder = extracted
    torch.manual_seed(99)
    fresh = Assembly(wan_model(base), load_backbone(wan_model(base)))
    metadata = load_control_folder(fresh, folder / "controlnet")
    loras = load_loras(fresh, {folder / "depth": 1.0})
    for name, weight in models.control.base_state().items():
        assert torch.equal(fresh.control.base_state()[name], weight)
    for name, weight in models.control.bank.state("depth").items():
        assert torch.equal(fresh.control.bank.state(next(iter(loras)))[name], weight)
    assert torch.equal(ours(fresh, loras), ours(models, "depth"))
    assert metadata["person"] == "held-out" and fresh.identifiers == models.identifiers


def plain(base, folder, control):
    """diffusers' transformer of the base with the extracted branch."""
    config = json.loads((folder / "controlnet" / "config.json").read_text())
    transformer = WanVACETransformer3DModel.from_config(config).eval()
    state = {n: w for n, w in load_tensors(base / "transformer" / "diffusion_pytorch_model.safetensors").items()}
    transformer.load_state_dict({n: w for n, w in state.items() if not n.startswith("vace_")} | control, strict=True)
    return transformer


@pytest.mark.parametrize("task", TASKS)
def test_peft_and_diffusers_alone_load_a_task(extracted, task):
    base, models, folder = extracted
    control = load_tensors(folder / "controlnet" / "diffusion_pytorch_model.safetensors")
    wanted = ours(models, task)
    assert (wanted - ours(models, None)).abs().max() > 1e-3
    network = PeftModel.from_pretrained(plain(base, folder, control), folder / task)
    assert sum("lora_" in n for n, _ in network.named_parameters()) == 2 * len(models.control.bank.layers)
    torch.testing.assert_close(theirs(network.base_model.model), wanted, rtol=0, atol=1e-5)

    transformer = plain(base, folder, control)
    pipeline = WanVACEPipeline.from_pretrained(base, transformer=transformer)
    pipeline.load_lora_weights(folder / task)
    assert sum("lora_A" in n for n, _ in transformer.named_parameters()) == len(models.control.bank.layers)
    torch.testing.assert_close(theirs(transformer), wanted, rtol=0, atol=1e-5)


def test_original_names_are_those_of_the_published_files(extracted):
    _, models, folder = extracted
    state = load_tensors(folder / "dwpose" / "comfyui_lora.safetensors")
    attention = [f"{kind}_attn.{one}" for kind in ("self", "cross") for one in "qkvo"]
    linears = {f"vace_blocks.{k}.{one}" for k in (0, 1) for one in (*attention, "ffn.0", "ffn.2", "after_proj")}
    linears.add("vace_blocks.0.before_proj")
    assert set(state) == {f"diffusion_model.{one}.lora_{half}.weight" for one in linears for half in "AB"}
    own = models.control.bank.state("dwpose")
    for theirs_, ours_ in (
        ("vace_blocks.1.cross_attn.o", "vace_blocks.1.attn2.to_out.0"), ("vace_blocks.0.ffn.0", "vace_blocks.0.ffn.net.0.proj"),
        ("vace_blocks.1.after_proj", "vace_blocks.1.proj_out"), ("vace_blocks.0.before_proj", "vace_blocks.0.proj_in"),
    ):  # fmt: skip
        assert torch.equal(state[f"diffusion_model.{theirs_}.lora_B.weight"], own[f"{ours_}.lora_B.weight"])


def test_a_merged_pipeline_predicts_the_same_and_shares_the_other_parts(trained, tmp_path):
    base, models, run = trained
    (folder,) = extract(ExtractConfig(checkpoint=str(run), merge="depth"), wan_model(base, flow_shift=5.0), tmp_path)
    assert folder == tmp_path / "pipeline"
    pipeline = WanVACEPipeline.from_pretrained(folder)
    torch.testing.assert_close(theirs(pipeline.transformer), ours(models, "depth"), rtol=0, atol=1e-5)
    assert pipeline.scheduler.config.flow_shift == 5.0
    assert json.loads((base / "scheduler" / "scheduler_config.json").read_text())["flow_shift"] == 3.0, "the base's own"
    weights = Path("vae") / "diffusion_pytorch_model.safetensors"
    assert (folder / weights).samefile(base / weights)
    assert json.loads((folder / "metadata.json").read_text())["merged"] == "depth"
    with pytest.raises(UserError, match=r"pipeline is a whole pipeline with a LoRA folded in, .*; stage 3 takes the run"):
        load_control_folder(models, folder)


def test_a_base_on_the_hub_is_taken_by_its_name(tiny_wan, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **_: asked.append(name) or str(tiny_wan))
    models = save_wan_run(tmp_path / "run", tiny_wan)
    for merge in ("", "depth"):
        extract(ExtractConfig(checkpoint=str(tmp_path / "run"), merge=merge), wan_model("owner/wan"), tmp_path / "out")
    pipeline = WanVACEPipeline.from_pretrained(tmp_path / "out" / "pipeline")
    torch.testing.assert_close(theirs(pipeline.transformer), ours(models, "depth"), rtol=0, atol=1e-5)
    assert set(asked) == {"owner/wan"} and (tmp_path / "out" / "dwpose").is_dir()


def test_the_motion_of_stage_1_goes_into_a_pipeline_and_into_files_of_its_own(trained, tmp_path):
    base, models, run = trained
    motion = save_motion_run(tmp_path / "motion", base)
    model = wan_model(base, motion_from=str(tmp_path / "motion"))
    (folder,) = extract(ExtractConfig(checkpoint=str(run), merge="depth"), model, tmp_path)
    motion.load(models.state(), "run", {"control", "lora.dwpose", "lora.depth"})
    wanted = ours(motion, "depth")
    assert (wanted - ours(models, "depth")).abs().max() > 1e-3
    pipeline = WanVACEPipeline.from_pretrained(folder)
    torch.testing.assert_close(theirs(pipeline.transformer), wanted, rtol=0, atol=1e-5)

    assert export_motion(tmp_path / "motion", tmp_path / "lora", base) == []
    again = Assembly(wan_model(base), load_backbone(wan_model(base, base_loras={str(tmp_path / "lora"): 1.0})))
    again.load(models.state(), "run", {"control", "lora.dwpose", "lora.depth"})
    torch.testing.assert_close(ours(again, "depth"), wanted, rtol=0, atol=1e-5)
    first = "diffusion_model.blocks.0.self_attn.k.lora_A.weight"
    assert min(load_tensors(tmp_path / "lora" / "comfyui_lora.safetensors")) == first


# bad input


def refused(message, config, model, output):
    with pytest.raises(UserError, match=message) as error:
        extract(config, model, output)
    assert "\n" not in str(error.value)
    assert not list(output.glob("*")) and not list(output.glob(".*"))


def test_checkpoints_that_do_not_fit_are_refused_and_nothing_is_written(tiny_wan, tiny_base, puppet_data, tmp_path):
    save_wan_run(tmp_path / "run", tiny_wan)
    config, output = ExtractConfig(checkpoint=str(tmp_path / "run"), merge="depth"), tmp_path / "out"
    sd = make_config(tmp_path / "sd", tiny_base, puppet_data).model
    refused("run/checkpoints/.*: was trained with model.backbone=wan; expected a run with model.backbone=sd", config, sd, output)
    other = make_wan(tmp_path / "other", seed=1)
    refused("was trained on base [0-9a-f]{12}, .*other is base", config, wan_model(other), output)
    (other / "model_index.json").unlink()
    refused("no model_index.json; a pipeline is made of a whole model", config, wan_model(other), output)
    nowhere = wan_model(tmp_path / "nowhere", architecture=str(tiny_wan))
    refused("no such file or folder here", config, nowhere, output)
    control_only = wan_model(tiny_wan, motion_from=str(tmp_path / "run"))
    refused("model.motion_from: .*run: holds no LoRA on the base's self-attention", config, control_only, output)
    config.merge = ""
    refused("model.motion_from: goes into a pipeline only", config, control_only, output)
    config.merge = "seg"
    refused("has no LoRA 'seg'; it has: dwpose, depth", config, wan_model(tiny_wan), output)


def test_a_persons_lora_has_the_names_that_comfyui_knows(tiny_wan, tmp_path, capsys):
    """Those of the original files, as tasks have them; and a pipeline that has it folded in lacks nothing."""
    save_wan_run(tmp_path / "run", tiny_wan, person_lora_rank=2)
    extract(ExtractConfig(checkpoint=str(tmp_path / "run")), wan_model(tiny_wan), tmp_path / "loras")
    diffusers_, comfyui = (
        load_tensors(tmp_path / "loras" / "person" / f"{name}.safetensors") for name in ("pytorch_lora_weights", "comfyui_lora")
    )
    assert len(comfyui) == len(diffusers_) and all(name.startswith("diffusion_model.") for name in comfyui)
    up = diffusers_["transformer.blocks.0.attn1.to_q.lora_B.weight"]
    assert torch.equal(comfyui["diffusion_model.blocks.0.self_attn.q.lora_B.weight"], up)
    capsys.readouterr()
    extract(ExtractConfig(checkpoint=str(tmp_path / "run"), merge="depth"), wan_model(tiny_wan), tmp_path / "out")
    assert "was trained with model.base_loras" not in capsys.readouterr().out
