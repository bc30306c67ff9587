"""The demo on a reduced config: all five shell scripts, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meta_animator.media.images import read_image
from meta_animator.media.video import VideoSource

ROOT = Path(__file__).parent.parent
SMALL = (
    "data.puppets.identities=2", "data.puppets.frames=4", "data.puppets.photos=2", "data.puppets.driving_frames=6",
    "train.max_steps=2", "train.batch_size=2", "train.preview_every=2", "data.num_frames=3", "data.auxiliary_sets=3",
    "data.crops=2", "sample.num_inference_steps=2", "sample.window=4", "sample.overlap=2",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_demo_runs_all_stages_and_leaves_its_results(tmp_path):
    out = tmp_path / "demo"
    env = {**os.environ, "VIRTUAL_ENV": sys.prefix, "DEMO_DIR": str(out), "DEMO_DATA": str(tmp_path / "puppets")}
    done = subprocess.run(["bash", "scripts/demo.sh", *SMALL], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

    video = VideoSource(out / "animation.mp4")
    assert (video.num_frames, video.width, video.height, video.fps) == (6, 128, 128, 12)
    assert read_image(out / "overview.png").shape[1] > 4 * 128
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["seconds"]) == {"step0", "step1", "step2", "extract", "step3", "control"}
    for row in (metrics, *metrics["baselines"].values(), metrics["controls"]["shuffled_pose"]):
        assert row["frames"] == 6
        assert all(row[key] > 0 for key in ("psnr", "ssim", "l1", "person_psnr", "person_l1"))
    loras = sorted(folder.name for folder in (out / "loras").iterdir())
    assert len(loras) == 10 and "controlnet" in loras and "dwpose" in loras
    assert (out / "step1" / "previews").is_dir() and (out / "step0" / "metrics.jsonl").is_file()
