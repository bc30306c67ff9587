"""Jobs: a person, a motion, a choice. All that is known of one lies in its folder, so whoever looks sees the same.

<id>/job.json       what is wanted
<id>/<motion>       the motion
<id>/process.json   who works on it, since it was begun
<id>/stop           somebody asked to stop it
<id>/end.json       how it ended: {"state": done | failed | cancelled, "code": exit code, "run": what was learned}
<id>/log.txt        what the command said
<id>/<video>.mp4    the video, and beside it the sheet, .png
"""

import contextlib
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_animator.app import people, presets, processes
from meta_animator.app.folders import ID, REPOSITORY, Folders, new_id, person_name
from meta_animator.app.uploads import JSON_FPS, copy_whole, find_motion, list_photos
from meta_animator.cli import BARS
from meta_animator.entry import STARTED_IN
from meta_animator.errors import UserError
from meta_animator.files import locked
from meta_animator.json_files import read_json, write_json

MOST_WAITING = 20
DONE, FAILED, CANCELLED, RUNNING, STOPPING, WAITING = "done", "failed", "cancelled", "running", "stopping", "waiting"
ENDED = (DONE, FAILED, CANCELLED)
QUEUE_LOCK, WORKER_LOCK = ".queue.lock", ".worker.lock"
RECORDS = ("job.json", "process.json", "end.json")  # no motion lies under these names
HEADER = "$ "  # begins the line in the log before what a command says


@dataclasses.dataclass(frozen=True)
class Job:
    """One job; `queued` orders the queue."""

    folder: Path
    person: str
    motion: str
    base: str
    configs: str
    quality: str
    settings: Sequence[str]
    queued: float
    begun: float  # when its newest process began; 0: it never did
    state: str
    code: int = 0
    run: str = ""  # name of what was learned, or used, once it is done

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def video(self) -> Path:
        return self.folder / f"{self.person}-{Path(self.motion).stem}.mp4"

    @property
    def motion_file(self) -> Path:
        return self.folder / self.motion

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def command(self, folders: Folders) -> list[str]:
        """The one that a user would run."""
        given = people.find(folders, self.person).given
        settings = list(self.settings)
        if self.motion_file.suffix == ".json" and not any(text.startswith("sample.driving_fps=") for text in settings):
            settings.append(f"sample.driving_fps={JSON_FPS}")
        return [
            sys.executable, "scripts/animate.py", str(given), str(self.motion_file), str(self.video), "--person", self.person,
            *settings,
        ]  # fmt: skip

    def environment(self, folders: Folders) -> dict[str, str]:
        return {"CONFIG": self.configs, "ANIMATE_DIR": str(folders.people)}

    def as_typed(self, folders: Folders) -> str:
        """The command in words for people."""
        told = " ".join(f"{name}={value}" for name, value in self.environment(folders).items())
        return f"{told} python {' '.join(self.command(folders)[1:])}"


def read_job(folder: Path) -> Job:
    """Raises UserError for what is no job."""
    values = _read(folder / "job.json")
    try:
        fields = {name: values[name] for name in ("person", "motion", "base", "configs", "quality", "settings", "queued")}
    except KeyError as error:
        raise UserError(f"{folder / 'job.json'}: {error} is missing") from None
    process = process_of(folder)
    end, stop = _read(folder / "end.json"), (folder / "stop").exists()
    if end.get("state") in ENDED:
        state = end["state"]
    elif process and processes.is_alive(process):
        state = STOPPING if stop else RUNNING
    else:
        state = WAITING
    begun = float(process.get("at", 0.0))
    return Job(folder=folder, **fields, begun=begun, state=state, code=end.get("code", 0), run=end.get("run", ""))


def list_jobs(folders: Folders) -> list[Job]:
    """The newest first; what cannot be read is none."""
    found = []
    for path in folders.jobs.iterdir():
        if ID.fullmatch(path.name):
            with contextlib.suppress(UserError):
                found.append(read_job(path))
    return sorted(found, key=lambda job: job.queued, reverse=True)


def process_of(folder: Path) -> dict[str, Any]:
    """What a job's newest process is known by; empty where it has none."""
    return _read(folder / "process.json")


def find(folders: Folders, name: object) -> Job:
    """Raises UserError where there is no such job."""
    return read_job(folders.job(name))


def waiting(jobs: Sequence[Job]) -> list[Job]:
    """In their order."""
    return sorted((job for job in jobs if job.state == WAITING), key=lambda job: job.queued)


