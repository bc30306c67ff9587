"""Extraction: a checkpoint's LoRAs as PEFT folders, read by PEFT alone and by a fresh Meta ControlNet."""

import json
import shutil

import pytest
import torch
from diffusers import ControlNetModel
from peft import PeftModel

from meta_animator.checkpoints.extracted import load_control_folder, load_loras
from meta_animator.checkpoints.files import Checkpoint, save_checkpoint
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.errors import UserError
from meta_animator.fingerprints import short
from meta_animator.models.control import ControlOutput, NoHint
from meta_animator.stages.sample import load_animator
from meta_animator.weights import load_tensors, save_tensors
from tests import tiny

PERSON = {"p0": "<id000>", "held-out": "<id001>"}


def load_extracted(models, folder) -> str:
    """The name of one LoRA in the bank."""
    return next(iter(load_loras(models, {folder: 1.0})))


def save_run(config, seed=0, drop=()):
    """A run folder with one checkpoint of random weights; returns the models that it holds."""
    torch.manual_seed(seed)
    models = tiny.make_models(config.model)
    tiny.randomise_zeros(models.control, seed=seed)
    models.identifiers = dict(PERSON)
    metadata = {"stage": "reference", "prompt": "Person looks like {identifier}", "person": "held-out"}
    state = {n: p for n, p in models.state().items() if not n.startswith(tuple(drop))}
    checkpoint = Checkpoint(step=7, metadata=metadata | metadata_of(models), model=state)
    save_checkpoint(tiny.Path(config.output_dir), checkpoint, keep=1)
    return models


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_base, puppet_data):
    """(models of a checkpoint, folder of what was extracted from it)"""
    folder = tmp_path_factory.mktemp("original")
    run = tiny.make_config(folder / "run", tiny_base, puppet_data)
    models = save_run(run)
    config = tiny.make_config(folder / "loras", tiny_base, puppet_data, "extract", extract__checkpoint=run.output_dir)
    assert [f.name for f in tiny.extract(config)] == ["controlnet", *tiny.TASKS]
    return models, folder


@pytest.fixture
def extracted(original, make_config, tmp_path):
    """(models of the checkpoint, fresh models of the same base, a copy of the extracted folder, its config)"""
    models, folder = original
    config = make_config("extract", name="loras", extract__checkpoint=folder / "run")
    shutil.copytree(folder / "loras", tmp_path / "loras", dirs_exist_ok=True)
    torch.manual_seed(99)
    return models, tiny.make_models(config.model), tmp_path / "loras", config


def same_outputs(one, two, exact=True):
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
    for a, b in zip([*one.down, one.mid], [*two.down, two.mid], strict=True):
        assert a.abs().max() > 1e-3
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("task", tiny.TASKS)
def test_back_in_a_fresh_meta_controlnet_outputs_are_equal_bit_for_bit(extracted, task):
    models, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    name = load_extracted(fresh, folder / task)
    models.control.bank.use(task)
    fresh.control.bank.use(name)
    with torch.no_grad():
        same_outputs(models.control(*tiny.control_inputs()), fresh.control(*tiny.control_inputs()))
    assert fresh.identifiers == PERSON


@pytest.mark.parametrize("task", tiny.TASKS)
def test_peft_alone_loads_a_task(extracted, task):
    models, _, folder, _ = extracted
    plain = ControlNetModel.from_config(ControlNetModel.load_config(folder / "controlnet"))
    plain.controlnet_cond_embedding = NoHint()
    plain.load_state_dict(load_tensors(folder / "controlnet" / "diffusion_pytorch_model.safetensors"), strict=True)
    network = PeftModel.from_pretrained(plain.eval(), folder / task)
    assert sum("lora_" in n for n, _ in network.named_parameters()) == 2 * len(models.control.bank.layers)
    latents, t, context = tiny.control_inputs()
    with torch.no_grad():
        down, mid = network(latents, t, context, controlnet_cond=latents, return_dict=False)
        models.control.bank.use(task)
        same_outputs(models.control(latents, t, context), ControlOutput(tuple(down), mid), exact=False)


def test_metadata_says_where_a_lora_belongs(extracted):
    models, _, folder, _ = extracted
    metadata = json.loads((folder / "seg" / "metadata.json").read_text())
    assert metadata["base"] == models.backbone.fingerprint() and metadata["control"] == models.fingerprint("control")
    assert (metadata["lora_rank"], metadata["task"], metadata["step"], metadata["stage"]) == (4, "seg", 7, "reference")
    assert (metadata["person"], metadata["identifier"], metadata["identifiers"]) == ("held-out", "<id001>", PERSON)
    adapter = json.loads((folder / "seg" / "adapter_config.json").read_text())
    assert adapter["r"] == adapter["lora_alpha"] == 4
    assert adapter["target_modules"] == sorted(models.control.bank.layers)


