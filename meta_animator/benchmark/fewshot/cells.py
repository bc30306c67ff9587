"""The benchmark cell by cell: a person, a method, a number of photos, a seed. Each is tuned, sampled and scored by the stages
that users run, as processes of their own, and leaves rows in results.jsonl."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.benchmark.fewshot.dreambooth import train_dreambooth
from meta_animator.benchmark.fewshot.judges import PoseJudge, pose_error
from meta_animator.benchmark.fewshot.methods import FULL, PHOTOS, Method
from meta_animator.benchmark.fewshot.people import driving_of, others_of, photos_of, true_flow
from meta_animator.config import load_config
from meta_animator.data.keypoints import face_box
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import find_clip, read_manifest
from meta_animator.evaluation.animation import face_distance, load_layers, read_frames
from meta_animator.evaluation.baselines import first_photo, nearest_photo
from meta_animator.evaluation.frames import frame_scores, mean_scores, warped_flicker
from meta_animator.models.face import FaceEmbedder

RESULTS, PEOPLE = "results.jsonl", "people"
PROMPT = "a person {identifier}"  # no word about looks: those are to be learned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large a benchmark is.

    people, photos, methods, seeds   what the cells are made of
    steps      of stage 2 after which the result is scored, in rising order
    frames, sampling_steps, side     of the animation
    """

    people: tuple[int, ...]
    photos: tuple[int, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (1000,)
    frames: int = 24
    sampling_steps: int = 25
    side: int = 128
    others: int = 24
    judge_people: int = 400
    judge_steps: int = 1500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    person: int
    method: Method
    photos: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.person}-{self.method.name}-{self.photos}-{self.seed}"

    @property
    def training(self) -> str:
        """Name of the cell whose stage 2 this one samples from."""
        return f"{self.person}-{self.method.training}-{self.photos}-{self.seed}"

    def steps(self, size: Size) -> tuple[int, ...]:
        return size.steps if self.method.tunes else size.steps[-1:] if self.method.lora else (0,)


