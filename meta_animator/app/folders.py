"""Where the page in the browser keeps what it is given and what it makes, and that nobody leads it elsewhere.

<root>/drafts/<id>        what was dropped and is not asked for yet, with what was recognised
<root>/people/<name>      a person: given/ (their photos), person.json, and what animate.py keeps of them
<root>/people/motions     motions as animate.py prepares them
<root>/jobs/<id>          job.json, the motion, log.txt, the video; see jobs.py
<root>/served             what the browser sends and fetches, while it does
"""

import dataclasses
import re
import secrets
import time
from pathlib import Path

from meta_animator.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")  # of drafts and jobs
LONGEST_NAME = 40
TAKEN = ("motions", "times.json")  # animate.py's own, in the folder of people


@dataclasses.dataclass(frozen=True)
class Folders:
    """The folders below one root."""

    root: Path

    @property
    def drafts(self) -> Path:
        return self.root / "drafts"

    @property
    def people(self) -> Path:
        return self.root / "people"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def served(self) -> Path:
        return self.root / "served"

    def make(self) -> "Folders":
        """Makes them. Raises UserError where that is not possible, or a command line could not name what lies in them."""
        if "=" in str(self.root):
            raise UserError(f"--folder {self.root}: a path with '=' in it reads as a setting; name another folder")
        for folder in (self.drafts, self.people, self.jobs, self.served):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--folder {self.root}: cannot be made ({error.strerror}); name another folder") from error
        return self

    def draft(self, name: str) -> Path:
        return below(self.drafts, name, ID, "draft")

    def job(self, name: str) -> Path:
        return below(self.jobs, name, ID, "job")

    def person(self, name: str) -> Path:
        return below(self.people, name, None, "person")


def below(folder: Path, name: object, pattern: re.Pattern | None, what: str) -> Path:
    """The folder `name` in `folder`. Raises UserError where there is none, or the name leads out of it."""
    known = isinstance(name, str) and (pattern.fullmatch(name) if pattern else plain_name(name) == name)
    path = folder / name if known else None
    if path is None or not path.is_dir() or path.resolve().parent != folder.resolve():
        raise UserError(f"there is no such {what}: {str(name)[:LONGEST_NAME]!r}; choose one from the list")
    return path


def plain_name(text: str) -> str:
    """A name as a folder has it: letters, digits, - and _; "" where nothing is left."""
    return re.sub(r"[^\w-]+", "_", text).strip("_-")[:LONGEST_NAME].strip("_-")


def person_name(text: str) -> str:
    """The name of a new person. Raises UserError where it names nobody, or something of animate.py's."""
    name = plain_name(text)
    if not name:
        raise UserError("the person has no name; give one of letters or digits")
    if name in TAKEN:
        raise UserError(f"the name {name!r} is taken by the program; give another")
    return name


def new_id(folder: Path) -> str:
    """Makes a folder of a new name, the later the greater, and returns the name."""
    while True:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        try:
            (folder / name).mkdir()
            return name
        except FileExistsError:
            continue
