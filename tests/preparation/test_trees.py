"""Trees of published data sets, made here as they are published."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_animator.errors import UserError
from meta_animator.media.images import read_image, write_image
from meta_animator.preparation.formats.trees import find_sequences
from meta_animator.preparation.formats.tsv import find_tsv, unpack

BLACK = np.zeros((8, 6, 3), np.uint8)


def pictures(folder: Path, names: list[str]) -> None:
    for name in names:
        write_image(folder / name, BLACK)


def disco_json(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(json.dumps([{"keypoints": [[1, 2, 0.9]] * 17}]))


def test_tiktok(tmp_path, capsys):
    for sequence in ("00001", "00334", "00335", "00340"):
        home = tmp_path / "TikTok_dataset" / sequence
        for layer in ("images", "masks", "densepose"):
            pictures(home / layer, [f"{k:04d}.png" for k in (1, 2, 10)])
    (tmp_path / "TikTok_dataset" / "00334" / "masks" / "0010.png").unlink()
    for root in (tmp_path, tmp_path / "TikTok_dataset"):
        first, second, *rest = find_sequences("tiktok", root)
        assert (first.name, first.split, first.fps) == ("00001", "train", 30)
        assert [path.name for path in first.frames] == ["0001.png", "0002.png", "0010.png"]
        assert [path.parts[-2:] for path in first.masks] == [("masks", path.name) for path in first.frames]
        assert (second.split, second.masks) == ("train", None) and [one.split for one in rest] == ["heldout"] * 2
        assert "00334/masks: has no file for 1 of 3 frames" in capsys.readouterr().out


def test_disco_as_its_loaders_and_as_its_preprocessing_have_it(tmp_path):
    pictures(tmp_path / "loaders" / "00336" / "images", ["0001.png"])
    pictures(tmp_path / "loaders" / "00336" / "masks", ["0001.png"])
    disco_json(tmp_path / "loaders" / "00336" / "openpose_json", ["0001.png.json"])
    pictures(tmp_path / "own" / "336", ["0000.png", "0001.png"])
    pictures(tmp_path / "own" / "336" / "groundsam_vis", [f"{k:04d}.png.mask.{kind}" for k in (0, 1) for kind in ("jpg", "png")])
    pictures(tmp_path / "own" / "336" / "openpose_vis", ["0000.png.jpg", "0001.png.jpg"])
    disco_json(tmp_path / "own" / "336" / "openpose_json", ["0000.png.json", "0001.png.json"])
    (theirs,), (own,) = (find_sequences("disco", tmp_path / name) for name in ("loaders", "own"))
    assert (theirs.split, len(theirs.masks), theirs.keypoints[0].name) == ("heldout", 1, "0001.png.json")
    assert own.split == "train" and [path.name for path in own.frames] == ["0000.png", "0001.png"]
    assert [path.name for path in own.masks] == ["0000.png.mask.png", "0001.png.mask.png"]
    assert [path.name for path in own.keypoints] == ["0000.png.json", "0001.png.json"]


def test_ubc_follows_its_lists_or_its_folders(tmp_path, capsys):
    for name in ("videos/A1P+0ZhMAiS.mp4", "videos/91D23ZVV6NS.mp4", "videos/other.mp4"):
        (tmp_path / "lists" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lists" / name).touch()
    address = "https://m.media-amazon.com/images/I"
    (tmp_path / "lists" / "fashion_train.txt").write_text(f"{address}/A1P%2B0ZhMAiS.mp4\n{address}/gone.mp4\n")
    (tmp_path / "lists" / "fashion_test.txt").write_text(f"{address}/91D23ZVV6NS.mp4\n")
    found = find_sequences("ubc", tmp_path / "lists")
    assert {one.name: one.split for one in found} == {"A1P+0ZhMAiS": "train", "91D23ZVV6NS": "heldout"}
    said = capsys.readouterr().out
    assert "left out 1 videos that are in neither list (other.mp4)" in said and "1 of 3 videos of the lists are not there" in said
    for name in ("train/a.mp4", "test/b.mp4"):
        (tmp_path / "folders" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / name).touch()
    assert [(one.name, one.split) for one in find_sequences("ubc", tmp_path / "folders")] == [("a", "train"), ("b", "heldout")]
    assert "lacks fashion_train.txt or fashion_test.txt" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["tiktok", "disco", "ubc"])
def test_another_tree_is_one_line(tmp_path, format):
    (tmp_path / "00001" / "frames").mkdir(parents=True)
    with pytest.raises(UserError, match=f"is not arranged as --format {format} expects: ") as caught:
        find_sequences(format, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        find_sequences(format, tmp_path / "none")


def encoded(value: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(BLACK + np.uint8(value)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_disco_tsv_files_are_unpacked(tmp_path):
    root = tmp_path / "TikTokDance"
    root.mkdir()
    keys = [f"TiktokDance_00001_{k:04d}.png" for k in (1, 2)]
    rows = {"train_images": 3, "train_masks": 9, "train_poses": 1, "new10val_images": 5}
    for name, value in rows.items():
        lines = [f"{key}\t[{{}}]\t{encoded(value + k)}" for k, key in enumerate(keys)]
        if "masks" in name:
            lines = [f"{key}\t{encoded(value + k)}\t1" for k, key in enumerate(keys)]
        (root / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    files = find_tsv(tmp_path)
    assert [path.stem for path in files] == ["new10val_images", "train_images", "train_masks"]
    heldout, train = unpack(files, tmp_path / "out")
    (sequence,) = find_sequences("disco", train)
    assert (heldout.name, sequence.name, len(sequence.frames)) == ("heldout", "TiktokDance_00001", 2)
    assert read_image(sequence.frames[1])[0, 0, 0] == 4 and read_image(sequence.masks[1])[0, 0, 0] == 10
    (root / "train_images.tsv").write_text("TiktokDance_00001_0003.png\tAAAA\n")
    with pytest.raises(UserError, match=r"train_images\.tsv, line 1: holds no picture in base64"):
        unpack(find_tsv(tmp_path), tmp_path / "out")
    (root / "train_images.tsv").write_text("picture\tAAAA\n")
    with pytest.raises(UserError, match=r"line 1: key 'picture'; expected SEQUENCE_FRAME"):
        unpack(find_tsv(tmp_path), tmp_path / "out")
