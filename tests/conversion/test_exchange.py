"""Files of other projects in and out of whole runs, on the tiny base."""

import runpy
import shutil
from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.conversion.exchange import export_ctrlora, export_motion, import_ctrlora, parse_tasks
from meta_animator.conversion.motion import load_motion
from meta_animator.errors import UserError
from meta_animator.json_files import write_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.ldm import UNET, unet_names
from meta_animator.settings import ModelConfig
from meta_animator.stages.networks import load_networks
from meta_animator.torch_files import read_state
from meta_animator.weights import load_tensors, save_tensors
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.make_base(tmp_path_factory.mktemp("exchange") / "base")


def make_run(folder, base, **changes):
    """A stage-0 or stage-1 checkpoint with random weights everywhere."""
    config = ModelConfig(base=str(base), tasks=["dwpose", "canny"], lora_rank=4, motion_max_seq_length=8, **changes)
    models = Assembly(config, load_backbone(config), with_motion=True)
    tiny.randomise_zeros(models.control)
    tiny.randomise_zeros(models.motion, seed=1)
    save_tensors(models.state(), folder / "model.safetensors")
    write_json(folder / "manifest.json", {"step": 7, "stage": "control", **metadata_of(models)})
    return models


def test_out_and_in_again(base, tmp_path):
    models = make_run(tmp_path / "run", base, condition_range="unit")
    assert export_ctrlora(tmp_path / "run", tmp_path / "whole.ckpt", base) == []
    metadata = import_ctrlora(tmp_path / "whole.ckpt", tmp_path / "back", ModelConfig(base=str(base)), {})
    assert (metadata["tasks"], metadata["lora_rank"]) == (["dwpose", "canny"], 4)
    assert {"torch", "diffusers", "peft"} <= metadata["versions"].keys()
    assert metadata["condition_range"] == "unit" and metadata["base"] == models.backbone.fingerprint()
    back = read_weights(tmp_path / "back")[1]
    own = {n: w for n, w in models.state().items() if not n.startswith("motion.")}
    assert back.keys() == own.keys() and all(torch.equal(back[n], own[n]) for n in own)


def test_base_and_lora_files(base, tmp_path):
    models = make_run(tmp_path / "run", base)
    notes = export_ctrlora(tmp_path / "run", tmp_path / "base.safetensors", base, "base")
    assert "trained on condition images in [-1, 1]" in notes[0]
    export_ctrlora(tmp_path / "run", tmp_path / "canny.safetensors", base, "lora", "canny")
    model = ModelConfig(base=str(base))
    metadata = import_ctrlora(
        tmp_path / "canny.safetensors", tmp_path / "canny", model, parse_tasks(["canny"]), tmp_path / "base.safetensors"
    )
    assert metadata["tasks"] == ["canny"]
    back = read_weights(tmp_path / "canny")[1]
    assert all(torch.equal(w, models.state()[n]) for n, w in back.items())
    bare = import_ctrlora(tmp_path / "base.safetensors", tmp_path / "bare", model, {})
    assert bare["tasks"] == [] and bare["lora_rank"] == 0
    with pytest.raises(UserError, match="--task: expected one of dwpose, canny, got 'seg'"):
        export_ctrlora(tmp_path / "run", tmp_path / "seg.ckpt", base, "lora", "seg")
    with pytest.raises(UserError, match="'hed' is no task of ours"):
        import_ctrlora(tmp_path / "base.safetensors", tmp_path / "x", model, parse_tasks(["hed=hed"]))


def test_a_base_file_starts_training_but_is_nothing_to_sample_with(base, tmp_path):
    make_run(tmp_path / "run", base)
    export_ctrlora(tmp_path / "run", tmp_path / "base.safetensors", base, "base")
    import_ctrlora(tmp_path / "base.safetensors", tmp_path / "bare", ModelConfig(base=str(base)), {})
    config = tiny.make_config(
        tmp_path / "new", base, tmp_path, model__control_from=tmp_path / "bare", model__condition_range="unit"
    )
    models = load_networks(config.model, config.loss)
    weights = read_weights(tmp_path / "bare")[1]
    assert all(torch.equal(models.state()[n], w) for n, w in weights.items())
    with pytest.raises(UserError, match="has no LoRA for dwpose"):
        load_control(models, *read_weights(tmp_path / "bare"), "bare")
    signed = tiny.make_config(tmp_path / "signed", base, tmp_path, model__control_from=tmp_path / "bare")
    with pytest.raises(UserError, match=r"was trained with model\.condition_range 'unit', this run has 'signed'"):
        load_networks(signed.model, signed.loss)


