"""What a click on the page does, and what the page shows then. It knows no Gradio, whose components have the names of what
`show` returns."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_animator.app import jobs, looking, people, presets, uploads, views
from meta_animator.app.folders import Folders
from meta_animator.app.presets import Base
from meta_animator.app.progress import read_progress
from meta_animator.errors import UserError

NEW = ""  # stands for a person who is not known yet
SOMEBODY = ("Somebody new", NEW)
NO_JOBS = '<p class="said">None yet. What you ask for appears here, and goes on when the page is closed.</p>'
LOOKING = {
    looking.PHOTOS: "Looking at the photos: skeleton and mask come in a moment.",
    looking.MOTION: "Looking at the motion.",
}  # fmt: skip


class Drafts:
    """Of one page, which may ask twice before it hears what became of the first: the draft that it has by now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._after: dict[str, str] = {}  # by the name of the one before; "": none

    def newest(self, name: str) -> str:
        while name in self._after:
            name = self._after[name]
        return name

    def hold(self, folders: Folders, name: str, anew: bool = False) -> str:
        """The newest, made where there is none, or, `anew`, in any case."""
        with self._lock:
            name = self.newest(name)
            if not anew:
                with contextlib.suppress(UserError):
                    folders.draft(name)
                    return name
            self._after[name] = made = uploads.new_draft(folders)
            return made


@dataclasses.dataclass
class Now:
    """What a page holds: its draft and job by name ("": none), the choices, and what is wrong, by place (photos, motion, choice,
    job). values: of components that were set, for the page to take over. drafts: the page's, from one click to the next."""

    draft: str = ""
    job: str = ""
    person: str = NEW
    base: str = ""
    quality: str = ""
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    drafts: Drafts = dataclasses.field(default_factory=Drafts)

    def __post_init__(self) -> None:
        self.draft = self.drafts.newest(self.draft)

    @contextlib.contextmanager
    def place(self, place: str, anew: bool = True) -> Iterator[None]:
        """A UserError inside the block, or what the machine refuses, is a problem of that place, or of its own. anew: what was
        wrong there before is forgotten."""
        if anew:
            self.problems.pop(place, None)
        try:
            yield
        except UserError as error:
            self.problems[getattr(error, "place", place)] = str(error)
        except OSError as error:  # a full disk, a folder that was deleted meanwhile
            self.problems[place] = f"the machine refuses it: {error.strerror or error}"


def part(text: str, problem: str = "") -> dict[str, Any]:
    """Properties of a piece of HTML, which takes no room where there is none."""
    return {"value": views.error(problem) + text, "visible": bool(problem or text)}