def test_a_chosen_task_replaces_its_old_folder_and_no_other(extracted, make_config):
    _, _, folder, config = extracted
    (folder / "seg" / "old").touch()
    (folder / "blurred" / "kept").touch()
    config.extract.tasks = ["seg"]
    tiny.extract(config)
    assert not (folder / "seg" / "old").exists() and (folder / "blurred" / "kept").exists()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_two_loras_of_one_task_live_side_by_side(extracted):
    _, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    one, two = (load_extracted(fresh, folder / "seg") for _ in range(2))
    assert one != two
    with torch.no_grad():
        fresh.control.bank.use({one: 0.25, two: 0.75})
        mixed = fresh.control(*tiny.control_inputs())
        fresh.control.bank.use(one)
        same_outputs(mixed, fresh.control(*tiny.control_inputs()), exact=False)


def test_the_controlnet_is_named_once_for_all_loras(extracted, monkeypatch):
    _, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    asked, name = [], fresh.fingerprint
    monkeypatch.setattr(fresh, "fingerprint", lambda part: asked.append(part) or name(part))
    loras = load_loras(fresh, {folder / task: 0.5 + k for k, task in enumerate(tiny.TASKS)})
    assert asked == ["control"] and list(loras.values()) == [0.5, 1.5, 2.5]
    assert set(loras) < set(fresh.control.bank.tasks) and load_loras(fresh, {}) == {} and asked == ["control"]


# bad input


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_lora_of_another_base_is_refused(extracted, tmp_path):
    models, _, folder, config = extracted
    config.model.base = str(tiny.make_base(tmp_path / "other", seed=1))
    other = tiny.make_models(config.model)
    for load, name in ((load_extracted, "seg"), (load_control_folder, "controlnet")):
        with pytest.raises(UserError) as error:
            load(other, folder / name)
        message = one_line(error)
        assert short(models.backbone.fingerprint()) in message and short(other.backbone.fingerprint()) in message


def test_a_lora_of_another_controlnet_is_refused(extracted):
    models, fresh, folder, _ = extracted
    with pytest.raises(UserError) as error:
        load_extracted(fresh, folder / "seg")
    message = one_line(error)
    assert short(models.fingerprint("control")) in message and short(fresh.fingerprint("control")) in message
    assert fresh.control.bank.tasks == tiny.TASKS


def test_a_lora_of_another_rank_is_refused(extracted):
    _, _, folder, config = extracted
    config.model.lora_rank = 2
    other = tiny.make_models(config.model)
    load_control_folder(other, folder / "controlnet")
    with pytest.raises(UserError, match=r"has LoRA rank 4, this run's model.lora_rank is 2") as error:
        load_extracted(other, folder / "seg")
    one_line(error)


def test_a_lora_with_a_missing_layer_leaves_the_bank_as_it_was(extracted):
    from safetensors.torch import save_file

    _, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    weights = load_tensors(folder / "seg" / "adapter_model.safetensors")
    lost = sorted(weights)[3]
    save_file({n: w for n, w in weights.items() if n != lost}, folder / "seg" / "adapter_model.safetensors")
    with pytest.raises(UserError, match="1 weights are missing") as error:
        load_extracted(fresh, folder / "seg")
    assert lost.removeprefix("base_model.model.") in one_line(error)
    assert fresh.control.bank.tasks == tiny.TASKS
    assert list(next(iter(fresh.control.bank.layers.values())).down) == tiny.TASKS


def test_folders_that_are_no_lora(extracted, tmp_path):
    _, fresh, folder, _ = extracted
    with pytest.raises(UserError, match="expected a folder written by extract_LoRA_weights"):
        load_extracted(fresh, tmp_path)
    with pytest.raises(UserError, match="not the folder of a LoRA"):
        load_extracted(fresh, folder / "controlnet")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metadata.json", {"base": None}, "'base' is None; expected a string"),
        ("metadata.json", {"base": "damaged"}, "'base' is 'damaged'; expected the name of weights"),
        ("metadata.json", {"lora_rank": "4"}, "'lora_rank' is '4'; expected a whole number"),
        ("adapter_config.json", {"lora_alpha": 8}, "has r=4, lora_alpha=8, use_rslora=False; expected r=4, lora_alpha=4"),
        ("adapter_config.json", {"r": 2}, "has r=2, lora_alpha=4"),
        ("adapter_config.json", {"use_rslora": True}, "use_rslora=True; expected"),
    ],
)
def test_folders_that_contradict_themselves(extracted, file, change, message):
    _, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    facts = json.loads((folder / "seg" / file).read_text())
    (folder / "seg" / file).write_text(json.dumps(facts | change))
    with pytest.raises(UserError, match=message) as error:
        load_extracted(fresh, folder / "seg")
    one_line(error)