@pytest.mark.parametrize("mid_block", [False, True])
def test_motion_out_and_in_again(base, tmp_path, mid_block, capsys):
    models = make_run(tmp_path / "run", base, motion_mid_block=mid_block)
    own = {n: w for n, w in models.state().items() if n.startswith("motion.")}
    export_motion(tmp_path / "run", tmp_path / "motion.ckpt", base)
    export_motion(tmp_path / "run", tmp_path / "adapter", base)
    facts = {"base": str(base), "tasks": ["canny"], "lora_rank": 4, "motion_max_seq_length": 8}
    for source in ("motion.ckpt", "adapter"):
        config = ModelConfig(**facts, motion_mid_block=mid_block)
        loaded = Assembly(config, load_backbone(config), with_motion=True)
        load_motion(loaded, str(tmp_path / source))
        assert "trained with model.beta_schedule=linear" in capsys.readouterr().out
        assert all(torch.equal(loaded.state()[n], w) for n, w in own.items())
    other = ModelConfig(**facts, motion_mid_block=not mid_block)
    with pytest.raises(UserError, match=f"set model.motion_mid_block={str(mid_block).lower()}"):
        load_motion(Assembly(other, load_backbone(other), with_motion=True), str(tmp_path / "motion.ckpt"))
    longer = ModelConfig(**facts | {"motion_max_seq_length": 16}, motion_mid_block=mid_block)
    longer = Assembly(longer, load_backbone(longer), with_motion=True)
    for source in ("motion.ckpt", "adapter", "run"):
        with pytest.raises(UserError, match=r"knows 8 positions, this run has model\.motion_max_seq_length=16"):
            load_motion(longer, str(tmp_path / source))


def test_motion_files_that_are_none(base, tmp_path):
    make_run(tmp_path / "run", base)
    export_motion(tmp_path / "run", tmp_path / "motion.pt", base)
    state = read_state(tmp_path / "motion.pt")
    config = ModelConfig(base=str(base), tasks=["canny"], lora_rank=4, motion_max_seq_length=8)
    models = Assembly(config, load_backbone(config), with_motion=True)

    def refused(changes: dict, match: str) -> None:
        changed = {n: w for n, w in {**state, **changes}.items() if w is not None}
        torch.save(changed, tmp_path / "changed.pt")
        with pytest.raises(UserError, match=match):
            load_motion(models, str(tmp_path / "changed.pt"))

    table = next(n for n in state if n.endswith("pos_encoder.pe"))
    refused({table: None}, r"has no table of positions \(.*pos_encoder\.pe\), so it was trained without")
    refused({table: state[table][0]}, r"has shape \(8, \d+\); expected \(1, positions, channels\)")
    refused({table: state[table] + 1}, "is not the usual table of sines")
    refused({"conv_in.weight": torch.zeros(1)}, "1 weights are not of a motion module, the first is conv_in.weight")
    refused({"input_blocks_motion_module.0.0.x": torch.zeros(1)}, "released Meta-Animator's layout")


def one_line(match: str):
    """Like pytest.raises, for a UserError without a line break."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{match}[^\n]*\Z")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    """A checkpoint with everything in it."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, base)
    return folder


def changed(run, folder, weights=(), **facts):
    """A copy of a checkpoint without the weights whose names start with `weights`, and with other facts in its metadata."""
    metadata, state = read_weights(run)
    save_tensors({n: w for n, w in state.items() if not n.startswith(tuple(weights))}, folder / "model.safetensors")
    metadata = {key: value for key, value in {**metadata, **facts}.items() if value != "left out"}
    write_json(folder / "manifest.json", metadata)
    return folder


def start_from(run, base):
    config = ModelConfig(base=str(base), tasks=["canny"], lora_rank=4, motion_max_seq_length=8)
    models = Assembly(config, load_backbone(config), with_motion=True)
    load_control(models, *read_weights(run), str(run))
    return models