class Controls:
    """bases: what may be chosen."""

    def __init__(self, folders: Folders, bases: Mapping[str, Base]):
        self.folders, self.bases = folders, bases

    # clicks

    def look(self, now: Now) -> None:
        """Nothing but to see how things stand."""

    def restore(self, now: Now, job: str) -> None:
        """A page that is opened, or anew: with what this tab had, or else the job that runs, or the newest."""
        with now.place("photos", anew=False):  # of a file that was dropped before this came to its turn
            self._draft(now)  # here, since photos and motion may be dropped at once
        known = jobs.list_jobs(self.folders)
        active = [one.id for one in known if one.state in (jobs.RUNNING, jobs.STOPPING)]
        every = [one.id for one in known]
        now.job = job if job in every else next(iter([*active, *every]), "")
        now.values["job"] = now.job or None

    def take_photos(self, now: Now, files: Sequence[str] | str | None) -> None:
        """Files that the browser has sent."""
        now.values["photos"] = None
        with now.place("photos"), self._sent(files) as paths:
            draft = self._draft(now)
            faults = uploads.take_photos(draft, paths)
            looking.look_again(draft, looking.PHOTOS)
            if faults:
                now.problems["photos"] = "; ".join(faults)

    def take_motion(self, now: Now, files: Sequence[str] | str | None) -> None:
        now.values["motion"] = None
        with now.place("motion"), self._sent(files) as paths:
            draft = self._draft(now)
            for path in paths:
                uploads.take_motion(draft, path)
            looking.look_again(draft, looking.MOTION)

    def clear_photos(self, now: Now) -> None:
        with now.place("photos"):
            draft = self._draft(now)
            looking.forget(draft, looking.PHOTOS)
            uploads.clear_photos(draft)

    def choose_person(self, now: Now) -> None:
        """Somebody known is taken with what they were learned with."""
        with now.place("photos"):
            person = people.find(self.folders, now.person) if now.person else None
            if person is not None and person.base in self.bases and person.quality in self.bases[person.base].qualities:
                now.base = now.values["base"] = person.base
                now.quality = now.values["quality"] = person.quality

    def submit(self, now: Now, name: str) -> None:
        """The button."""
        now.problems.clear()
        with now.place("job"):
            wish = {"draft": now.draft, "person": now.person, "name": name or "", "base": now.base, "quality": now.quality}
            job = jobs.submit(self.folders, self.bases, wish)
            jobs.ensure_worker(self.folders)
            taken = self.folders.draft(now.draft)
            now.draft, now.person, now.job = now.drafts.hold(self.folders, now.draft, anew=True), job.person, job.id
            for what in LOOKING:
                looking.forget(taken, what)
            uploads.remove_draft(taken)
            now.values |= {"name": "", "person": job.person, "job": job.id}

    def cancel(self, now: Now) -> None:
        with now.place("job"):
            jobs.cancel(self.folders, now.job)

    def go_on(self, now: Now) -> None:
        with now.place("job"):
            jobs.go_on(self.folders, now.job)
            jobs.ensure_worker(self.folders)

    def delete(self, now: Now) -> None:
        with now.place("job"):
            jobs.remove(self.folders, now.job)

    def pack(self, now: Now) -> None:
        with now.place("job"):
            job = jobs.find(self.folders, now.job)
            people.pack_loras(people.with_run(people.find(self.folders, job.person), job.run))

    def _draft(self, now: Now) -> Path:
        """The page's, made where it has none."""
        now.draft = now.drafts.hold(self.folders, now.draft)
        return self.folders.draft(now.draft)

    @contextlib.contextmanager
    def _sent(self, files: Sequence[str] | str | None) -> Iterator[list[Path]]:
        """Files as paths; those where the browser's lie are gone after the block."""
        paths = [Path(file) for file in ([files] if isinstance(files, str) else files or ())]
        served = self.folders.served.resolve()
        try:
            yield paths
        finally:
            for path in paths:
                if path.resolve().is_relative_to(served):
                    path.unlink(missing_ok=True)

    # what is shown

    def show(self, now: Now) -> dict[str, dict[str, Any]]:
        """{component: its properties}"""
        known = people.list_people(self.folders)
        if now.person not in [NEW, *(one.name for one in known)]:
            now.person = now.values["person"] = NEW
        return {
            **self._show_wish(now, known), **self._show_job(now),
            "person": {"choices": [SOMEBODY, *((self._named(one), one.name) for one in known)]},
        }  # fmt: skip

    def _named(self, person: people.Person) -> str:
        if person.run is None:
            return person.name
        base = self.bases[person.base].title.partition(":")[0] if person.base in self.bases else person.base
        return f"{person.name} (learned: {base}, {person.quality})"

    def _show_wish(self, now: Now, known: Sequence[people.Person]) -> dict[str, dict[str, Any]]:
        now.draft = now.drafts.newest(now.draft)  # the button may have been pressed meanwhile
        try:
            draft = self.folders.draft(now.draft)
        except UserError:
            draft, now.draft = None, ""
        problem = now.problems.get
        seen = {what: views.sight(looking.read_sight(draft, what) if draft else looking.Sight(), problem(what, ""), said)
                for what, said in LOOKING.items()}  # fmt: skip
        person = next((one for one in known if one.name == now.person), None)
        if person is not None:
            seen[looking.PHOTOS] = views.known_person(person, self.bases, now.base, now.quality, problem("photos", ""))
        new = person is None
        return {
            "name": {"visible": new}, "photos": {"visible": new}, "photos_label": {"visible": new},
            "clear": {"visible": new and draft is not None and bool(uploads.list_photos(draft))},
            "seen_photos": part(seen[looking.PHOTOS]), "seen_motion": part(seen[looking.MOTION]),
            "choice": part(self._show_choice(now)),
        }  # fmt: skip

    def _show_choice(self, now: Now) -> str:
        base = self.bases.get(now.base)
        if base is None or now.quality not in base.qualities:
            return views.error(now.problems.get("choice", ""))
        gone = presets.lacking(base)
        said = [presets.in_words(base, base.qualities[now.quality]), presets.advice(base)]
        wrong = f"{base.title} is {gone}" if gone else now.problems.get("choice", "")
        return views.error(wrong) + views.lines([text for text in said if text])

    def _show_job(self, now: Now) -> dict[str, dict[str, Any]]:
        every = jobs.list_jobs(self.folders)
        places = {job.id: place for place, job in enumerate(jobs.waiting(every), 1)}
        job = next((one for one in every if one.id == now.job), None)
        if job is None and now.job:  # another page has deleted it
            job = next(iter(every), None)
            now.job = job.id if job else ""
            now.values["job"] = now.job or None
        shown: dict[str, dict[str, Any]] = {
            "job": {"choices": [(views.label(one, places.get(one.id, 0)), one.id) for one in every]},
            "none": part(NO_JOBS if not every else "", now.problems.get("job", "") if job is None else ""),
            "card": {"visible": job is not None},
        }  # fmt: skip
        if job is None:
            return shown
        progress = read_progress(job.log)
        try:
            person, command = people.with_run(people.find(self.folders, job.person), job.run), job.as_typed(self.folders)
            run = person.folder / job.run if job.run else people.run_since(person, job.begun)
        except UserError as gone:  # somebody has deleted them by hand
            person, command, run = None, str(gone), None
        packable = job.state == jobs.DONE and person is not None and person.run is not None
        shown |= {
            "status": {"value": views.status(job, places.get(job.id, 0), self.bases, progress)},
            "cancel": {"visible": job.state in (jobs.WAITING, jobs.RUNNING, jobs.STOPPING),
                       "value": "End it at once" if job.state == jobs.STOPPING else "Cancel"},
            "go_on": {"visible": job.state in (jobs.FAILED, jobs.CANCELLED)},
            "pack": {"visible": packable and not (person.folder / people.loras_name(person)).is_file()},
            "delete": {"visible": job.state in jobs.ENDED},
            "result": part(views.result(job, person, now.problems.get("job", ""))),
            "learning": part(views.learning(run)),
            "notes": part(views.notes(progress)), "log": {"value": views.log(command, progress)},
        }  # fmt: skip
        return shown

