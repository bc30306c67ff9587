"""scripts/get_weights.py against the hub that the tests run: everything that a quick start needs, in miniature."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from meta_animator.checkpoints.files import read_weights
from meta_animator.conversion import quickstart
from meta_animator.conversion.exchange import export_ctrlora, to_single_file, write_state
from meta_animator.published import entries, fetching
from tests import hub, tiny
from tests.conversion.test_exchange import make_run

SCRIPT = Path(__file__).parents[1] / "scripts" / "get_weights.py"
LORAS = ("openpose", "outpainting", "canny", "depth", "normal", "seg")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """{repository: {path: content}} of the shipped list's sd15, of the size of the tests' base model."""
    folder = tmp_path_factory.mktemp("theirs")
    base = tiny.make_base(folder / "base")
    vae, text = AutoencoderKL.from_pretrained(base / "vae"), CLIPTextModel.from_pretrained(base / "text_encoder")
    write_state(to_single_file(UNet2DConditionModel.from_pretrained(base / "unet"), vae, text), folder / "base.safetensors")
    write_state(vae.state_dict(), folder / "vae.safetensors")
    make_run(folder / "run", base, condition_range="unit")
    export_ctrlora(folder / "run", folder / "control.ckpt", base, "base")
    export_ctrlora(folder / "run", folder / "lora.ckpt", base, "lora", "canny")
    content = {
        "realistic_vision": folder / "base.safetensors", "vae_ft_mse": folder / "vae.safetensors",
        "ctrlora_base": folder / "control.ckpt", **{f"ctrlora_{name}": folder / "lora.ckpt" for name in LORAS},
    }  # fmt: skip
    repositories: dict[str, dict[str, bytes]] = {}
    for entry in entries.published().values():
        for file in entry.files if "sd15" in entry.asked_by else ():
            source = content.get(entry.name, base / "tokenizer" / file.name)
            if source.is_file() or not file.optional:
                held = source.read_bytes() if source.is_file() else b"a network"
                repositories.setdefault(entry.hub, {})[file.path] = held
    return base, repositories


@pytest.fixture
def served(theirs, tmp_path, monkeypatch):
    """The hub's repositories; the list is the shipped one, without sha256."""
    base, content = theirs
    listing = yaml.safe_load(entries.LIST.read_text())
    for entry in listing.values():
        if "files" in entry:
            entry["files"] = {path: {"size": 10} for path in entry["files"]}
    monkeypatch.setattr(entries, "LIST", tmp_path / "list.yaml")
    entries.LIST.write_text(yaml.safe_dump(listing))
    monkeypatch.setattr(quickstart, "ARCHITECTURE", base)
    monkeypatch.setenv(entries.CACHE, str(tmp_path / "cache"))
    with hub.serve() as (address, repositories):
        hub.connect(monkeypatch, address)
        repositories.update({name: dict(files) for name, files in content.items()})
        yield repositories


def get(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the script."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    code = 0
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    return code or 0, said.out, said.err


def test_all_that_a_quick_start_needs_in_one_command(served, tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    code, out, _ = get(monkeypatch, capsys, "sd15", "--into", models, "--dry-run")
    assert code == 0 and not models.exists()
    assert "to fetch: 12 of 12" in out and "CreativeML OpenRAIL-M (forbids some uses)  [not free for every use]" in out
    code, out, err = get(monkeypatch, capsys, "sd15", "--into", models)
    assert code == 0, err
    metadata, weights = read_weights(models / quickstart.CHECKPOINT)
    assert set(metadata["tasks"]) == set(quickstart.STARTS) and all(f"lora.{t}." in str(list(weights)) for t in metadata["tasks"])
    assert (models / "v3_sd15_mm.ckpt").is_file() and (models / "clip-vit-large-patch14" / "tokenizer.json").is_file()
    served.clear()
    code, out, _ = get(monkeypatch, capsys, "sd15", "--into", models)
    assert code == 0 and "to fetch: 0 of 12" in out and "is there already" in out


def test_what_the_hub_does_not_have(served, tmp_path, monkeypatch, capsys):
    models, files = tmp_path / "models", served["xyfJASON/ctrlora"]
    depth = next(path for path in files if "_depth_" in path)
    files.pop(depth)
    code, out, err = get(monkeypatch, capsys, "sd15", "--into", models)
    assert code == 0, err
    assert "all of them but ctrlora_depth" in out and f"the hub has no {depth}" in out
    assert set(read_weights(models / quickstart.CHECKPOINT)[0]["tasks"]) == set(quickstart.STARTS) - {"depth"}
    shutil.rmtree(models)
    files.pop(next(path for path in files if "basecn700k.ckpt" in path))
    code, _, err = get(monkeypatch, capsys, "sd15", "--into", models)
    assert code == 2 and err.count("\n") == 1 and "error: weights ctrlora_base" in err and "moved or renamed?" in err
    assert (models / "v3_sd15_mm.ckpt").is_file()  # what came before stays


def test_without_a_network_it_says_what_to_put_where(served, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    models = tmp_path / "models"
    models.mkdir()
    (models / "vae-ft-mse-840000-ema-pruned.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = get(monkeypatch, capsys, "sd15", "--into", models)
    puts = [line for line in out.splitlines() if line.startswith("put ")]
    assert code == 2 and err.count("\n") == 1 and "put the files above by hand" in err
    assert len(puts) == 12 and not any("vae-ft-mse" in line for line in puts)
    assert any(line.endswith(f"there as {models / 'v3_sd15_mm.ckpt'}") for line in puts)


def test_room_is_looked_for_first(served, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 10**10 - 10, 10))
    code, _, err = get(monkeypatch, capsys, "full", "--also", "segformer", "--into", tmp_path / "models")
    assert code == 2 and "10 B are free, about" in err
    code, _, err = get(monkeypatch, capsys, "full", "--also", "segfromer", "--into", tmp_path / "models")
    assert code == 2 and "no such weights; did you mean segformer?" in err
