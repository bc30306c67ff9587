"""Files that are not what their name says: one line that says what they are, wherever weights, data or pictures are opened."""

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from meta_animator.conversion.motion import load_motion
from meta_animator.data.clips import read_keypoints
from meta_animator.data.manifest import read_manifest
from meta_animator.errors import UserError
from meta_animator.file_kinds import kind_of
from meta_animator.json_files import read_json
from meta_animator.media.images import read_image
from meta_animator.media.video import VideoSource
from meta_animator.models.arcface import load_face
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ModelConfig
from meta_animator.torch_files import read_state
from meta_animator.weights import load_tensors, tensor_names
from tests import tiny

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 4265146304\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html lang=en><title>Log in</title></html>"
WEIGHTS = {"w": torch.arange(6.0).view(2, 3)}


def torch_bytes(**options) -> bytes:
    file = io.BytesIO()
    torch.save(WEIGHTS, file, **options)
    return file.getvalue()


def safetensors_bytes(folder: Path) -> bytes:
    save_file(WEIGHTS, folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez(file, keypoints=np.zeros((1, 133, 3)))
    return file.getvalue()


def png_bytes() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def refused(read, path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_first_bytes_tell_the_kind(tmp_path):
    kinds = {
        "lfs": LFS, "html": PAGE, "empty": b"", "torch": torch_bytes(), "safetensors": safetensors_bytes(tmp_path),
        "npz": npz_bytes(), "": png_bytes(), "zip": torch_bytes()[:100], "apple": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
        "text": b"Entry not found", "xml": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "gzip": b"\x1f\x8b\x08\x00", "heic": b"\x00\x00\x00\x18ftypheic\x00\x00",
    }  # fmt: skip
    for kind, content in kinds.items():
        (tmp_path / "file").write_bytes(content)
        assert kind_of(tmp_path / "file") == kind
    for content in (torch_bytes(_use_new_zipfile_serialization=False), pickle.dumps(1)):
        (tmp_path / "file").write_bytes(content)
        assert kind_of(tmp_path / "file") == "torch"
    damaged = bytearray(npz_bytes())  # a name in the archive's list that says it is UTF-8, and is not
    entry = damaged.rindex(b"PK\x01\x02")
    damaged[entry + 9], damaged[entry + 46] = 8, 0xB8
    (tmp_path / "file").write_bytes(damaged)
    assert kind_of(tmp_path / "file") == "zip"


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "is a Git LFS pointer, not the file that it points to; fetch that with `git lfs pull`"),
        (PAGE, r"is a web page \(HTML\)"),
        (b"", r"is empty \(0 bytes\)"),
        (b"Access to this model is restricted", "is a text file"),
        (npz_bytes(), "is a NumPy archive"),
    ],
)
def test_weights_that_are_none(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    refused(read_state, tmp_path / name, said)


def test_weights_by_the_name_of_the_other_kind_are_read_with_a_note(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(torch_bytes())
    (tmp_path / "old.safetensors").write_bytes(torch_bytes(_use_new_zipfile_serialization=False))
    for suffix in ("ckpt", "pt", "bin"):
        (tmp_path / f"a.{suffix}").write_bytes(safetensors_bytes(tmp_path))
    kinds = {"a.safetensors": "PyTorch", "old.safetensors": "PyTorch", "a.ckpt": "safetensors", "a.bin": "safetensors"}
    for name, kind in kinds.items():
        assert torch.equal(read_state(tmp_path / name)["w"], WEIGHTS["w"])
        assert capsys.readouterr().out == f"note: {tmp_path / name} is a {kind} file, whatever its name says, and read as one\n"
    refused(load_tensors, tmp_path / "a.safetensors", "is a PyTorch file; give it a name that ends in .ckpt")
    refused(tensor_names, tmp_path / "a.safetensors", "is a PyTorch file")
    assert read_state(tmp_path / "w.safetensors") and not capsys.readouterr().out


def test_a_file_that_was_cut_off_says_so(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(tmp_path)[:-4])
    refused(read_state, tmp_path / "a.safetensors", "cut off or damaged.*; copy or download it again")


@pytest.mark.parametrize("content", [LFS, PAGE], ids=["lfs", "page"])
def test_pictures_videos_keypoints_manifests_and_embedders_too(tmp_path, content):
    said = "Git LFS pointer" if content is LFS else "web page"
    readers = {
        "a.png": read_image, "a.mp4": VideoSource, "a.npz": read_keypoints, "config.json": read_json, "a.onnx": load_face,
        "a.pth": load_face,
    }  # fmt: skip
    for name, read in readers.items():
        (tmp_path / name).write_bytes(content)
        refused(read, tmp_path / name, said)
    (tmp_path / "manifest.jsonl").write_bytes(content)
    refused(lambda path: read_manifest(path.parent), tmp_path / "manifest.jsonl", said)


def test_notes_of_macos_beside_pictures_are_no_pictures(puppet_data, tmp_path):
    data = shutil.copytree(puppet_data / "train", tmp_path / "train")
    for picture in list(data.rglob("*.png")):
        picture.with_name(f"._{picture.name}").write_bytes(b"\x00\x05\x16\x07")
    assert [clip.id for clip in read_manifest(data)] == [clip.id for clip in read_manifest(puppet_data / "train")]


@pytest.fixture
def base(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "base")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_folder_of_pointers_or_pickles_is_named(base, part):
    file = next((base / part).glob("*.safetensors"))
    for content, said in ((LFS, "Git LFS pointer"), (torch_bytes(), "is a PyTorch file; give it a name that ends in .ckpt")):
        file.write_bytes(content)
        refused(lambda _: load_backbone(ModelConfig(base=str(base))), file, said)


def test_a_base_with_half_precision_variants_only_is_taken_with_a_note(base, tiny_base, capsys):
    for part in ("unet", "vae", "text_encoder"):
        file = next((base / part).glob("*.safetensors"))
        save_file({n: w.half() for n, w in load_file(file).items()}, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.unlink()
    ours = load_backbone(ModelConfig(base=str(base)))
    for a, b in zip(ours.unet.parameters(), load_backbone(ModelConfig(base=str(tiny_base))).unet.parameters(), strict=True):
        assert torch.equal(a, b.half().float())
    assert capsys.readouterr().out.count("as the variant 'fp16' only; they are taken") == 3


def test_a_motion_module_with_a_half_precision_variant_only_is_taken(tiny_base, tmp_path, capsys):
    models = Assembly(ModelConfig(base=str(tiny_base), lora_rank=2), load_backbone(ModelConfig(base=str(tiny_base))), True)
    folder = tmp_path / "motion"
    tiny.randomise_zeros(models.motion).save_pretrained(folder, variant="fp16")
    wanted = {n: p.clone() for n, p in models.motion.named_parameters()}
    with torch.no_grad():
        for parameter in models.motion.parameters():
            parameter.zero_()
    load_motion(models, str(folder))
    assert all(torch.equal(p, wanted[n]) for n, p in models.motion.named_parameters())
    assert "as the variant 'fp16' only" in capsys.readouterr().out
