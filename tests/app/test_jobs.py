"""The queue: what a killed worker, a killed machine, a cancelled or failed command leave behind, and who goes on with it."""

import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import time

import pytest

from meta_animator.app import jobs, people, presets, processes, worker
from meta_animator.app.progress import read_progress
from meta_animator.app.uploads import new_draft, take_motion, take_photos
from meta_animator.errors import UserError

STAND_IN = """
import pathlib, signal, sys, time
home = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (home / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("== who is it", flush=True)
if (home / "fails").exists():
    sys.exit(print("error: nobody is seen", file=sys.stderr) or 2)
print("== how do they move", flush=True)
with open(home / "runs", "a") as file:
    file.write("x")
while (home / "wait").exists():
    time.sleep(0.01)
pathlib.Path(sys.argv[2]).write_text("a video")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Jobs run a small program: it goes on while <job>/wait exists, and fails where <job>/fails does."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    command = lambda job, folders: [sys.executable, str(script), str(job.folder), str(job.video)]  # noqa: E731
    monkeypatch.setattr(jobs.Job, "command", command)


@pytest.fixture
def ask(folders, dropped):
    """ask(name, *marks) -> a submitted job whose folder has these files."""

    def submit(name, *marks):
        draft = folders.draft(new_draft(folders))
        take_photos(draft, sorted((dropped / "photos").iterdir()))
        take_motion(draft, dropped / "wave.npz")
        wish = {"draft": draft.name, "person": "", "name": name, "base": "embedded", "quality": "quick"}
        job = jobs.submit(folders, presets.BASES, wish)
        for mark in marks:
            (job.folder / mark).touch()
        return job

    return submit


@pytest.fixture
def begin(folders):
    """begin() -> a worker's process; none outlives the test."""
    begun = []

    def start():
        process = multiprocessing.get_context("fork").Process(target=worker.main, args=(str(folders.root),))
        process.start()
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.join()
    for job in jobs.list_jobs(folders):
        processes.end_now(jobs.process_of(job.folder))


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come about in 10 s")


def state(folders, job):
    return jobs.find(folders, job.id).state


def runs(job):
    path = job.folder / "runs"
    return len(path.read_text()) if path.exists() else 0


def test_one_job_at_a_time_in_their_order(folders, stand_in, ask, begin):
    first, second, third = ask("a", "wait"), ask("b"), ask("c")
    begin()
    until(lambda: runs(first))
    begin().join(20)  # a second worker finds the first one at work, and leaves
    assert [state(folders, one) for one in (first, second, third)] == ["running", "waiting", "waiting"]
    assert [one.id for one in jobs.waiting(jobs.list_jobs(folders))] == [second.id, third.id]
    jobs.cancel(folders, second.id)
    (first.folder / "wait").unlink()
    until(lambda: state(folders, third) == "done")
    assert [state(folders, one) for one in (first, second)] == ["done", "cancelled"] and not runs(second)
    jobs.go_on(folders, second.id)
    begin()
    until(lambda: state(folders, second) == "done")
    assert first.video.read_text() == "a video"


def test_a_killed_worker_leaves_its_command_alone_and_the_next_one_goes_on(folders, stand_in, ask, begin):
    job, other = ask("a", "wait"), ask("b")
    killed = begin()
    until(lambda: runs(job))
    killed.kill()
    killed.join()
    assert state(folders, job) == "running", "the command is known by its number and start"
    begin().join(20)
    assert (runs(job), runs(other)) == (1, 0), "while it runs, nobody begins anything"
    (job.folder / "wait").unlink()
    until(lambda: state(folders, job) != "running")
    begin()
    until(lambda: state(folders, other) == "done")
    assert state(folders, job) == "done" and runs(job) == 2


def test_a_killed_machine_goes_on_with_the_same_command(folders, stand_in, ask, begin):
    job = ask("a", "wait")
    killed = begin()
    until(lambda: runs(job))
    killed.kill()
    processes.end_now(jobs.process_of(job.folder))
    until(lambda: state(folders, job) == "waiting")
    assert jobs.find(folders, job.id).begun > 0, "which the page calls interrupted"
    (job.folder / "wait").unlink()
    begin()
    until(lambda: state(folders, job) == "done")
    assert runs(job) == 2


