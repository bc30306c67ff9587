"""What users get wrong, through the entry points themselves: one line that says what, where and what would be right; exit code
2; an output folder that is as it was. What the tables of the other files share."""

import dataclasses
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meta_animator.config import save_config
from meta_animator.media.video import write_video
from tests import tiny

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Room:
    """A folder of its own for one case, beside the base model, the data and the stage-0 run that all share."""

    folder: Path
    base: Path
    data: Path
    prepared: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def config(self, stage: str, **overrides) -> str:
        """A YAML of a run that would work."""
        if stage != "control":
            overrides = {"model__control_from": self.prepared} | overrides
        config = tiny.make_config(self.folder / "config", self.base, self.data, stage, **overrides)
        config.output_dir = str(self.out)
        save_config(config, self.folder / "config.yaml")
        return str(self.folder / "config.yaml")

    def copy(self, source: Path) -> Path:
        return shutil.copytree(source, self.folder / source.name)

    def prepared_weights(self) -> Path:
        return next(self.prepared.rglob("model.safetensors"))

    def train_set(self, change: Callable[[list[dict]], None]) -> Path:
        """A copy of the train set with `change` made to its manifest's lines."""
        data = self.copy(self.data / "train")
        lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
        change(lines)
        (data / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return data

    def video(self, frames: int = 6) -> Path:
        return write_video(self.folder / "film.mp4", np.full((frames, 32, 32, 3), 90, np.uint8), fps=10)

    def keypoints(self, frames: int, score: float = 1.0, name: str = "film.npz") -> Path:
        points = np.random.default_rng(0).uniform(4, 28, (frames, 133, 3)).astype(np.float32)
        points[..., 2] = score
        np.savez(self.folder / name, keypoints=points, width=32, height=32, fps=10.0)
        return self.folder / name


class Cases(dict):
    """{name: (what makes the arguments of an entry point, the script's name first; part of the line that it says)}"""

    def add(self, message: str) -> Callable:
        def keep(make: Callable[[Room], list[str]]) -> Callable[[Room], list[str]]:
            assert make.__name__ not in self
            self[make.__name__] = (make, message)
            return make

        return keep

    def table(self, make: Callable[..., list[str]], rows: dict[str, tuple]) -> None:
        """{name: (what `make` takes beside the room, ..., part of the line)}"""
        assert not self.keys() & rows.keys()
        for name, (*rest, message) in rows.items():
            self[name] = (lambda room, rest=rest: make(room, *rest), message)

    def test(self, midway: tuple[str, ...] = ()) -> Callable:
        """The test of each of them. midway: those found out in the middle of a training, which keeps what it has."""

        @pytest.mark.parametrize("name", self)
        def one_line(name, room, capfd, monkeypatch):
            check(*self[name], room, capfd, monkeypatch, keeps_what_it_has=name in midway)

        return one_line


def starting(script: str, stage: str) -> Callable[..., list[str]]:
    return lambda room, *arguments: [script, room.config(stage), *arguments]


def sampling(room: Room, *arguments: str) -> list[str]:
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), *driving, *arguments]


def extracted(room: Room) -> Path:
    config = tiny.make_config(room.folder / "loras", room.base, room.data, "extract", extract__checkpoint=room.prepared)
    tiny.extract(config)
    return Path(config.output_dir)


def tree(folder: Path) -> dict[str, bytes]:
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(make, message: str, room: Room, capfd, monkeypatch, keeps_what_it_has: bool = False) -> None:
    """Run an entry point and expect its line. keeps_what_it_has: the output folder may have changed."""
    script, *arguments = make(room)
    before = tree(room.out)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    said = capfd.readouterr().err.replace("\r", "\n").splitlines()
    lines = [line for line in said if line.strip() and not re.search(r"\d+%\|", line)]  # progress bars aside
    assert caught.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ") and message in lines[0]
    assert tree(room.out) == before or keeps_what_it_has
