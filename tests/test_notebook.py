"""scripts/animate.ipynb: valid, without results in it, and its cells run on the embedded base."""

import json
import os
import sys
import types
import zipfile
from pathlib import Path

import pytest

from meta_animator.config import load_config
from meta_animator.media.video import VideoSource

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "scripts" / "animate.ipynb").read_text(encoding="utf-8"))
TINY = [
    "train.max_steps=1", "train.batch_size=1", "train.preview_every=0", "data.crops=1", "sample.num_inference_steps=1",
    "sample.max_frames=3", "loss.image_weight=0",
]  # fmt: skip


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_the_file_is_a_notebook_that_shows_nothing_yet():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(ids) == len(set(ids)) and len(cells("code")) == 9
    every = {"cell_type", "id", "metadata", "source"}
    for cell in NOTEBOOK["cells"]:
        more = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        assert cell.keys() == every | more.keys() and all(cell[name] == value for name, value in more.items())


def run_cells(count: int | None = None, **settings) -> dict:
    """The names after the first `count` cells, the first with `settings` instead of its own."""
    first, *others = cells("code")[:count]
    names: dict = {}
    exec(compile(first, "cell 1", "exec"), names)
    assert settings.keys() <= names.keys()
    names.update(settings)
    for k, code in enumerate(others, 2):
        exec(compile(code, f"cell {k}", "exec"), names)
    return names


@pytest.fixture
def displayed(monkeypatch) -> list:
    """What is shown, as IPython would be asked to: (kind, what it is given)."""
    shown: list = []
    module = types.ModuleType("IPython.display")
    module.display = shown.append
    module.HTML = lambda data: ("HTML", data)
    module.Image = lambda filename: ("Image", filename)
    module.Video = lambda filename, embed: ("Video", filename)
    package = types.ModuleType("IPython")
    package.display = module
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


@pytest.mark.timeout(300)
def test_from_photos_to_a_video_on_the_embedded_base(tmp_path, warm, monkeypatch, displayed, capsys):
    monkeypatch.setenv("VIRTUAL_ENV", str(warm.parent.parent))
    monkeypatch.setenv("CONFIG", "configs/wan")  # the notebook's own choice counts
    monkeypatch.chdir(ROOT / "scripts")  # where Jupyter starts
    out = tmp_path / "out"
    names = run_cells(BASE="embedded", OUTPUTS=str(out), VIDEO=str(tmp_path / "anna.mp4"), PERSON="anna", SETTINGS=TINY)
    assert Path(os.getcwd()) == ROOT
    said = capsys.readouterr().out
    assert "trainable parameters" in said and "there is no report" in said
    video = VideoSource(tmp_path / "anna.mp4")
    assert video.num_frames == 3 and displayed == [("Video", str(video.path)), ("Image", str(tmp_path / "anna.png"))]
    assert load_config(names["learned"] / "config.yaml").train.max_steps == 1
    packed = zipfile.ZipFile(tmp_path / "anna_loras.zip").namelist()
    assert {"README.md", "strip.png", "controlnet/config.json", "dwpose/adapter_model.safetensors"} <= set(packed)

    page = tmp_path / "report.html"
    page.write_text('<p class="a">it</p>')
    names["show"]("page", page)
    assert displayed[-1][0] == "HTML" and 'srcdoc="&lt;p class=&quot;a&quot;&gt;it&lt;/p&gt;"' in displayed[-1][1]


def test_what_is_missing_is_said_before_anything_is_done(tmp_path, monkeypatch, warm):
    monkeypatch.setenv("VIRTUAL_ENV", str(warm.parent.parent))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="REPOSITORY: say above where to clone the code from"):
        run_cells(2)
    monkeypatch.chdir(ROOT / "scripts")
    with pytest.raises(RuntimeError, match="PHOTOS: is empty; name a file or folder that is there"):
        run_cells(3)
    monkeypatch.chdir(ROOT / "scripts")
    with pytest.raises(RuntimeError, match=r"MOTION: nowhere\.mp4; name a file"):
        run_cells(3, PHOTOS=str(ROOT / "assets"), MOTION="nowhere.mp4")
