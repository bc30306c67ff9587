"""A data set's faults, all at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meta_animator.data.writer import DatasetWriter
from meta_animator.media.images import read_image, write_image
from meta_animator.preparation.check import check_folder
from tests.data.people import layers_of_person


@pytest.fixture
def data(tmp_path) -> Path:
    """Clips a and b of anna, a photo of Ben."""
    layers = [layers_of_person(64, 48, seed) for seed in range(6)]
    with DatasetWriter(tmp_path / "set") as writer:
        writer.add(id="a", identity="anna", layers=layers, fps=10)
        writer.add(id="b", identity="anna", layers=layers[:3], fps=10)
        writer.add(id="c", identity="Ben", layers=layers[:1], fps=1, kind="photo")
    return tmp_path / "set"


def change_points(data: Path, clip: str, change) -> None:
    path = data / "clips" / clip / "keypoints.npz"
    stored = dict(np.load(path))
    change(stored["keypoints"])
    np.savez(path, **stored)


def test_a_sound_data_set_has_no_faults(data):
    found = check_folder(data)
    assert (found.faults, found.notes, found.clips, found.frames, found.people) == ([], [], 3, 10, 2)


def test_every_fault_has_a_line(data):
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    lines.append(lines[1] | {"id": "gone", "layers": {"frame": "clips/gone/frame"}})
    lines.append(lines[1] | {"identity": "ben"})
    texts = [json.dumps(line) for line in lines]
    (data / "manifest.jsonl").write_text("\n".join([*texts, "{not json"]) + "\n")
    frame = data / "clips" / "a" / "frame" / "000002.png"
    write_image(frame, read_image(frame)[:40])
    (data / "clips" / "a" / "mask" / "000003.png").write_bytes(b"\x89PNG no more")
    write_image(data / "clips" / "c" / "mask" / "000000.png", np.zeros((64, 48), bool))

    def hide(points):
        points[1:3, :, 2] = 0

    def shift(points):
        points[0, :, 0] += 48

    change_points(data, "b", hide)
    change_points(data, "c", shift)
    found = check_folder(data)
    expected = {
        "line 4: 'frame' points to 'clips/gone/frame', which does not exist", "line 5: id 'b' is used already in line 2",
        "line 6: is not JSON", "line 1: 'a': frame of frame 2 is 48x40, not 48x64", "line 1: 'a': mask of frame 3 cannot be read",
        "line 2: 'b': keypoints of 2 frames (1, 2) show nobody", "line 3: 'c': mask of frame 0 is empty",
        "line 3: 'c': 100% of the seen keypoints lie outside of the picture, in frame 0",
    }  # fmt: skip
    missing = {text for text in expected if not any(text in fault for fault in found.faults)}
    assert not missing, found.faults
    assert any("people 'Ben' and 'ben' are taken for two" in note for note in found.notes)


def test_a_missing_frame_is_a_fault_of_its_line_alone(data):
    (data / "clips" / "a" / "frame" / "000004.png").unlink()
    shutil.rmtree(data / "clips" / "b" / "mask")
    found = check_folder(data)
    assert len(found.faults) == 2 and found.clips == 1
    assert "line 1: 'frame' has frames 5, the manifest says 6" in found.faults[0]
    assert "line 2: 'mask' points to" in found.faults[1]


def test_the_script_says_all_and_exits_with_2(data):
    root = Path(__file__).parents[2]
    command = [sys.executable, "scripts/prepare_data.py", "--check", str(data)]
    for code, faults in ((0, 0), (2, 2)):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={"PYTHONPATH": "."})
        assert done.returncode == code and f"3 clips and photos, 10 frames, 2 people; {faults} faults" in done.stdout
        errors = done.stderr.splitlines()
        assert len(errors) == faults and all(line.startswith("error: ") for line in errors)
        for clip in ("a", "b"):
            change_points(data, clip, lambda points: points[:1].fill(0))
