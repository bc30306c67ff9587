"""Which checkpoint of a run is its best, where something has measured that: `<run>/checkpoints/best.json`, such as
{"step": 400, "meter": "held_out_error", "value": 0.113}."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meta_animator.checkpoints.metadata import check_fields
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json

CHOSEN = "train.best_step"  # stands for a meter where the step was known beforehand
REQUIRED = {"step": int, "meter": str, "value": float}


def step_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def read_best(run: str | Path) -> dict[str, Any] | None:
    """What best.json of a run folder says; None where there is none. Raises UserError where it cannot be read."""
    file = _file(Path(run))
    if not file.is_file():
        return None
    best = read_json(file)
    check_fields(best, REQUIRED, str(file))
    return best


def write_best(run: Path, best: Mapping[str, Any] | None) -> None:
    """Say that this is the best step; None: that none is."""
    if best is None:
        _file(run).unlink(missing_ok=True)
    elif read_best(run) != best:
        write_json(_file(run), dict(best))


def best_checkpoint(run: str | Path) -> Path | None:
    """The checkpoint that is a run's best; None where nothing has chosen one. Raises UserError where it is gone."""
    best = read_best(run)
    if best is None:
        return None
    folder = step_folder(Path(run), best["step"])
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"{_file(Path(run))}: names step {best['step']}, but {folder} is not there; name another checkpoint of that run, or "
            "delete best.json to take its newest"
        )
    return folder


def note_best(run: str | Path, newest: Path) -> None:
    """Say where the checkpoint that a run's folder stands for is its best, and not simply its newest."""
    if (best := read_best(run)) is not None:
        last = int(newest.name.split("-")[1])
        print(f"{run}: takes step {best['step']} of {last}, {in_words(best)}")


def in_words(best: Mapping[str, Any]) -> str:
    if best["meter"] == CHOSEN:
        return f"as {CHOSEN} asks"
    return f"the best by {best['meter']} ({best['value']:.4g})"


def _file(run: Path) -> Path:
    return run / "checkpoints" / "best.json"
