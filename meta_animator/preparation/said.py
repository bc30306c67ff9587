"""What preparation says before, during and after its work."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_animator import published
from meta_animator.annotators.sets import ANNOTATORS, AnnotatorSet
from meta_animator.cli import hide_bars
from meta_animator.data.conditions import CONDITIONS
from meta_animator.devices import compute_device
from meta_animator.preparation.folder import ANNOTATED
from meta_animator.preparation.footage_set import FootageSummary
from meta_animator.preparation.page import advice_on
from meta_animator.preparation.report import NAME as REPORT

SHOWN = 6  # sources that are named at most


class Bars:
    """A progress bar for each kind of work, with the time left; a context manager, and called as `footage_set.Progress`."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, of: int) -> None:
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._bar, self._what = tqdm(total=of, desc=what, unit="frame", dynamic_ncols=True, disable=hide_bars()), what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def choose_annotators(choice: str, weights: Path | None, device: str = "") -> AnnotatorSet:
    """The set that is asked for; says what is not free for every use, and what has to be fetched first.

    Raises UserError for names that are not there.
    """
    chosen = AnnotatorSet(choice, weights, device=device or _device(choice))
    for note in chosen.licence_notes:
        print(f"note: {note}")
    names = list(dict.fromkeys(weight for name in chosen.names for weight in ANNOTATORS[name].weights))
    missing = [name for name in names if not published.is_here(name, weights)]
    if missing:
        size = sum(published.published()[name].size for name in missing) / 1e6
        print(f"note: first use of these annotators: {len(missing)} networks ({size:.0f} MB) are fetched, and kept", flush=True)
        for name in missing:  # here and now, not in each worker
            published.find(name, weights)
    return chosen


def workers_of(chosen: AnnotatorSet, wanted: int) -> int:
    """Processes: as many as are wanted, or one per core, or on a GPU one."""
    if wanted:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if chosen.device == "cpu" else 1


def say_summary(folder: Path, summary: FootageSummary, chosen: AnnotatorSet) -> None:
    """What was made, what was left out and why, and what to look at."""
    people = list(dict.fromkeys(clip.identity for clip in summary.clips))
    photos = sum(clip.kind == "photo" for clip in summary.clips)
    parts = [_counted(len(summary.clips) - photos, "clip"), _counted(photos, "photo")]
    who = ", ".join(people[:SHOWN]) + (", ..." if len(people) > SHOWN else "")
    who = f"{len(people)} people ({who})" if len(people) > 1 else who
    held = f" ({summary.heldout} held out)" if summary.heldout else ""
    frames = f"{_counted(summary.frames, 'frame')}{held}"
    print(f"{folder}: {frames} in {' and '.join(part for part in parts if part)} of {who}")
    print(f"tasks: {', '.join(summary.tasks)}")
    for task, why in left_off(summary.tasks, chosen.missing).items():
        print(f"left off: {task}: {why}")
    if summary.reasons:
        rejected = sum(summary.reasons.values())
        print(f"rejected: {rejected} of {len(summary.records)} frames:")
        for reason, count in summary.reasons.items():
            print(f"  {count} {reason}")
    for path, error in summary.broken.items():
        print(f"note: left out {error if error.startswith(path) else f'{path}: {error}'}")
    photos = {wish.source.group: wish.source.identity for wish in summary.wishes if wish.source.kind == "photo"}
    for group, identity in photos.items():
        photos_of = [wish for wish in summary.wishes if wish.source.group == group]
        for line in advice_on(photos_of, summary.records, folder / ANNOTATED):
            print(f"advice on the photos of {identity}: {line}")
    print(f"look at {folder / REPORT} and {folder / 'sheets' / 'overview.png'}")
    print(f"correct what is wrong in {folder / ANNOTATED} (delete or replace files), and run this again")


def _counted(number: int, what: str) -> str:
    """1 clip, 2 clips, and for 0 nothing."""
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def left_off(tasks: Sequence[str], missing: Mapping[str, str]) -> dict[str, str]:
    """{task that cannot be shown: what it lacks, and why}"""
    reasons = {}
    for name, task in CONDITIONS.items():
        lacking = [layer for layer in task.needs if layer in missing]
        if name not in tasks and lacking:
            reasons[name] = f"needs {lacking[0]}, and {missing[lacking[0]]}"
    return reasons


def _device(choice: str) -> str:
    if choice.split(",")[0] == "light" and "=" not in choice:
        return "cpu"
    return compute_device().type
