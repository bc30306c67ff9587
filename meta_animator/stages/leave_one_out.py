"""How long to learn a person of whom no photo can be spared: each is left out of a run of its own, and says of that run when it
comes out best. The step that is best on the mean of them is the one that is taken of a run on all photos."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meta_animator.checkpoints.best import read_best
from meta_animator.config import save_config
from meta_animator.data.samples import read_clips, several
from meta_animator.errors import UserError
from meta_animator.json_files import write_json
from meta_animator.settings import RunConfig
from meta_animator.stages.check_settings import trained_tasks
from meta_animator.stages.checks import check_run
from meta_animator.stages.held_out import shares_of
from meta_animator.training.watch import GUARD, measure_every

FOLDER = "leave_one_out"  # of the run on all photos: what the runs without some of them wrote
FACE = "held_out_face"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured on the photos that were left out.

    steps    at which all runs have measured
    errors   (runs, steps) held_out_error; faces: the same of held_out_face, where that could be measured in all runs
    """

    steps: list[int]
    errors: list[list[float]]
    faces: list[list[float]] | None = None

    @property
    def error(self) -> list[float]:
        """(steps,): the mean over the runs."""
        return _means(self.errors)

    @property
    def best(self) -> int:
        """The step with the least mean error, the first of several."""
        return min(zip(self.error, self.steps, strict=True))[1]

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        faces = {} if self.faces is None else {"faces": self.faces, "face": _means(self.faces)}
        return {"best": self.best, "steps": self.steps, "error": self.error, "errors": self.errors, **faces}

    def words(self) -> str:
        where = self.steps.index(self.best)
        face = "" if self.faces is None else f", likeness of the face {_means(self.faces)[where]:.3f}"
        last = f"at the last, {self.steps[-1]}, it is {self.error[-1]:.4f}"
        if self.best == self.steps[-1]:
            last = "this is the last, and more may be better still (train.max_steps)"
        return f"left-out photos come out best at step {self.best} (error {self.error[where]:.4f}{face}); {last}"


def leave_one_out(config: RunConfig, train: Callable[[Path], None]) -> Outcome:
    """Train as often as there are shares of photos to leave out, then on all of them; writes <output_dir>/leave_one_out.json
    beside what the last run writes. `data.held_out` says how many photos make a share; 0 counts as 1.

    train   trains what a config file says, or goes on with it; raises where that fails
    Raises UserError for what the user can mend.
    """
    count, home = plan(config), Path(config.output_dir)
    runs = []
    for number in range(count):
        print(f"\nrun {number + 1} of {count + 1}: {in_words(config)} left out", flush=True)
        runs.append(home / FOLDER / f"without-{number}")
        train(_written(_without(config, number, runs[-1])))
    outcome = read_outcome(runs)
    write_json(home / "leave_one_out.json", outcome.facts())
    print(f"\n{outcome.words()}\n\nrun {count + 1} of {count + 1}: all photos, of which step {outcome.best} is taken", flush=True)
    whole = _on_all(config, outcome.best)
    train(_written(whole, home / FOLDER / "all.yaml"))
    best = read_best(home)
    if best is None or best["step"] != outcome.best:
        raise UserError(f"{home}: was trained before and did not keep step {outcome.best}; name another output_dir")
    return outcome


def plan(config: RunConfig) -> int:
    """How many runs leave photos out. Raises UserError where a run could not be trained, or none would say anything."""
    if config.stage != "reference":
        raise UserError(f"stage: {config.stage} has no photos of one person to leave out; give a config of stage 2")
    if config.train.early_stop or config.train.best_step:
        raise UserError("train.early_stop, train.best_step: each run goes to its end, and what is best is asked; leave both 0")
    if not measure_every(config.train):
        raise UserError("train.measure_every: nothing is ever measured; set it to a number of steps")
    for note in check_run(_without(config, 0, Path(config.output_dir) / FOLDER / "without-0")):
        print(f"note: {note}")
    photos = read_clips(config.data.train, config.data.split)
    tasks = trained_tasks(config.stage, config.model, config.train)
    return shares_of(photos, _without(config, 0, Path()).data, tasks, several(config.data.clip_frames))


def in_words(config: RunConfig) -> str:
    """How many photos are left out at a time."""
    return "one photo" if config.data.held_out <= 1 else f"{config.data.held_out} photos"


def read_outcome(runs: list[Path]) -> Outcome:
    """What the meters of finished runs say, at those steps at which all of them measured."""
    found = [_measured(run) for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in found)))
    if not steps:
        raise UserError(f"{runs[0].parent}: the runs have measured at no step in common; delete the folder to train them anew")
    faces = None
    if all(one[step].get(FACE) is not None for one in found for step in steps):
        faces = [[one[step][FACE] for step in steps] for one in found]
    return Outcome(steps=steps, errors=[[one[step][GUARD] for step in steps] for one in found], faces=faces)


def _measured(run: Path) -> dict[int, dict[str, float]]:
    """{step: what meters said}"""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {line["step"]: line for line in lines if line.get(GUARD) is not None}  # null: it was not finite


def _without(config: RunConfig, number: int, output: Path) -> RunConfig:
    data = dataclasses.replace(config.data, held_out=max(1, config.data.held_out), held_out_share=number)
    train = dataclasses.replace(config.train, preview_every=0, measure_every=measure_every(config.train))
    return dataclasses.replace(config, data=data, train=train, output_dir=str(output))


def _on_all(config: RunConfig, best: int) -> RunConfig:
    data = dataclasses.replace(config.data, held_out=0, held_out_share=0)
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, best_step=best))


def _written(config: RunConfig, path: Path | None = None) -> Path:
    path = path or Path(config.output_dir).with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_config(config, path)
    return path


def _means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]
