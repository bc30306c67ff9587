"""Files of other projects in and out of whole runs, on the tiny base."""

import pytest
import torch

from meta_animator.conversion.exchange import export_ctrlora, export_motion, import_ctrlora, parse_tasks
from meta_animator.conversion.motion import load_motion
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ModelConfig
from meta_animator.stages.build import build_models
from meta_animator.torch_files import read_state
from meta_animator.training.checkpoint import read_weights
from meta_animator.weights import save_tensors, write_json
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
    write_json(folder / "manifest.json", {"step": 7, "stage": "control", **models.manifest()})
    return models


def test_out_and_in_again(base, tmp_path):
    models = make_run(tmp_path / "run", base, condition_range="unit")
    assert export_ctrlora(tmp_path / "run", tmp_path / "whole.ckpt", base) == []
    manifest = import_ctrlora(tmp_path / "whole.ckpt", tmp_path / "back", ModelConfig(base=str(base)), {})
    assert (manifest["tasks"], manifest["lora_rank"]) == (["dwpose", "canny"], 4)
    assert {"torch", "diffusers", "peft"} <= manifest["versions"].keys()
    assert manifest["condition_range"] == "unit" and manifest["base"] == models.backbone.fingerprint()
    back = read_weights(tmp_path / "back")[1]
    own = {n: w for n, w in models.state().items() if not n.startswith("motion.")}
    assert back.keys() == own.keys() and all(torch.equal(back[n], own[n]) for n in own)


def test_base_and_lora_files(base, tmp_path):
    models = make_run(tmp_path / "run", base)
    notes = export_ctrlora(tmp_path / "run", tmp_path / "base.safetensors", base, "base")
    assert "trained on condition images in [-1, 1]" in notes[0]
    export_ctrlora(tmp_path / "run", tmp_path / "canny.safetensors", base, "lora", "canny")
    model = ModelConfig(base=str(base))
    manifest = import_ctrlora(
        tmp_path / "canny.safetensors", tmp_path / "canny", model, parse_tasks(["canny"]), tmp_path / "base.safetensors"
    )
    assert manifest["tasks"] == ["canny"]
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
    models = build_models(config, ["a"])
    weights = read_weights(tmp_path / "bare")[1]
    assert all(torch.equal(models.state()[n], w) for n, w in weights.items())
    with pytest.raises(UserError, match="has no LoRA for dwpose"):
        models.load_control(*read_weights(tmp_path / "bare"), "bare")
    signed = tiny.make_config(tmp_path / "signed", base, tmp_path, model__control_from=tmp_path / "bare")
    with pytest.raises(UserError, match=r"was trained with model\.condition_range 'unit', this run has 'signed'"):
        build_models(signed, ["a"])


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
    with pytest.raises(UserError, match=r"knows 8 positions, this run has model\.motion_max_seq_length=16"):
        load_motion(Assembly(longer, load_backbone(longer), with_motion=True), str(tmp_path / "motion.ckpt"))


def test_motion_files_that_are_none(base, tmp_path):
    make_run(tmp_path / "run", base)
    export_motion(tmp_path / "run", tmp_path / "motion.pt", base)
    state = read_state(tmp_path / "motion.pt")
    config = ModelConfig(base=str(base), tasks=["canny"], lora_rank=4, motion_max_seq_length=8)
    models = Assembly(config, load_backbone(config), with_motion=True)

    def refused(changes: dict, match: str) -> None:
        torch.save({**state, **changes}, tmp_path / "changed.pt")
        with pytest.raises(UserError, match=match):
            load_motion(models, str(tmp_path / "changed.pt"))

    table = next(n for n in state if n.endswith("pos_encoder.pe"))
    refused({table: state[table] + 1}, "is not the usual table of sines")
    refused({"conv_in.weight": torch.zeros(1)}, "1 weights are not of a motion module, the first is conv_in.weight")
    refused({"input_blocks_motion_module.0.0.x": torch.zeros(1)}, "released Meta-Animator's layout")