DAMAGED = [
    ({"lora_rank": "left out"}, "'lora_rank' is missing"),
    ({"base": None}, "'base' is None; expected a string"),
    ({"base": "12345678:AAA"}, "'base' is '12345678:AAA'; expected the name of weights"),
    ({"tasks": None}, "'tasks' is None; expected a list"),
    ({"tasks": [3]}, "'tasks' holds 3; expected names"),
    ({"identifiers": []}, r"'identifiers' is \[\]; expected a mapping"),
    ({"tasks": ["dwpose", "canny", "seg"]}, "lists LoRA 'seg', but its weights hold none"),
    ({"tasks": ["canny"]}, "weights hold 'lora.dwpose', which its metadata does not list"),
    ({"weights": ["lora.canny."]}, "lists LoRA 'canny', but its weights hold none"),
]


@pytest.mark.parametrize(("changes", "match"), DAMAGED)
def test_damaged_checkpoints_are_one_line_everywhere(base, run, tmp_path, changes, match):
    damaged = changed(run, tmp_path / "damaged", **changes)
    with one_line(match):
        export_ctrlora(damaged, tmp_path / "out.ckpt", base)
    with one_line(match):
        start_from(damaged, base)
    assert not (tmp_path / "out.ckpt").exists()


def test_a_manifest_that_is_a_list_and_a_run_of_the_base(base, run, tmp_path):
    damaged = changed(run, tmp_path / "list")
    (damaged / "manifest.json").write_text("[1]")
    base_run = changed(run, tmp_path / "base_run", stage="base_unet")
    for export in (export_ctrlora, export_motion):
        with one_line(r"manifest.json: is \[1\]; expected a mapping"):
            export(damaged, tmp_path / "out.ckpt", base)
        with one_line("is a 'base_unet' run; give one of stages 0 to 2"):
            export(base_run, tmp_path / "out.ckpt", base)


def test_exports_for_another_architecture_are_refused(base, run, tmp_path):
    tiny.tiny_unet(block_out_channels=(16, 24)).save_pretrained(tmp_path / "narrow" / "unet")
    for architecture, match in ((tiny.SD15, "weights are missing"), (tmp_path / "narrow", "has shape")):
        with one_line(f"for the architecture in {architecture} .*{match}"):
            export_ctrlora(run, tmp_path / "out.ckpt", architecture)
        with one_line(f"for the architecture in {architecture} .*{match}"):
            export_motion(run, tmp_path / "out.ckpt", architecture)
    for export in (export_ctrlora, export_motion):
        with one_line("unet/config.json: no such file"):
            export(run, tmp_path / "out.ckpt", tmp_path / "nope")
    lacking = changed(run, tmp_path / "lacking", ["control.time_embedding.linear_1.bias"])
    with one_line("1 weights are missing, the first is time_embedding.linear_1.bias"):
        export_ctrlora(lacking, tmp_path / "out.ckpt", base)
    with one_line("LoRA 'dwpose': .*has shape"):
        export_ctrlora(changed(run, tmp_path / "rank", lora_rank=2), tmp_path / "out.ckpt", base)
    assert not (tmp_path / "out.ckpt").exists()