def cells_of(size: Size, methods: list[Method]) -> Iterator[Cell]:
    """Person by person, so that what is there early can be compared. What photos or stage 0 alone do has no seed."""
    for person in size.people:
        for photos in size.photos:
            for seed in size.seeds:
                for method in methods:
                    if seed == size.seeds[0] or method.tunes or method.lora:
                        yield Cell(person=person, method=method, photos=photos, seed=seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Where it happens and who judges.

    base      folder of the embedded base with its stages 0 (control) and 1 (motion)
    configs   folder of step2.yaml and step3.yaml
    """

    folder: Path
    size: Size
    face: FaceEmbedder
    pose: PoseJudge
    base: Path = Path("assets/base")
    configs: Path = Path("configs/demo")

    @property
    def people(self) -> Path:
        return self.folder / PEOPLE

    def done(self, cells: Sequence[Cell]) -> set[str]:
        """Names of those cells that have all their rows, in any results*.jsonl of the folder."""
        rows = {(row["cell"], row["steps"]) for row in read_rows(self.folder)}
        return {cell.name for cell in cells if all((cell.name, step) in rows for step in cell.steps(self.size))}

    def run(self, cell: Cell) -> str:
        """Tune, sample, score; '' or the line that says why it failed."""
        work, trained, since = self.folder / "cells" / cell.name, self.folder / "cells" / cell.training, time.monotonic()
        continued = (trained / "step2" / "metrics.jsonl").exists()  # nobody knows how long it has taken
        truth, photos = self._layers(driving_of(self.people, cell.person)), photos_of(self.people, cell.person, cell.photos)
        rows, steps = [], cell.steps(self.size)
        if cell.method.name in PHOTOS:
            rows.append((0, 0.0, self._of_photos(cell.method.name, photos, truth)))
        else:
            sources, tuned = {0: self.base / "control"}, 0.0
            if cell.method.tunes:
                if said := self._stage(trained, "train.py", self._stage2(cell, trained, photos)):
                    return said
                sources = {step: trained / "step2" / "checkpoints" / f"step-{step:06d}" for step in steps}
                tuned = time.monotonic() - since
            more: tuple[str, ...] = ()
            if cell.method.lora:
                config, *settings = map(str, self._stage2(cell, work, photos))
                train_dreambooth(load_config(Path(config), settings), photos, dreambooth_prompt(), work / "lora")
                sources, tuned = {steps[-1]: self.base / "control"}, time.monotonic() - since
                more = (f"model.base_loras={{{work / 'lora'}: 1.0}}", f"sample.prompt={dreambooth_prompt()}")
            for step, source in sources.items():
                if said := self._stage(work, "sample.py", self._stage3(cell, work, photos, source, more)):
                    return said
                rows.append((step, tuned * step / max(1, steps[-1]), read_frames(work / "step3" / "frames")))
        flow = true_flow(self.people, cell.person, len(truth), self.size.side)
        for number, (step, seconds, frames) in enumerate(rows):
            metrics = self.score(frames, truth[: len(frames)], flow)
            self._write(cell, step, None if continued else round(seconds, 1), metrics, last=number == len(rows) - 1)
        if cell.method.training != FULL:  # which others sample from too
            shutil.rmtree(work / "step2", ignore_errors=True)
        return ""

    def score(self, frames: np.ndarray, truth: list[Layers], flow: np.ndarray) -> dict[str, float | None]:
        """Means over the frames; face_similarity is the cosine of the judge's embeddings, pose_error in shares of the height.

        flow   the person's true motion, (n - 1, h, w, 2), as `backward_flow` has it
        """
        boxes, shown = [face_box(layers.keypoints) for layers in truth], np.stack([layers.frame for layers in truth])
        scores = frame_scores(frames, shown, [layers.mask for layers in truth], boxes)
        scores["person_warped_flicker"] = warped_flicker(frames, shown, flow[: len(truth) - 1])
        poses = [error for error in pose_error(self.pose, frames, [layers.keypoints for layers in truth]) if error is not None]
        distance = face_distance(self.face, frames, truth)
        return {
            **mean_scores(scores), "face_similarity": None if distance is None else 1 - distance,
            "pose_error": float(np.mean(poses)) if poses else None,
        }  # fmt: skip

    def _of_photos(self, name: str, photos: Path, truth: list[Layers]) -> np.ndarray:
        shown = load_layers(read_manifest(photos), (self.size.side,) * 2)
        frames = np.stack([layers.frame for layers in shown])
        if name == "first_photo":
            return first_photo(frames, len(truth))
        return nearest_photo(frames, [layers.keypoints for layers in shown], [layers.keypoints for layers in truth])

    def _layers(self, data: Path) -> list[Layers]:
        return load_layers([find_clip(data, "")], (self.size.side,) * 2)[: self.size.frames]

    def _stage2(self, cell: Cell, work: Path, photos: Path) -> tuple[str | Path, ...]:
        last, every = self.size.steps[-1], int(np.gcd.reduce(self.size.steps))
        return (
            self.configs / "step2.yaml", f"output_dir={work / 'step2'}", f"model.base={self.base}",
            f"model.face={self.base / 'face'}", f"model.control_from={self.base / 'control'}",
            "data.puppets.root=", f"data.train=[{photos}]",
            f"data.auxiliary=[{others_of(self.people) if cell.method.others else ''}]",
            f"data.cache_dir={self.folder / 'cache'}", f"data.prompt={PROMPT}",
            f"train.max_steps={last}", f"train.checkpoint_every={every}", f"train.keep_checkpoints={last // every}",
            "train.preview_every=0", f"seed={cell.seed}", *cell.method.stage2,
        )  # fmt: skip

    def _stage3(self, cell: Cell, work: Path, photos: Path, source: Path, more: tuple[str, ...]) -> tuple[str | Path, ...]:
        return (
            self.configs / "step3.yaml", f"output_dir={work / 'step3'}", f"model.base={self.base}",
            f"model.control_from={source}", f"model.motion_from={self.base / 'motion'}", "data.puppets.root=",
            f"sample.reference={photos}", f"sample.driving={driving_of(self.people, cell.person)}",
            f"sample.max_frames={self.size.frames}",
            f"sample.num_inference_steps={self.size.sampling_steps}", f"seed={cell.seed}", *more, *cell.method.stage3,
        )  # fmt: skip

    def _stage(self, work: Path, script: str, arguments: tuple[str | Path, ...]) -> str:
        """Run a script of ours; '' or its last line, with the name of its log."""
        work.mkdir(parents=True, exist_ok=True)
        log = work / f"{Path(script).stem}.log"
        with open(log, "w", encoding="utf-8") as file:
            code = subprocess.run(
                [sys.executable, f"scripts/{script}", *map(str, arguments)], stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode  # fmt: skip
        if code == 0:
            return ""
        said = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        lines = [line for line in said.splitlines() if line.strip()]
        return f"{lines[-1] if lines else f'ended with {code}'} ({log})"

    def _write(self, cell: Cell, step: int, seconds: float | None, metrics: dict[str, Any], last: bool) -> None:
        row = {
            "cell": cell.name, "person": cell.person, "method": cell.method.name, "photos": cell.photos, "seed": cell.seed,
            "steps": step, "seconds": seconds, "frames": self.size.frames, "last": last, **metrics,
        }  # fmt: skip
        with open(self.folder / RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def dreambooth_prompt() -> str:
    return PROMPT.format(identifier="<id000>")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Of all results*.jsonl: those of other machines can lie beside one's own. A line that was cut off is left out; of two rows
    for the same thing the later one counts."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for file in sorted(folder.glob("results*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows[row["cell"], row["steps"]] = row
    return list(rows.values())