def test_a_cancelled_job_does_not_begin_anew_because_nobody_was_left_to_note_it(folders, stand_in, ask, begin):
    job = ask("a", "wait")
    killed = begin()
    until(lambda: runs(job))
    killed.kill()
    killed.join()
    jobs.cancel(folders, job.id)
    until(lambda: not processes.is_alive(jobs.process_of(job.folder)))
    begin().join(20)
    assert state(folders, job) == "cancelled" and runs(job) == 1
    jobs.go_on(folders, job.id)
    assert state(folders, job) == "waiting"


def test_a_motion_config_that_a_power_cut_emptied_does_not_keep_a_done_job_from_its_end(folders, stand_in, ask, begin):
    job = ask("a")
    for text in ("", "model: 1", "model: {control_from: [", "\x00"):
        (folders.people / "a" / "videos" / "wave").mkdir(parents=True, exist_ok=True)
        (folders.people / "a" / "videos" / "wave" / "config.yaml").write_text(text)
        assert people.used_run(people.find(folders, "a")) is None
    begin()
    until(lambda: state(folders, job) == "done")


def test_a_power_cut_leaves_neither_half_a_person_nor_half_a_job(folders, ask, monkeypatch):
    class PowerCut(BaseException):
        pass

    def cut(*_, **__):
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(people, "copy_whole", cut)
        patch.setattr(people.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(PowerCut):
            ask("a")
    assert not people.list_people(folders) and not jobs.list_jobs(folders)
    job = ask("a")
    jobs.cancel(folders, job.id)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.shutil, "rmtree", lambda folder: ((folder / "end.json").unlink(), cut()))
        with pytest.raises(PowerCut):
            jobs.remove(folders, job.id)
    assert not jobs.list_jobs(folders), "it was to be deleted, so it does not wait again"


def test_a_full_disk_leaves_nothing_of_what_was_asked_for(folders, ask, monkeypatch):
    def full(path, value):
        raise UserError(f"{path}: cannot be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_json", full)
        with pytest.raises(UserError, match="No space left"):
            ask("a")
    assert not list(folders.jobs.iterdir())


def test_a_process_with_a_strange_name_is_known_too(tmp_path):
    name = tmp_path / "ööööööööö"  # the system keeps its first 15 bytes: seven letters and a half
    name.symlink_to(shutil.which("sleep"))
    process = processes.start([str(name), "60"], tmp_path / "log", tmp_path, dict(os.environ))
    try:
        until(lambda: b"\xc3)" in (tmp_path / f"/proc/{process.pid}/stat").read_bytes())
        assert processes.is_alive(processes.identify(process.pid))
    finally:
        process.kill()
        process.wait()


def test_another_process_of_that_number_is_not_taken_for_the_command(folders, ask):
    job = ask("a")
    mine = processes.identify(os.getpid())
    jobs.write_json(job.folder / "process.json", mine)
    assert state(folders, job) == "running"
    jobs.write_json(job.folder / "process.json", mine | {"started": mine["started"] + "1"})
    assert state(folders, job) == "waiting"


def test_a_cancelled_job_saves_and_the_same_command_continues_it(folders, stand_in, ask, begin):
    job = ask("a", "wait")
    begin()
    until(lambda: runs(job))
    jobs.cancel(folders, job.id)
    until(lambda: state(folders, job) == "cancelled")
    assert (job.folder / "saved").exists()
    jobs.go_on(folders, job.id)
    assert state(folders, job) == "waiting"
    with pytest.raises(UserError, match="nothing to continue"):
        jobs.go_on(folders, job.id)
    (job.folder / "wait").unlink()
    begin()
    until(lambda: state(folders, job) == "done")
    assert runs(job) == 2 and job.log.read_text().count("\n$ ") == 1, "both are in the log"


def test_a_machine_that_shuts_down_cancels_nothing(folders, stand_in, ask, begin):
    job = ask("a", "wait")
    working = begin()
    until(lambda: runs(job))
    os.kill(jobs.process_of(job.folder)["pid"], signal.SIGTERM)  # by no click
    working.join(20)
    assert state(folders, job) == "waiting", "for the next worker"


