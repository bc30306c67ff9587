"""What the rows say: tables with intervals, curves over steps and seconds, frames beside each other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.benchmark.fewshot.cells import PEOPLE, Size, read_rows
from meta_animator.benchmark.fewshot.methods import FULL, METHODS, PHOTOS
from meta_animator.benchmark.fewshot.people import TEST, TUNING, driving_of
from meta_animator.benchmark.fewshot.statistics import FEWEST, Interval, interval, paired
from meta_animator.data.manifest import find_clip, is_data_set
from meta_animator.evaluation.animation import load_layers, read_frames
from meta_animator.files import whole_file
from meta_animator.media.images import write_image
from meta_animator.media.sheets import grid

METRICS = {  # of the tables: what, in which unit, and whether more is better
    "person_psnr": ("person", "dB", True), "face_psnr": ("face", "dB", True), "psnr": ("frame", "dB", True),
    "background_psnr": ("background", "dB", True), "person_ssim": ("person SSIM", "", True),
    "face_similarity": ("face similarity", "cosine", True), "pose_error": ("pose error", "of the height", False),
    "person_flicker": ("flicker", "of 255", False), "person_warped_flicker": ("flicker along the motion", "of 255", False),
}  # fmt: skip
CLAIMS = ("person_psnr", "face_similarity", "pose_error")
RIVALS = ("first_photo", "nearest_photo", "stage0", "control_pose", "dreambooth")
Row = Mapping[str, Any]


def last_rows(rows: Sequence[Row], photos: int) -> dict[str, list[Row]]:
    """{method: its rows after the last step}, of one number of photos."""
    found = defaultdict(list)
    for row in rows:
        if row["photos"] == photos and row.get("last"):
            found[row["method"]].append(row)
    return dict(found)


def by_person(rows: Sequence[Row], metric: str) -> dict[int, float]:
    """{person: mean over seeds}; those without a value are left out."""
    values = defaultdict(list)
    for row in rows:
        if row.get(metric) is not None:
            values[row["person"]].append(row[metric])
    return {person: float(np.mean(some)) for person, some in values.items()}


def write_report(folder: Path, size: Size) -> Path:
    """report.md, curves.png and frames.png in the benchmark's folder; returns the report's path. Of people for tuning or for
    testing, as those of `size` are: no table holds both."""
    pool = TUNING if set(size.people) <= set(TUNING) else TEST
    found = read_rows(folder)
    rows = [row for row in found if row["person"] in pool]
    parts = [_head(size, rows, len(found) - len(rows))]
    for photos in sorted({row["photos"] for row in rows}):
        methods = last_rows(rows, photos)
        parts += [f"## {photos} {'photo' if photos == 1 else 'photos'}", _means(methods), _differences(methods)]
    if any(row["method"] == FULL for row in rows):
        parts.insert(1, _claims(rows))
    if (curves := _curves(rows)) is not None:
        write_image(folder / "curves.png", curves)
        parts.append("The person over steps and seconds of stage 2: ![curves](curves.png)")
    if (sheet := _sheet(folder, size, rows)) is not None:
        write_image(folder / "frames.png", sheet)
        parts.append("A person's frames: truth, then each method. ![frames](frames.png)")
    path = folder / "report.md"
    with whole_file(path) as part:
        part.write_text("\n\n".join(text for text in parts if text) + "\n", encoding="utf-8")
    return path


def _head(size: Size, rows: Sequence[Row], left_out: int) -> str:
    people, seeds = {row["person"] for row in rows}, {row["seed"] for row in rows}
    return (
        f"# Few-shot benchmark\n\n{len(people)} people whom neither base nor stages 0 and 1 have seen, {len(seeds)} seed(s), "
        f"{size.frames} frames of an unseen motion at {size.side} x {size.side}, "
        f"{size.sampling_steps} sampling steps. Prompts name nothing but the identifier. Intervals: 95 %, bootstrap over "
        "people (of fewer than four none is given, and no method is called better); differences are paired. Faces and poses are "
        "judged by networks that were in no loss."
    ) + (f" {left_out} rows of {'test' if size.people[0] in TUNING else 'tuning'} people are left out." if left_out else "")


def _claims(rows: Sequence[Row]) -> str:
    """Whether the method beats every rival, in what its intervals show; plainly."""
    photos = 5 if any(row["photos"] == 5 for row in rows) else max(row["photos"] for row in rows)
    methods, lines = last_rows(rows, photos), []
    for rival in (name for name in RIVALS if name in methods and FULL in methods):
        for metric in CLAIMS:
            if (gap := _gap(methods, rival, metric)) is not None:
                name, unit, more = METRICS[metric]
                better = gap.mean > 0 if more else gap.mean < 0
                verdict = ("beats" if better else "is beaten by") if gap.excludes_zero else "cannot be told from"
                lines.append(f"- {name}: Meta-Animator {verdict} {METHODS[rival].says}: {_text(gap, metric)} {unit}".rstrip())
    lines += [line for rival in RIVALS if (line := _pace(rows, rival, photos))]
    return f"## What it shows, with {photos} photos\n\n" + "\n".join(lines) if lines else ""


def _pace(rows: Sequence[Row], rival: str, photos: int) -> str:
    """After how many steps of ours the person is as near to the truth as a rival's training ever brings it, in the mean over
    the people whom both have; '' for a rival that is not trained, or of fewer than FEWEST people."""
    ours, theirs = (_by_steps(rows, method, photos) for method in (FULL, rival))
    people = set.intersection(*map(set, (*ours.values(), *theirs.values()))) if ours and theirs else set()
    if len(people) < FEWEST:
        return ""
    means = [{step: np.mean([of[person] for person in people]) for step, of in values.items()} for values in (ours, theirs)]
    step, best = max(means[1].items(), key=lambda one: one[1])
    reached = [ours_step for ours_step, value in sorted(means[0].items()) if value >= best]
    answer = f"after {reached[0]} of its own" if reached else f"not in {max(means[0])} of its own"
    return f"- steps: {METHODS[rival].says} is best after {step}, {best:.2f} dB; Meta-Animator reaches that {answer}"


def _by_steps(rows: Sequence[Row], method: str, photos: int) -> dict[int, dict[int, float]]:
    """{steps: {person: mean over seeds, dB in the person}} of a method that is trained."""
    chosen = [row for row in rows if row["method"] == method and row["photos"] == photos and row["steps"]]
    steps = {row["steps"] for row in chosen}
    return {step: by_person([row for row in chosen if row["steps"] == step], "person_psnr") for step in steps}


def _gap(methods: Mapping[str, Sequence[Row]], other: str, metric: str) -> Interval | None:
    return paired(by_person(methods[FULL], metric), by_person(methods[other], metric))


def _means(methods: Mapping[str, Sequence[Row]]) -> str:
    head = ["method", *(f"{name} ({unit})" if unit else name for name, unit, _ in METRICS.values()), "steps", "seconds"]
    lines = [_line(head), _line(["---"] * len(head))]
    most = max(len(by_person(rows, "psnr")) for rows in methods.values())
    for name in METHODS:
        if name in methods:
            rows = methods[name]
            people = len(by_person(rows, "psnr"))
            says = METHODS[name].says + (f" ({people} of {most} people)" if people < most else "")
            means = [_mean(by_person(rows, metric), metric) for metric in METRICS]
            seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
            took = f"{np.median(seconds):.0f}" if seconds else ""
            lines.append(_line([says, *means, f"{rows[0]['steps']}", took]))
    return "\n".join(lines)


def _differences(methods: Mapping[str, Sequence[Row]]) -> str:
    """Meta-Animator minus each other, person by person."""
    if FULL not in methods or len(methods) < 2:
        return ""
    lines = [
        "Stage 2 as it is shipped, minus each other (bold: the interval excludes zero):", "",
        _line(["minus", *(name for name, _, _ in METRICS.values())]), _line(["---"] * (1 + len(METRICS))),
    ]  # fmt: skip
    for name in METHODS:
        if name in methods and name != FULL:
            gaps = [(_gap(methods, name, metric), metric) for metric in METRICS]
            cells = ["" if gap is None else f"**{_text(gap, m)}**" if gap.excludes_zero else _text(gap, m) for gap, m in gaps]
            lines.append(_line([METHODS[name].says, *cells]))
    return "\n".join(lines)


def _text(gap: Interval, metric: str) -> str:
    return _shown(gap, metric, "+")


def _shown(found: Interval, metric: str, sign: str = "") -> str:
    """A mean with its interval, where there is one."""
    form = f"{sign}.{2 if 'psnr' in metric or 'flicker' in metric else 3}f"
    if not np.isfinite(found.low):
        return f"{found.mean:{form}}"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _mean(values: Mapping[int, float], metric: str) -> str:
    return _shown(interval(list(values.values())), metric) if values else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _curves(rows: Sequence[Row]) -> np.ndarray | None:
    """Means over people against steps and, beside it, against seconds, a line per method; None where no method was scored at
    several steps."""
    photos = max((row["photos"] for row in rows), default=0)
    scored = [row for row in rows if row["photos"] == photos and row["steps"] and row.get("person_psnr") is not None]
    plots = []
    for axis in ("steps", "seconds"):
        series: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in scored:
            if row[axis] is not None:
                series[row["method"]][row["steps"]].append(row)
        lines = {name: sorted(_point(some, axis) for some in points.values()) for name, points in series.items()}
        lines = {name: points for name, points in lines.items() if len(points) > 1}
        if lines:
            plots.append(_plot(lines, f"person, dB, over {axis} of stage 2"))
    return np.concatenate(plots, 1) if plots else None


def _point(rows: Sequence[Row], axis: str) -> tuple[float, float]:
    return float(np.mean([row[axis] for row in rows])), float(np.mean([row["person_psnr"] for row in rows]))


def _plot(lines: Mapping[str, Sequence[tuple[float, float]]], title: str) -> np.ndarray:
    """A line chart, uint8 (360, 880, 3), of {name: points (x, y)}, with names beside it."""
    import cv2

    flat = np.array([point for points in lines.values() for point in points])
    (x0, y0), (x1, y1) = flat.min(0), flat.max(0)
    height, width, left, foot = 360, 640, 60, 40
    picture = np.full((height, width + 240, 3), 255, np.uint8)
    x = lambda step: int(left + (step - x0) / max(1, x1 - x0) * (width - left - 20))  # noqa: E731
    y = lambda value: int(height - foot - (value - y0) / max(1e-6, y1 - y0) * (height - foot - 20))  # noqa: E731
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    for value in np.linspace(y0, y1, 5):
        cv2.putText(picture, f"{value:.1f}", (8, y(value) + 4), font, 0.4, black, 1, cv2.LINE_AA)
        cv2.line(picture, (left, y(value)), (width - 20, y(value)), (225, 225, 225), 1)
    for step in np.linspace(x0, x1, 5):
        cv2.putText(picture, f"{step:.0f}", (x(step) - 10, height - 18), font, 0.4, black, 1, cv2.LINE_AA)
    cv2.putText(picture, title, (left, 14), font, 0.45, black, 1, cv2.LINE_AA)
    for number, (name, points) in enumerate(sorted(lines.items(), key=lambda line: -line[1][-1][1])):
        hue = np.uint8([[[number * 179 // max(1, len(lines)), 200, 190]]])
        colour = tuple(int(c) for c in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        cv2.polylines(picture, [np.int32([(x(s), y(v)) for s, v in points])], False, colour, 2, cv2.LINE_AA)
        cv2.putText(picture, name, (width, 30 + 20 * number), font, 0.45, colour, 1, cv2.LINE_AA)
    return picture


def _sheet(folder: Path, size: Size, rows: Sequence[Row]) -> np.ndarray | None:
    """Of the first person who has all the frames still there: four frames of the truth and of each method, a row each."""
    found = [row for row in rows if row.get("last") and row["method"] not in PHOTOS]
    cells = [row for row in found if (folder / "cells" / row["cell"] / "step3" / "frames").is_dir()]
    cells = [row for row in cells if is_data_set(str(driving_of(folder / PEOPLE, row["person"])))]
    if not cells:
        return None
    first = cells[0]
    side = (size.side,) * 2
    truth = [layers.frame for layers in load_layers([find_clip(driving_of(folder / PEOPLE, first["person"]), "")], side)]
    shown, titles = [truth[: size.frames]], ["truth"]
    for row in cells:
        if (row["person"], row["photos"], row["seed"]) == (first["person"], first["photos"], first["seed"]):
            shown.append(list(read_frames(folder / "cells" / row["cell"] / "step3" / "frames")))
            titles.append(row["method"])
    picked = np.linspace(0, len(shown[1]) - 1, min(6, len(shown[1]))).round().astype(int)
    return grid([[frames[k] for k in picked] for frames in shown], row_titles=titles)