def test_exports_say_what_to_mind(base, run, tmp_path):
    (tmp_path / "motion").touch()
    with one_line("motion: is a file; give a name that ends in"):
        export_motion(run, tmp_path / "motion", base)
    assert "beta_schedule 'scaled_linear', its base's own" in export_motion(run, tmp_path / "own.ckpt", base)[0]
    linear = changed(run, tmp_path / "linear", beta_schedule="linear")
    assert export_motion(linear, tmp_path / "linear.ckpt", base) == []
    tuned = changed(run, tmp_path / "tuned", condition_range="unit", trained_tensors={"control": 3, "lora": 4})
    assert export_ctrlora(tuned, tmp_path / "whole.ckpt", base) == []
    (note,) = export_ctrlora(tuned, tmp_path / "canny.ckpt", base, "lora", "canny")
    assert "belongs with the base file of the same run (--part base)" in note
    changed(run, tmp_path / "tuned", condition_range="unit", person_lora_rank=1)
    state = load_tensors(tmp_path / "tuned" / "model.safetensors") | {"person.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3)}
    save_tensors(state, tmp_path / "tuned" / "model.safetensors")
    (note,) = export_ctrlora(tuned, tmp_path / "whole.ckpt", base)
    assert "extract_LoRA_weights.sh writes it into a folder `person`" in note


def test_which_tasks_are_imported(base, run, tmp_path):
    model, out = ModelConfig(base=str(base)), tmp_path / "out"
    for kind, task in (("whole", ""), ("base", ""), ("lora", "canny")):
        export_ctrlora(run, tmp_path / f"{kind}.ckpt", base, kind, task)
    for twice in (["canny=dwpose", "dwpose=dwpose"], ["canny=seg", "canny=dwpose"], ["canny", "canny"]):
        with one_line("is named twice"):
            parse_tasks(twice)
    with one_line("is a base file without a LoRA; leave --tasks out"):
        import_ctrlora(tmp_path / "base.ckpt", out, model, parse_tasks(["canny"]))
    with one_line("say which one task it is"):
        import_ctrlora(tmp_path / "lora.ckpt", out, model, parse_tasks(["canny", "seg"]), tmp_path / "base.ckpt")
    assert not out.exists()
    assert import_ctrlora(tmp_path / "whole.ckpt", out, model, parse_tasks(["canny"]))["tasks"] == ["canny"]
    assert import_ctrlora(tmp_path / "whole.ckpt", out, model, parse_tasks(["canny=seg", "dwpose"]))["tasks"] == ["seg", "dwpose"]


def test_a_lora_of_another_shape_is_not_imported(base, run, tmp_path):
    export_ctrlora(run, tmp_path / "base.ckpt", base, "base")
    export_ctrlora(run, tmp_path / "lora.ckpt", base, "lora", "canny")
    state = read_state(tmp_path / "lora.ckpt")
    name = "control_model.time_embed.0.lora_layer.up.weight"
    for wrong, match in ((state[name][:-1], r"LoRA 'canny': .* has shape"), (state[name][0], "has shape")):
        torch.save({**state, name: wrong}, tmp_path / "wrong.ckpt")
        with one_line(match):
            import_ctrlora(
                tmp_path / "wrong.ckpt", tmp_path / "out", ModelConfig(base=str(base)), {"": "canny"}, tmp_path / "base.ckpt"
            )
    assert not (tmp_path / "out").exists()


def test_a_base_unet_in_a_whole_checkpoint_is_compared(base, run, tmp_path, capsys):
    unet = load_backbone(ModelConfig(base=str(base))).unet
    names = unet_names(unet.state_dict(), unet.config.layers_per_block)
    carried = {UNET + names[n]: w.half() for n, w in unet.state_dict().items()}
    export_ctrlora(run, tmp_path / "whole.ckpt", base)
    state, name = read_state(tmp_path / "whole.ckpt"), UNET + "input_blocks.0.0.weight"
    for unlike, noted in ({}, False), ({name: carried[name] + 0.1}, True), ({name: torch.zeros(2)}, True):
        torch.save({**state, **carried, **unlike}, tmp_path / "full.ckpt")
        import_ctrlora(tmp_path / "full.ckpt", tmp_path / "out", ModelConfig(base=str(base)), {})
        assert (f"({name} is the first to differ)" in capsys.readouterr().out) is noted


def test_training_on_with_other_latents_of_the_condition_is_said(base, tmp_path, capsys):
    make_run(tmp_path / "run", base, condition_posterior="sample")
    for own, noted in (("mode", True), ("sample", False)):
        config = tiny.make_config(
            tmp_path / own, base, tmp_path, model__control_from=tmp_path / "run", model__condition_posterior=own,
            model__tasks="[canny]",
        )  # fmt: skip
        load_networks(config.model, config.loss)
        assert ("set model.condition_posterior=sample data.cache_latents=false" in capsys.readouterr().out) is noted


def test_the_command_takes_a_vae_and_says_how_to_go_on(base, run, tmp_path, capsys, monkeypatch):
    export_ctrlora(run, tmp_path / "whole.ckpt", base)
    bare = shutil.copytree(base, tmp_path / "bare")
    vae, tokenizer = (shutil.move(bare / name, tmp_path / name) for name in ("vae", "tokenizer"))
    arguments = ["import-control", tmp_path / "whole.ckpt", tmp_path / "out", "--base", bare]
    monkeypatch.setattr("sys.argv", ["convert.py", *map(str, [*arguments, "--vae", vae, "--tokenizer", tokenizer])])
    runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "convert.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "model.condition_range=unit" in said and "model.condition_posterior=sample data.cache_latents=false" in said
    assert read_weights(tmp_path / "out")[0]["base"] == read_weights(run)[0]["base"]
