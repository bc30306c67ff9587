"""How far a job has come, read off what its command says and what its run writes."""

import dataclasses
import json
import re
from pathlib import Path

from meta_animator.app.jobs import HEADER

STEPS = ("photos", "motion", "learning", "sampling")  # of animate.py, in their order
BAR = re.compile(r"^(?P<what>[^|]*?): +\d+%\|[^|]*\| (?P<done>\d+)/(?P<of>\d+) \[(?P<took>[\d:]+)<(?P<left>[\d:?]+)")
LEFT = re.compile(r"\(about (.+) left\)\s*$")
UNITS = {"s": 1, "min": 60, "h": 3600}
MOST = 16 * 2**20  # bytes that are read of a log, at its end


@dataclasses.dataclass(frozen=True)
class Bar:
    """A progress bar's newest state; took and left in seconds, None where it does not know."""

    what: str
    done: int
    of: int
    took: float
    left: float | None


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a command has said since it was begun the last time.

    step   how many of STEPS were begun
    bar    of the step that is going on, if it shows one
    left   seconds to the end, as far as that is known
    error  its last one-liner; notes: others that people should read; lines: all, as a terminal shows them
    """

    step: int = 0
    bar: Bar | None = None
    left: float | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where an error belongs: one of STEPS, or "" before them."""
        return STEPS[self.step - 1] if self.step else ""


def read_progress(log: Path) -> Progress:
    """Of a log that may be written to meanwhile, or may not be there yet."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MOST))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return Progress()
    return parse(text)


def parse(text: str) -> Progress:
    lines = [line.rpartition("\r")[2] or line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    starts = [k for k, line in enumerate(lines) if line.startswith(HEADER)]
    lines = lines[starts[-1] + 1 :] if starts else lines
    heads = [k for k, line in enumerate(lines) if line.startswith("== ")]
    now = lines[heads[-1] :] if heads else []
    bar = next((bar for line in reversed(now) if (bar := read_bar(line))), None)
    about = seconds_of(match[1]) if heads and (match := LEFT.search(lines[heads[-1]])) else None
    said = [line for line in lines if line.strip() and not read_bar(line)]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    crash = next((line for line in reversed(said) if re.match(r"[\w.]+(Error|Exception)\b", line)), "")
    if not errors and crash and any(line.startswith("Traceback ") for line in said):
        errors = [f"{crash} (a bug: the log says where)"]
    notes = [line.removeprefix("note: ") for line in said if line.startswith("note: ")]
    notes += [line.partition(": ")[2] for line in said if line.startswith("advice on the photos")]
    return Progress(
        step=min(len(heads), len(STEPS)), bar=bar, left=_left(about, bar), error=errors[-1] if errors else "",
        notes=tuple(dict.fromkeys(notes)), lines=tuple(said),
    )  # fmt: skip


def read_bar(line: str) -> Bar | None:
    """tqdm's."""
    found = BAR.match(line.lstrip())
    if not found:
        return None
    left = None if "?" in found["left"] else _clock(found["left"])
    return Bar(found["what"].strip(), int(found["done"]), int(found["of"]), _clock(found["took"]), left)


def seconds_of(words: str) -> float:
    """2 h 5 min, 3 min 20 s -> seconds"""
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+) (h|min|s)\b", words)))


def _left(about: float | None, bar: Bar | None) -> float | None:
    """What the step said at its beginning less what has passed; never less than its own bar says."""
    of_bar = bar.left if bar else None
    if about is None:
        return of_bar
    return max(about - (bar.took if bar else 0.0), of_bar or 0.0)


def _clock(text: str) -> float:
    """1:02:03 -> seconds"""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds)


@dataclasses.dataclass(frozen=True)
class Learning:
    """What a run has logged: curves {name: [(step, value)]}, the mean over tasks, and the newest pictures."""

    curves: dict[str, list[tuple[float, float]]]
    previews: tuple[Path, ...] = ()


def read_learning(run: Path) -> Learning:
    """Of a run's folder, however far it has come; lines that are not whole are left out."""
    sums: dict[str, dict[int, list[float]]] = {}
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                sums.setdefault(name, {}).setdefault(step, []).append(float(value))
    curves = {name: [(step, sum(some) / len(some)) for step, some in sorted(found.items())] for name, found in sums.items()}
    previews = sorted((run / "previews").glob("[!.]*.png"))
    return Learning(curves, tuple(previews[-1:]))