def submit(folders: Folders, bases: Mapping[str, presets.Base], wish: Mapping[str, Any]) -> Job:
    """Puts a job into the queue.

    wish   draft (id), person (name of somebody known, or ""), name (of somebody new), base, quality
    Raises Refused for what the user can mend.
    """
    with _place("choice"):
        base, settings = presets.check_choice(bases, wish["base"], wish["quality"])
    draft = folders.draft(wish["draft"]) if wish["draft"] else None
    with _place("motion"):
        motion = find_motion(draft) if draft else None
        if motion is None:
            raise UserError("there is no motion yet; drop a film of anybody, a film of drawn poses, or keypoints (.npz)")
    with _place("photos"):
        if wish["person"]:
            person = people.find(folders, wish["person"])
        elif draft is None or not list_photos(draft):
            raise UserError("there are no photos yet; drop at least five of one person, or a film of them")
        else:
            person_name(wish["name"])
            person = None
    with locked(folders.root / QUEUE_LOCK):
        if len(waiting(list_jobs(folders))) >= MOST_WAITING:
            raise Refused("job", f"{MOST_WAITING} jobs are waiting already; cancel one, or come back later")
        folder = folders.jobs / new_id(folders.jobs)
        try:
            kept = f"motion_{motion.name}" if motion.name in RECORDS else motion.name
            copy_whole(motion, folder / kept)
            if person is None:
                with _place("photos"):
                    person = people.add(folders, wish["name"], draft)
            fields = {
                "person": person.name, "motion": kept, "base": str(wish["base"]), "configs": base.configs,
                "quality": str(wish["quality"]), "settings": settings, "queued": time.time(),
            }  # fmt: skip
            write_json(folder / "job.json", fields)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return read_job(folder)


def cancel(folders: Folders, name: object) -> None:
    """Takes a waiting job out of the queue; asks a running one to save and stop, and asked again ends it at once."""
    with locked(folders.root / QUEUE_LOCK):
        job = find(folders, name)
        if job.state == WAITING:
            end(job, CANCELLED)
        elif job.state in (RUNNING, STOPPING):
            process = process_of(job.folder)
            if job.state == STOPPING:
                processes.end_now(process)
            (job.folder / "stop").touch()
            processes.ask_to_stop(process)


def go_on(folders: Folders, name: object) -> None:
    """Puts a job that was cancelled or failed back into the queue, at its end. What is done is not done again."""
    with locked(folders.root / QUEUE_LOCK):
        job = find(folders, name)
        if job.state not in (FAILED, CANCELLED):
            raise UserError(f"this job is {job.state}; there is nothing to continue")
        people.find(folders, job.person)
        for leftover in ("stop", "process.json"):
            (job.folder / leftover).unlink(missing_ok=True)
        write_json(job.folder / "job.json", read_json(job.folder / "job.json") | {"queued": time.time()})
        (job.folder / "end.json").unlink()


def remove(folders: Folders, name: object) -> None:
    """Deletes an ended job with its video; the person stays."""
    with locked(folders.root / QUEUE_LOCK):
        job = find(folders, name)
        if job.state not in ENDED:
            raise UserError(f"this job is {job.state}; cancel it first")
        (job.folder / "job.json").unlink()  # first: what is left of a folder without it is no job
        shutil.rmtree(job.folder)


def end(job: Job, state: str, code: int = 0, run: str = "") -> None:
    write_json(job.folder / "end.json", {"state": state, "code": code, "run": run, "at": time.time()})


def environment_of(job: Job, folders: Folders) -> dict[str, str]:
    """The command's, with what makes its output readable while it comes."""
    own = {name: value for name, value in os.environ.items() if name != STARTED_IN}  # where the page was started is no matter
    return {**own, **job.environment(folders), "PYTHONUNBUFFERED": "1", BARS: "1"}


def ensure_worker(folders: Folders) -> None:
    """Starts a worker where a job waits and nobody works."""
    if waiting(list_jobs(folders)) and not processes.is_locked(folders.root / WORKER_LOCK):
        command = [sys.executable, "scripts/app.py", "--worker", str(folders.root.resolve())]
        processes.start(command, folders.root / "worker.log", REPOSITORY, dict(os.environ))


class Refused(UserError):
    """place: where it belongs, one of photos, motion, choice, job"""

    def __init__(self, place: str, message: str):
        super().__init__(message)
        self.place = place


class _place:
    """Inside the block a UserError belongs to a place of the page."""

    def __init__(self, place: str):
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UserError) and not isinstance(error, Refused):
            raise Refused(self.place, str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except UserError:
        return {}
    return values if isinstance(values, dict) else {}
