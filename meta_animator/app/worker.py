"""Works the queue off, one job at a time, and ends when nothing waits: python scripts/app.py --worker FOLDER

It is nobody's child: a closed browser and a killed server leave it alone. The lock on the folder is held by it and by the
command that it runs; so where it is killed, no second job begins beside the first, and the next worker continues that one.
"""

import contextlib
import signal
import time
from pathlib import Path

from meta_animator.app import people, processes
from meta_animator.app.folders import REPOSITORY, Folders
from meta_animator.app.jobs import (
    CANCELLED,
    DONE,
    FAILED,
    HEADER,
    QUEUE_LOCK,
    WORKER_LOCK,
    Job,
    end,
    environment_of,
    list_jobs,
    read_job,
    waiting,
)
from meta_animator.errors import UserError
from meta_animator.files import locked
from meta_animator.json_files import write_json

PATIENCE = 2.0  # seconds in which somebody who only looks at the lock has left it
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)  # codes of one that was asked to stop


def main(root: str) -> None:
    folders = Folders(Path(root))
    until = time.monotonic() + PATIENCE
    while (lock := processes.try_lock(folders.root / WORKER_LOCK)) is None:
        if time.monotonic() > until:
            return
        time.sleep(0.05)
    with lock:
        while (job := next_job(folders)) is not None:
            if not work(job, folders, lock.fileno()):
                return


def next_job(folders: Folders) -> Job | None:
    """The first that waits."""
    return next(iter(waiting(list_jobs(folders))), None)


def work(job: Job, folders: Folders, lock: int) -> bool:
    """Runs a job's command to its end, and notes that. False where the machine is asked to stop, not the job: then it waits for
    the next worker."""
    with locked(folders.root / QUEUE_LOCK):
        job = read_job(job.folder)
        if job.state != "waiting":
            return True
        if (job.folder / "stop").exists():  # whoever should have noted it was killed meanwhile
            end(job, CANCELLED)
            return True
        try:
            command = job.command(folders)
        except UserError as error:
            with job.log.open("a") as log:
                log.write(f"{HEADER}\nerror: {error}\n")
            end(job, FAILED, 2)
            return True
        with job.log.open("a") as log:
            log.write(f"{HEADER}{job.as_typed(folders)}\n")
        process = processes.start(command, job.log, REPOSITORY, environment_of(job, folders), keep=(lock,))
        write_json(job.folder / "process.json", {**processes.identify(process.pid), "at": time.time()})
    code = process.wait()
    with locked(folders.root / QUEUE_LOCK):
        stopped = (job.folder / "stop").exists()
        if code in STOPPED and not stopped:
            return False
        run = remember_person(job, folders) if code == 0 else ""
        end(job, DONE if code == 0 else CANCELLED if stopped else FAILED, code, run)
    return True


def remember_person(job: Job, folders: Folders) -> str:
    """Notes what was learned, and returns the run's name."""
    with contextlib.suppress(UserError):
        person = people.find(folders, job.person)
        if (run := people.used_run(person)) is not None:
            people.remember(folders, person.name, job.base, job.quality, run)
            return run.name
    return ""
