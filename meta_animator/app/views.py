"""The page's parts as HTML, from what is known. No name and no line reaches it unescaped."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from meta_animator.app import jobs, people
from meta_animator.app.jobs import Job
from meta_animator.app.looking import BROKEN, BUSY, Sight
from meta_animator.app.presets import Base
from meta_animator.app.progress import STEPS, Learning, Progress, read_learning
from meta_animator.media.images import PHOTO_SUFFIXES
from meta_animator.stages.clock import words
from meta_animator.training.charts import chart

TITLES = {"photos": "Photos", "motion": "Motion", "learning": "Learning", "sampling": "Sampling"}
METERS = {
    "obedience": "the pose is obeyed", "control_gain": "gain by the pose", "held_out_error": "error, held-out photo",
    "fixed_noise_error": "error, fixed noise", "copying": "nearer to a photo than to the truth, dB", "held_out_face": "likeness",
}  # fmt: skip
LINE, SHOWN_NOTES, SHOWN_LINES, SHOWN_PHOTOS = "#2f5fd0", 8, 400, 12


def link(file: Path) -> str:
    """Where the browser finds a file, anew where it has changed."""
    try:
        version = file.stat().st_mtime_ns
    except OSError:  # it is just being replaced
        version = 0
    return f"gradio_api/file={quote(str(file.resolve()))}?v={version}"


def picture(file: Path, title: str = "", kind: str = "") -> str:
    note = f"<figcaption>{html.escape(title)}</figcaption>" if title else ""
    shown = f'<img src="{html.escape(link(file))}" alt="{html.escape(title)}" loading="lazy">'
    return f'<figure class="{kind}">{shown}{note}</figure>'


def film(file: Path, title: str) -> str:
    shown = f'<video src="{html.escape(link(file))}" controls loop muted autoplay playsinline></video>'
    return f"<figure>{shown}<figcaption>{html.escape(title)}</figcaption></figure>"


def error(text: str) -> str:
    return f'<p class="error" role="alert">{html.escape(text)}</p>' if text else ""


def lines(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def sight(seen: Sight, problem: str, busy: str) -> str:
    """What was recognised, and what is wrong with it."""
    if seen.state == BUSY:
        return error(problem) + f'<p class="busy">{html.escape(busy)}</p>'
    shown = "".join(picture(file, reason or title, "out" if reason else "") for file, title, reason in seen.pictures)
    wrong = error(seen.error) if seen.state == BROKEN else ""
    grid = f'<div class="seen">{shown}</div>' if shown else ""
    return f"{error(problem)}{wrong}{grid}{lines(seen.lines)}"


def known_person(person: people.Person, bases: Mapping[str, Base], base: str, quality: str, problem: str) -> str:
    """Somebody's photos, and whether they have to be learned for this choice."""
    shown = "".join(picture(file) for file in photos_of(person)[:SHOWN_PHOTOS])
    if person.run is None:
        said = "Not learned yet."
    elif (person.base, person.quality) == (base, quality):
        said = "Learned: another motion starts at once."
    else:
        before = f"{bases[person.base].title}, {person.quality}" if person.base in bases else person.base
        said = f"Learned with {before}; with another choice they are learned anew."
    return f'{error(problem)}<div class="seen">{shown}</div><p class="said">{html.escape(said)}</p>'


def photos_of(person: people.Person) -> list[Path]:
    """Pictures that browsers show: as preparation stored them, or else as they were given."""
    stored = sorted((person.folder / "photos" / "clips").glob("*/frame/*.png"))
    stored = stored[:: math.ceil(len(stored) / SHOWN_PHOTOS)] if stored else []
    return stored or [path for path in sorted((person.folder / people.GIVEN).glob("*")) if path.suffix in PHOTO_SUFFIXES[:4]]


def status(job: Job, place: int, bases: Mapping[str, Base], progress: Progress) -> str:
    """A job's name, state and steps."""
    base = bases[job.base].title if job.base in bases else job.base
    head = (
        f"<h2>{html.escape(job.person)} <span>in</span> {html.escape(job.motion)} {chip(job, place)}</h2>"
        f'<p class="said">{html.escape(base)} · {html.escape(job.quality)}</p>'
    )
    if job.state == jobs.WAITING:
        said = f"{place - 1} before it in the queue." if place > 1 else "It begins as soon as the machine is free."
        return head + f'<p class="said">{"Was interrupted and continues. " if job.begun else ""}{said}</p>'
    wrong = progress.error if job.state == jobs.FAILED else ""
    if job.state == jobs.FAILED and not wrong:
        out = " (out of memory?)" if job.code == -9 else ""
        wrong = f"the command ended with code {job.code}{out}; the log says more"
    steps = "".join(_step(job, name, number, progress, wrong) for number, name in enumerate(STEPS, 1))
    before = error(wrong) if wrong and not progress.step else ""
    return f"{head}{before}<ol class='steps'>{steps}</ol>"


