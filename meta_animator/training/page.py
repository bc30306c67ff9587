"""A run as one HTML page, complete in itself: curves, previews, config, versions."""

import base64
import contextlib
import functools
import html
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from meta_animator.checkpoints.best import in_words, read_best
from meta_animator.config import to_yaml
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.media.images import read_image
from meta_animator.settings import RunConfig
from meta_animator.training.charts import chart

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
METERS = {  # what measures along with a training, see stages/meters.py
    "obedience": "obedience: excess of the error under a wrong condition over that under the right one, as a share of it",
    "control_gain": "control_gain: the same of the error without control",
    "held_out_error": "held_out_error: error of the prediction on what is held out, with fixed noise",
    "fixed_noise_error": "fixed_noise_error: error of the prediction on a few fixed samples with fixed noise",
    "copying": "copying: how much nearer to a training photo than to the truth, dB",
    "held_out_face": "held_out_face: likeness of the held-out face",
}
FIRST = ("loss", "latent", "pixel", "face", "clean_latent", "l1", "psnr", *METERS)  # the order of charts; others follow by name
OF_ALL_TASKS = ("learning_rate", "gradient_norm", "skipped_steps")  # one line in a chart
SHOWN_PREVIEWS = 12
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1500px;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.charts{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0}figcaption{font-weight:600;max-width:460px}svg text{font-size:11px;fill:#666}
.key{margin-right:1.2em;white-space:nowrap}
.key i{display:inline-block;width:1.4em;height:.25em;margin-right:.4em;vertical-align:middle}
img,video{max-width:100%;border:1px solid #ddd}pre{background:#f6f6f6;padding:1rem;overflow:auto}"""


class RunPage:
    """<folder>/index.html, from the folder's metrics.jsonl and previews; a browser needs nothing else.

    What was read or encoded once is kept: a page costs what is new since the last one.
    """

    def __init__(self, folder: Path, config: RunConfig, versions: Mapping[str, str]):
        self.folder, self.config, self.versions = folder, config, versions
        self.lines: list[dict[str, Any]] = []
        self.read_to = 0  # bytes of metrics.jsonl
        self.embedded: dict[tuple, str] = {}  # previews by name and stamp

    def of_now(self) -> Callable[[], Path]:
        """What writes the page of the present state when it is called, in another thread, too."""
        with (self.folder / "metrics.jsonl").open("rb") as file:
            file.seek(self.read_to)
            whole = file.read().rpartition(b"\n")[0]
        self.lines += [json.loads(line) for line in whole.split(b"\n") if line]
        self.read_to += len(whole) + 1 if whole else 0
        return functools.partial(self._write, tuple(self.lines), chosen_previews(self.folder / "previews"))

    def _write(self, lines: Sequence[Mapping[str, Any]], previews: Sequence[tuple]) -> Path:
        """previews: (file, its stamp)"""
        last = lines[-1]["step"] if lines else 0
        facts = f"{self.config.stage}, step {last} of {self.config.train.max_steps}, seed {self.config.seed}"
        if best := read_best(self.folder):
            facts += f"; step {best['step']} is {in_words(best)}"
        self.embedded = {preview: self.embedded.get(preview) or _embed(preview[0]) for preview in previews}
        numbers = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        parts = [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(self.folder.name)}</title>",
            f"<style>{STYLE}</style><h1>{html.escape(str(self.folder))}</h1><p>{facts}</p>",
            "<h2>Curves</h2>", *_charts(lines),
            "<h2>Previews</h2>", *(_figure(file.stem, self.embedded[file, stamp]) for file, stamp in previews),
            *([] if previews else ["<p>None yet.</p>"]),
            f"<h2>Config</h2><pre>{html.escape(to_yaml(self.config))}</pre>",
            f"<h2>Versions</h2><p>{html.escape(numbers)}</p></html>",
        ]  # fmt: skip
        with whole_file(self.folder / "index.html") as part:
            part.write_text("\n".join(parts), encoding="utf-8")
        return self.folder / "index.html"


# curves


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A chart per logged number, with a line per task where the loss is meant."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "task") and value is not None:
                task = "" if name in OF_ALL_TASKS else line.get("task", "")
                points.setdefault(name, {}).setdefault(task, []).append((line["step"], value))
    names = [name for name in FIRST if name in points] + sorted(points.keys() - set(FIRST))
    tasks = sorted({line["task"] for line in lines if "task" in line})
    colours = {task: COLOURS[k % len(COLOURS)] for k, task in enumerate(tasks)}
    key = "".join(f'<span class=key><i style="background:{c}"></i>{html.escape(t)}</span>' for t, c in colours.items())
    charts = []
    for name in names:
        curves = {colours.get(task, COLOURS[0]): points[name][task] for task in sorted(points[name])}
        charts.append(f"<figure><figcaption>{html.escape(METERS.get(name, name))}</figcaption>{chart(curves)}</figure>")
    return [f"<p>{key}</p>", "<div class=charts>", *charts, "</div>"] if charts else ["<p>Nothing was logged yet.</p>"]


# previews


def chosen_previews(folder: Path) -> list[tuple[Path, tuple[int, int]]]:
    """(file, its time and size) of those that are shown: the newest first, evenly chosen over the run where there are many."""
    found = sorted(path for path in folder.glob("[!.]*") if path.suffix in (".png", ".mp4")) if folder.is_dir() else []
    places = {round(k) for k in np.linspace(0, len(found) - 1, min(SHOWN_PREVIEWS, len(found)))}
    chosen = [found[k] for k in sorted(places, reverse=True)]
    return [(path, (seen.st_mtime_ns, seen.st_size)) for path in chosen if (seen := _stat(path)) is not None and seen.st_size]


def _stat(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):  # somebody has just taken it away
        return path.stat()
    return None


def _figure(title: str, picture: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{picture}</figure>"


def _embed(path: Path) -> str:
    if path.suffix == ".mp4":
        return f'<video controls loop muted src="data:video/mp4;base64,{_base64(path.read_bytes())}"></video>'
    try:
        picture, buffer = Image.fromarray(read_image(path)), io.BytesIO()
    except UserError as error:  # no reason to end a training
        return f"<p>{html.escape(str(error))}</p>"
    picture.thumbnail((1600, 1600))
    picture.save(buffer, "JPEG", quality=88)
    return f'<img src="data:image/jpeg;base64,{_base64(buffer.getvalue())}" alt="{html.escape(path.stem)}">'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
