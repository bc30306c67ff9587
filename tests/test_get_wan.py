"""scripts/get_weights.py wan against the hub that the tests run: a model in folders, whose files only its repository knows."""

from pathlib import Path

import pytest
import yaml
from diffusers import WanVACETransformer3DModel

from meta_animator.config import load_config
from meta_animator.models.backbones import load_backbone
from meta_animator.published import entries, fetching, model_folder
from tests import hub
from tests.test_get_weights import get
from tests.tiny_wan import make_wan, wan_model

REPOSITORY = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
FACE = "face_recognition_sface_2021dec.onnx"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """{path: content} of a tiny model whose transformer is in several files, with what a repository has besides."""
    folder = make_wan(tmp_path_factory.mktemp("theirs") / "wan")
    transformer = WanVACETransformer3DModel.from_pretrained(folder / "transformer")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="40KB")
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert sum("-of-" in path for path in files) > 2
    return files


@pytest.fixture
def served(theirs, tmp_path, monkeypatch):
    """(what goes over the line, the hub's repositories); the shipped list without sha256."""
    listing = yaml.safe_load(entries.LIST.read_text())
    listing["sface"]["files"] = {FACE: {"size": 10}}
    monkeypatch.setattr(entries, "LIST", tmp_path / "list.yaml")
    entries.LIST.write_text(yaml.safe_dump(listing))
    monkeypatch.setenv(entries.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    line = hub.Line()
    with hub.serve(line) as (address, repositories):
        hub.connect(monkeypatch, address)
        besides = {"README.md": b"card", "assets/video.mp4": b"film", "vae/diffusion_pytorch_model.bin": b"the same again"}
        repositories[REPOSITORY] = {**theirs, **besides}
        repositories["opencv/face_recognition_sface"] = {FACE: b"a network"}
        yield line, repositories


def test_the_whole_model_comes_whatever_its_files_are_called(served, theirs, tmp_path, monkeypatch, capsys):
    line, repositories = served
    models = tmp_path / "models"
    code, out, _ = get(monkeypatch, capsys, "wan", "--into", models, "--dry-run")
    assert code == 0 and not models.exists()
    assert f"{len(theirs)} files, as listed there; Apache-2.0" in out and "to fetch: 2 of 2" in out
    code, out, err = get(monkeypatch, capsys, "wan", "--into", models)
    assert code == 0, err
    come = {str(file.relative_to(models / "wan")): file.read_bytes() for file in (models / "wan").rglob("*") if file.is_file()}
    assert come == theirs and (models / FACE).is_file()
    assert sorted(file.name for file in models.iterdir()) == [FACE, "wan"]
    assert load_backbone(wan_model(models / "wan")).brings_control(models / "wan")
    sent = line.sent
    repositories.clear()
    code, out, _ = get(monkeypatch, capsys, "wan", "--into", models)
    assert code == 0 and "to fetch: 0 of 2" in out and line.sent == sent


def test_an_interrupted_model_goes_on_and_is_not_taken_for_a_whole_one(served, theirs, tmp_path, monkeypatch, capsys):
    line, _ = served
    models, total = tmp_path / "models", sum(map(len, theirs.values())) + len(b"a network")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        line.breaks_after = int(share * total)
        code, _, err = get(monkeypatch, capsys, "wan", "--into", models)
        assert code == 2 and "run the same command again" in err
    line.breaks_after = float("inf")
    code, _, err = get(monkeypatch, capsys, "wan", "--into", models)
    assert code == 0, err
    assert all((models / "wan" / path).read_bytes() == content for path, content in theirs.items())
    assert line.sent < 1.1 * total, "what had come is not fetched again"


def test_a_model_that_looks_whole_is_gone_on_with_where_its_listing_says_more(served, theirs, tmp_path, monkeypatch, capsys):
    line, repositories = served
    models, last = tmp_path / "models", "model_index.json"
    repositories[REPOSITORY] = {**{path: content for path, content in theirs.items() if path != last}, last: theirs[last]}
    line.breaks_after = sum(map(len, theirs.values())) + len(b"a network") - 5
    assert get(monkeypatch, capsys, "wan", "--into", models)[0] == 2 and not (models / "wan" / last).exists()
    line.breaks_after = float("inf")
    code, out, _ = get(monkeypatch, capsys, "wan", "--into", models)
    assert code == 0 and "to fetch: 1 of 2" in out and (models / "wan" / last).read_bytes() == theirs[last]


def test_what_is_there_already_needs_no_room(served, theirs, tmp_path, monkeypatch, capsys):
    line, _ = served
    models, total = tmp_path / "models", sum(map(len, theirs.values()))
    line.breaks_after = int(0.9 * total)
    assert get(monkeypatch, capsys, "wan", "--into", models)[0] == 2
    line.breaks_after = float("inf")
    monkeypatch.setattr(fetching, "SPARE", 0)
    for free, code in ((total // 50, 2), (total // 5, 0)):
        monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path, free=free: fetching.shutil._ntuple_diskusage(0, 0, free))
        assert get(monkeypatch, capsys, "wan", "--into", models)[0] == code


def test_a_model_without_a_network_can_be_put_there_by_hand(served, theirs, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    models = tmp_path / "models"
    models.mkdir()
    (models / FACE).write_bytes(b"a network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = get(monkeypatch, capsys, "wan", "--into", models)
    puts = [line for line in out.splitlines() if line.startswith("put ")]
    assert code == 2 and err.count("\n") == 1 and "put the files above by hand" in err and "is a guess" in out
    assert f"put transformer of https://huggingface.co/{REPOSITORY} there as {models / 'wan' / 'transformer'}" in puts
    assert len(puts) == 5
    for path, content in theirs.items():
        (models / "wan" / path).parent.mkdir(parents=True, exist_ok=True)
        (models / "wan" / path).write_bytes(content)
    code, out, _ = get(monkeypatch, capsys, "wan", "--into", models)
    assert code == 0 and "to fetch: 0 of 2" in out
    needed = [path for path in theirs if path != "model_index.json"]
    for path in needed:
        (models / "wan" / path).unlink()
        code, out, _ = get(monkeypatch, capsys, "wan", "--into", models)
        assert code == 2 and "to fetch: 1 of 2" in out, f"taken for a whole one without {path}"
        (models / "wan" / path).write_bytes(theirs[path])


def test_a_repository_of_another_kind_is_refused(served, tmp_path, monkeypatch, capsys):
    _, repositories = served
    repositories[REPOSITORY] = {"Wan2.1_VAE.pth": b"weights", "vae/config.json": b"{}"}
    code, _, err = get(monkeypatch, capsys, "wan", "--into", tmp_path / "models")
    assert code == 2 and f"the hub has no scheduler, text_encoder, tokenizer, transformer in {REPOSITORY}" in err
    assert model_folder.LISTING not in {file.name for file in tmp_path.rglob("*")}


def test_what_came_otherwise_than_it_was_listed_is_not_kept(served, theirs, tmp_path, monkeypatch, capsys):
    from meta_animator.published import hub as client

    _, repositories = served
    listed = client.files_of(entries.published()["wan"], None)
    name = next(path for path in theirs if path.startswith("vae/") and path.endswith(".safetensors"))
    repositories[REPOSITORY][name] = theirs[name][:-1] + b"?"
    monkeypatch.setattr(model_folder, "files_of", lambda *_: listed)
    code, _, err = get(monkeypatch, capsys, "wan", "--into", tmp_path / "models")
    assert code == 2 and "has another diffusion_pytorch_model.safetensors than the published one" in err
    assert not (tmp_path / "models" / "wan" / name).exists()


def test_the_quick_start_names_what_is_fetched():
    places = {entry.place for entry in entries.asked_by("wan")}
    learning, sampling = (load_config(f"configs/wan/quickstart/{name}.yaml") for name in ("step2", "step3"))
    assert {Path(path) for path in (learning.model.base, learning.model.face)} == {Path("models") / place for place in places}
    assert sampling.model.base == learning.model.base and sampling.model.control_from == learning.output_dir
    assert not learning.model.control_from