def chip(job: Job, place: int) -> str:
    text = {jobs.WAITING: f"waiting, number {place}", jobs.STOPPING: "saving and stopping"}.get(job.state, job.state)
    return f'<b class="chip {job.state}" data-state="{job.state}">{text}</b>'


def _step(job: Job, name: str, number: int, progress: Progress, wrong: str) -> str:
    done = job.state == jobs.DONE or number < progress.step
    now = number == progress.step and not done
    state = "done" if done else "wrong" if now and wrong else "now" if now else "to come"
    more = ""
    if now and job.state in (jobs.RUNNING, jobs.STOPPING):
        more = _bar(progress) if job.state == jobs.RUNNING else ""
    elif now:
        more = error(wrong) or '<p class="said">stopped here; Continue goes on</p>'
    return f'<li class="{state.replace(" ", "")}"><div>{TITLES[name]}</div>{more}</li>'


def _bar(progress: Progress) -> str:
    bar = progress.bar
    if bar is None:
        left = f", about {words(progress.left)} left" if progress.left else ""
        return f'<div class="bar idle"><i></i></div><p class="said">getting ready{left}</p>'
    what = "step" if bar.what in ("reference", "sampling") else html.escape(bar.what)
    left = f", about {words(progress.left)} left" if progress.left else ""
    share = 100 * bar.done / max(1, bar.of)
    return f'<div class="bar"><i style="width:{share:.0f}%"></i></div><p class="said">{what} {bar.done} of {bar.of}{left}</p>'


def learning(run: Path | None) -> str:
    """Curve, meters and the newest preview of a run."""
    if run is None:
        return ""
    learned = read_learning(run)
    loss = learned.curves.get("loss", [])
    if not loss:
        return ""
    curve = f"<figure><figcaption>Loss</figcaption>{chart({LINE: loss})}</figure>" if len(loss) > 1 else ""
    previews = "".join(_preview(path) for path in learned.previews)
    return f'<h3>Learning</h3><div class="learning">{curve}{_meters(learned)}{previews}</div>'


def _preview(file: Path) -> str:
    """Of step-000160.png"""
    step = file.stem.rpartition("-")[2].lstrip("0")
    shown = picture(file, f"Preview at step {step}; click to see it large")
    return f'<a href="{html.escape(link(file))}" target="_blank">{shown}</a>'

def _meters(learned: Learning) -> str:
    rows = [
        f"<tr><td>{html.escape(said)}</td><td>{learned.curves[name][-1][1]:.3g}</td></tr>"
        for name, said in METERS.items()
        if learned.curves.get(name)
    ]
    last, loss = learned.curves["loss"][-1]
    rows.insert(0, f"<tr><td>loss at step {last}</td><td>{loss:.3g}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def result(job: Job, person: people.Person | None, problem: str) -> str:
    """The video beside motion and photos, and what can be taken along. person: None where their folder is gone."""
    if job.state != jobs.DONE or not job.video.is_file():
        return error(problem)
    motion = job.motion_file
    shown = [film(job.video, "The video")]
    if motion.suffix in (".mp4", ".webm", ".m4v", ".mov", ".mkv"):
        shown.append(film(motion, "The motion"))
    elif motion.suffix == ".gif":
        shown.append(picture(motion, "The motion"))
    photos = "".join(picture(file) for file in photos_of(person)[:8]) if person else ""
    loras = person.folder / people.loras_name(person) if person else Path()
    links = [("Download the video", job.video), ("Photos, motion, result", job.video.with_suffix(".png"))]
    links += [("Download the LoRA (zip)", loras)] if loras.is_file() else []
    taken = "".join(f'<a class="take" href="{html.escape(link(path))}" download="{path.name}">{said}</a>'
                    for said, path in links if path.is_file())  # fmt: skip
    beside = f'<div class="films">{"".join(shown)}</div><h3>Photos</h3><div class="seen">{photos}</div>'
    return f"{beside}{error(problem)}<p>{taken}</p>"


def notes(progress: Progress) -> str:
    return lines(progress.notes[:SHOWN_NOTES])


def log(command: str, progress: Progress) -> str:
    """What the command says, under the command itself."""
    return "\n".join([f"$ {command}", *progress.lines[-SHOWN_LINES:]])


def label(job: Job, place: int) -> str:
    """A job in the list."""
    state = f"waiting ({place})" if job.state == jobs.WAITING else job.state
    return f"{job.person} · {Path(job.motion).stem} — {state}"