def test_weights_of_another_rank_than_the_metadata_says(extracted):
    _, fresh, folder, _ = extracted
    load_control_folder(fresh, folder / "controlnet")
    file = folder / "seg" / "adapter_model.safetensors"
    halved = {n: w[:2] if "lora_A" in n else w[:, :2] for n, w in load_tensors(file).items()}
    save_tensors(halved, file)
    with pytest.raises(UserError, match=r"has shape \(2, \d+\), metadata.json says lora_rank 4; is it damaged") as error:
        load_extracted(fresh, folder / "seg")
    one_line(error)


def test_a_checkpoint_that_lacks_a_listed_lora_is_not_extracted(make_config):
    run = make_config(name="run")
    save_run(run, drop=["lora.seg."])
    with pytest.raises(UserError, match="lists LoRA 'seg', but its weights hold none") as error:
        tiny.extract(make_config("extract", name="loras", extract__checkpoint=run.output_dir))
    one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extract__checkpoint": ""}, "extract.checkpoint is empty"),
        ({"extract__checkpoint": "nowhere"}, "train that stage first"),
        ({"extract__tasks": "[seg,depth]"}, "no LoRA 'depth'; it has: dwpose, seg, blurred"),
    ],
)
def test_extraction_that_cannot_be_writes_nothing(make_config, tmp_path, change, message):
    run = make_config(name="run")
    save_run(run)
    config = make_config("extract", name="loras", **({"extract__checkpoint": run.output_dir} | change))
    with pytest.raises(UserError, match=message) as error:
        tiny.extract(config)
    one_line(error)
    assert list((tmp_path / "loras").iterdir()) == []


def test_checkpoints_that_hold_no_controlnet_or_another_base(make_config, tmp_path):
    run = make_config(name="run")
    save_run(run, drop=["control.", "lora."])
    config = make_config("extract", name="loras", extract__checkpoint=run.output_dir)
    with pytest.raises(UserError, match="holds no Meta ControlNet with LoRAs"):
        tiny.extract(config)
    shutil.rmtree(run.output_dir)
    save_run(run)
    tiny.tiny_unet(block_out_channels=(16, 24)).save_pretrained(tmp_path / "narrow" / "unet")
    config.model.base = str(tmp_path / "narrow")
    with pytest.raises(UserError, match="the base asks for") as error:
        tiny.extract(config)
    assert str(tmp_path / "narrow") in one_line(error)
    assert list((tmp_path / "loras").iterdir()) == []


def test_a_merged_controlnet_needs_no_lora(original, make_config, tmp_path):
    models, folder = original
    config = make_config(
        "extract", name="merged", extract__checkpoint=folder / "run", extract__merge="seg", output_dir=tmp_path / "merged"
    )
    assert [f.name for f in tiny.extract(config)] == ["controlnet"]
    torch.manual_seed(99)
    fresh = tiny.make_models(config.model)
    assert load_control_folder(fresh, tmp_path / "merged" / "controlnet")["merged"] == "seg"
    shared, lora = models.control.base_state(), models.control.bank.state("seg")
    for name, weight in fresh.control.base_state().items():
        module = name.removesuffix(".weight")
        added = lora[f"{module}.lora_B.weight"] @ lora[f"{module}.lora_A.weight"] if f"{module}.lora_A.weight" in lora else 0
        torch.testing.assert_close(weight, shared[name] + added, rtol=1e-6, atol=1e-7)
    models.control.bank.use("seg")
    fresh.control.bank.use(None)
    with torch.no_grad():
        same_outputs(models.control(*tiny.control_inputs()), fresh.control(*tiny.control_inputs()), exact=False)
        fresh.control.bank.use("seg")  # a fresh LoRA adds nothing
        same_outputs(models.control(*tiny.control_inputs()), fresh.control(*tiny.control_inputs()), exact=False)
    with pytest.raises(UserError, match="belongs to ControlNet"):
        load_extracted(fresh, folder / "loras" / "dwpose")


def test_a_merged_controlnet_is_for_its_own_task(original, make_config, tmp_path):
    _, folder = original
    merging = make_config(
        "extract", name="merged", extract__checkpoint=folder / "run", extract__merge="seg", output_dir=tmp_path / "merged"
    )
    tiny.extract(merging)
    control = {"model__control_from": tmp_path / "merged" / "controlnet", "sample__driving": folder}
    load_animator(make_config("sample", name="seg", sample__tasks="{seg: 1.0}", sample__identity="p0", **control))
    with pytest.raises(UserError, match=r"LoRA of 'seg' folded in; it takes sample.tasks=\{seg: 1.0\} and no sample.loras"):
        load_animator(make_config("sample", name="dwpose", sample__identity="p0", **control))