def test_a_failed_job_says_why_and_where(folders, stand_in, ask, begin):
    job = ask("a", "fails")
    begin()
    until(lambda: state(folders, job) == "failed")
    said = read_progress(job.log)
    assert (said.error, said.place, jobs.find(folders, job.id).code) == ("nobody is seen", "photos", 2)
    shutil.rmtree(folders.people / "a")
    with pytest.raises(UserError, match="there is no such person"):
        jobs.go_on(folders, job.id)
    jobs.remove(folders, job.id)
    assert not jobs.list_jobs(folders)


def test_what_is_missing_is_said_where_it_belongs(folders, dropped):
    draft = folders.draft(new_draft(folders))
    wish = {"draft": draft.name, "person": "", "name": "anna", "base": "embedded", "quality": "quick"}

    def refused(**changes):
        with pytest.raises(jobs.Refused) as error:
            jobs.submit(folders, presets.BASES, {**wish, **changes})
        return error.value.place, str(error.value)

    assert refused()[0] == "motion" and refused(quality="best")[0] == refused(base="../x")[0] == "choice"
    take_motion(draft, dropped / "wave.npz")
    assert refused()[0] == "photos" and refused(person="../jobs")[0] == "photos"
    take_photos(draft, sorted((dropped / "photos").iterdir()))
    assert refused(name="../")[1].startswith("the person has no name") and "taken" in refused(name="motions")[1]
    assert not jobs.list_jobs(folders) and not people.list_people(folders), "nothing is left of what was refused"
    jobs.submit(folders, presets.BASES, wish)
    assert refused() == ("photos", "anna is there already; choose them from the list, or give another name")
    assert jobs.submit(folders, presets.BASES, wish | {"person": "anna"}).person == "anna"


def test_the_queue_has_an_end(folders, ask, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING", 2)
    ask("a"), ask("b")
    with pytest.raises(UserError, match="2 jobs are waiting already"):
        ask("c")
    assert [one.name for one in people.list_people(folders)] == ["a", "b"]


def test_the_command_is_what_a_user_would_type(folders, ask, monkeypatch):
    monkeypatch.setenv("META_ANIMATOR_STARTED_IN", "/another/copy")  # whose configs would be taken for those that were chosen
    job = ask("Anna B.")
    assert "META_ANIMATOR_STARTED_IN" not in jobs.environment_of(job, folders)
    given = folders.people / "Anna_B" / "given"
    command = ["scripts/animate.py", str(given), str(job.folder / "wave.npz"), str(job.video), "--person", "Anna_B"]
    assert job.command(folders)[1:] == [*command, "train.max_steps=200", "sample.num_inference_steps=8"]
    assert job.environment(folders) == {"CONFIG": "configs/demo", "ANIMATE_DIR": str(folders.people)}


def test_a_motion_called_like_a_record_of_the_page_is_a_motion(folders, dropped, tmp_path, begin):
    """The page's own records stay what they are, and what is no record of it counts for nothing."""
    for name in jobs.RECORDS:
        (tmp_path / name).write_text('{"people": []}')
        draft = folders.draft(new_draft(folders))
        take_photos(draft, sorted((dropped / "photos").iterdir()))
        take_motion(draft, tmp_path / name)
        wish = {"draft": draft.name, "person": "", "name": name[0], "base": "embedded", "quality": "quick"}
        job = jobs.submit(folders, presets.BASES, wish)
        assert job.motion_file.read_text() == '{"people": []}' and jobs.find(folders, job.id).state == "waiting"
        command = job.command(folders)
        assert str(job.motion_file) in command and "sample.driving_fps=25" in command, "JSON does not say its rate"
    assert len(jobs.list_jobs(folders)) == 3
    (job.folder / "end.json").write_text("[]")
    (job.folder / "process.json").write_text("[]")
    assert jobs.find(folders, job.id).state == "waiting"
    (job.folder / "job.json").write_text("[]")
    assert len(jobs.list_jobs(folders)) == 2


def test_an_older_job_offers_what_it_has_learned(folders, ask):
    person = people.find(folders, ask("a").person)
    for name in ("tuned-1", "tuned-2"):
        (person.folder / name).mkdir(parents=True)
    newest = dataclasses.replace(person, run=person.folder / "tuned-2")
    assert people.loras_name(people.with_run(newest, "tuned-1")) == f"a-tuned-1-{people.LORAS}"
    assert people.with_run(newest, "tuned-9") == people.with_run(newest, "") == newest
