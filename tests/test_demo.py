"""The demo, and the training of its base, on a reduced config: the shell scripts as a user starts them. Only the Python they
find has its large libraries loaded already."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.conversion.motion import load_motion
from meta_animator.media.images import read_image
from meta_animator.media.video import VideoSource
from meta_animator.models.face import FaceEmbedder
from meta_animator.puppets.dataset import describe
from meta_animator.settings import ModelConfig
from tests import tiny

ROOT = Path(__file__).parent.parent
SMALL = (
    "data.puppets.identities=2", "data.puppets.frames=4", "data.puppets.photos=2", "data.puppets.driving_frames=6",
    "train.max_steps=2", "train.batch_size=2", "train.preview_every=2", "data.num_frames=3", "data.auxiliary_sets=3",
    "data.crops=2", "sample.num_inference_steps=2", "sample.window=4", "sample.overlap=2",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_demo_runs_all_stages_and_leaves_its_results(tmp_path, warm):
    out = tmp_path / "demo"
    own = {"VIRTUAL_ENV": str(warm.parent.parent), "DEMO_DIR": str(out), "DEMO_DATA": str(tmp_path / "puppets")}
    env = os.environ | own
    done = subprocess.run(["bash", "scripts/demo.sh", *SMALL], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "does not use it" not in done.stdout, "settings that all stages are given"

    video = VideoSource(out / "animation.mp4")
    assert (video.num_frames, video.width, video.height, video.fps) == (6, 128, 128, 12)
    assert read_image(out / "overview.png").shape[1] > 4 * 128
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["seconds"]) == {"step0", "step1", "step2", "extract", "step3", "control"}
    for row in (metrics, *metrics["baselines"].values(), metrics["controls"]["shuffled_pose"]):
        assert row["frames"] == 6
        assert all(row[key] > 0 for key in ("psnr", "ssim", "l1", "person_psnr", "person_l1"))
    loras = sorted(folder.name for folder in (out / "loras").iterdir() if folder.is_dir())
    assert len(loras) == 11 and {"controlnet", "dwpose", "person"} <= set(loras)
    card = (out / "loras" / "README.md").read_text()
    assert "license: apache-2.0" in card and (out / "loras" / "strip.png").is_file()
    assert (out / "step1" / "previews").is_dir() and (out / "step0" / "metrics.jsonl").is_file()


def train_base(folder, warm, *arguments):
    """Two steps of every part, in a copy of the repository."""
    for name in ("configs", "scripts", "meta_animator"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "scripts" / "env.sh", "a") as file:
        file.write(f"use_environment() {{ PYTHON={warm}; }}\n")  # nothing is to be installed for the copy
    few = ["train.max_steps=2", "train.batch_size=2", "train.preview_every=0", "data.puppets.identities=3"]
    done = subprocess.run(
        ["bash", "scripts/dev/train_base.sh", *arguments, *few], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.timeout(900)
def test_one_command_trains_a_whole_base(tmp_path, warm):
    """What comes out is a base that stages 0 to 3 can start from."""
    train_base(tmp_path, warm)
    base = tmp_path / "outputs" / "base" / "model"
    models = tiny.make_models(ModelConfig(base=str(base), lora_rank=8), with_motion=True)
    load_control(models, *read_weights(base / "control"), "the new stage 0")
    load_motion(models, str(base / "motion"))
    assert FaceEmbedder.from_pretrained(base / "face").config.embedding_dim == 96


@pytest.mark.timeout(900)
def test_one_command_trains_a_whole_wan(tmp_path, warm):
    train_base(tmp_path, warm, "wan", "data.num_frames=5", "data.puppets.frames=5")
    base = tmp_path / "outputs" / "base_wan" / "model"
    models = tiny.make_models(ModelConfig(backbone="wan", base=str(base), lora_rank=8))
    assert models.backbone.size_multiple == 16 and models.backbone.fits(describe(0))
    assert sum(file.stat().st_size for file in base.rglob("*") if file.is_file()) < 14e6


@pytest.mark.timeout(600)
def test_the_demo_on_wan_goes_through_the_same_stages(tmp_path, warm, tiny_wan):
    out = tmp_path / "demo"
    own = {"VIRTUAL_ENV": str(warm.parent.parent), "DEMO_DIR": str(out), "DEMO_DATA": str(tmp_path / "puppets")}
    few = ("data.num_frames=5", "data.puppets.frames=5", "sample.window=5", "sample.overlap=0")
    small = [*SMALL, f"model.base={tiny_wan}", *few]
    done = subprocess.run(
        ["bash", "scripts/demo.sh", "--wan", *small], cwd=ROOT, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "does not use it" not in done.stdout, "settings that all stages are given"
    video = VideoSource(out / "animation.mp4")
    assert (video.num_frames, video.width, video.height) == (6, 64, 64)
    assert len(list((out / "text").glob("*.safetensors"))) > 2, "prompts embedded for all stages"
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["seconds"]) == {"step0", "step1", "step2", "extract", "step3", "control"}
