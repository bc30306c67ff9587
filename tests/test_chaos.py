"""scripts/dev/chaos.py and scripts/dev/fuzz.py: a few kills and damaged files in every test run, and that both can fail."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meta_animator.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def chaos() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "dev" / "chaos.py"))


@pytest.fixture
def fuzz(monkeypatch) -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "dev" / "fuzz.py"))


@pytest.mark.timeout(900)
def test_killed_trainings_end_as_if_nothing_had_happened(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/dev/chaos.py", "--kills", "4", "--seed", "3", "--folder", str(tmp_path)], cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-900:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert {row[0] for row in rows} == {"control", "motion", "reference"} and all(row[-1] == "yes" for row in rows)
    assert sum(int(row[1]) for row in rows) >= 3, "trainings were killed"


def test_a_difference_between_two_runs_is_seen(chaos, tmp_path):
    last = f"checkpoints/step-{chaos['STEPS']:06d}"
    for run in ("whole", "parts"):
        (tmp_path / run / last).mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "manifest.json"):
            (tmp_path / run / last / name).write_bytes(name.encode())
        (tmp_path / run / "metrics.jsonl").write_text("{}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert chaos["difference"](whole, parts) == ""
    (parts / last / "optimizer.safetensors").write_bytes(b"other")
    assert chaos["difference"](whole, parts) == f"{last}/optimizer.safetensors"
    (parts / "metrics.jsonl").write_text("{}{}")
    assert chaos["difference"](whole, parts) == "metrics.jsonl"


def test_damaged_files_do_no_harm():
    done = subprocess.run(
        [sys.executable, "scripts/dev/fuzz.py", "--count", "60", "--seed", "5"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-900:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 12 and all(row[1] == "60" and row[4] == "0" for row in rows)
    assert all(int(row[3]) > 0 for row in rows), "some files of every kind are refused"


def raises(path: Path) -> None:
    raise KeyError("frames")


def two_lines(path: Path) -> None:
    raise UserError("first\nsecond")


def dies(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(path: Path) -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("reader", "said"),
    [(raises, "KeyError: 'frames'"), (two_lines, "more than one line"), (dies, "the process died (-9)"), (hangs, "no answer")],
)
def test_harm_is_seen_and_the_file_kept(fuzz, tmp_path, capsys, reader, said):
    def kind(folder: Path):
        (folder / "a.bin").write_bytes(b"whole")
        return [folder / "a.bin"], lambda path: None if path.read_bytes() == b"whole" else reader(path)

    fuzz["damage"].__globals__.update(KINDS={"own": kind}, SECONDS=1.0)
    assert fuzz["damage"]("own", 2, 0, tmp_path / "kept") == 2
    assert said in capsys.readouterr().out and len(list((tmp_path / "kept").iterdir())) == 2
