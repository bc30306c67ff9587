"""People who were given photos: kept for other motions."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

from meta_animator.app.folders import REPOSITORY, Folders, person_name
from meta_animator.app.uploads import copy_whole, list_photos
from meta_animator.errors import UserError
from meta_animator.files import locked, whole_file
from meta_animator.json_files import read_json, write_json
from meta_animator.media.images import IMAGE_SUFFIXES

RECORD, GIVEN, LORAS = "person.json", "given", "loras.zip"


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody with photos.

    base, quality  the choice of the last job that came to its end, "" before
    run            the run that was learned by it
    """

    name: str
    folder: Path
    base: str = ""
    quality: str = ""
    run: Path | None = None

    @property
    def given(self) -> Path:
        """What animate.py is given: the folder of photos, or the film of the person."""
        files = sorted(path for path in (self.folder / GIVEN).glob("[!.]*") if path.is_file())
        return files[0] if len(files) == 1 and files[0].suffix.lower() not in (*IMAGE_SUFFIXES, ".heic") else self.folder / GIVEN


def list_people(folders: Folders) -> list[Person]:
    """By name; a folder that was put there by hand under a name that none can have is nobody."""
    found = []
    for path in sorted(folders.people.iterdir()):
        with contextlib.suppress(UserError):
            found.append(find(folders, path.name))
    return found


def find(folders: Folders, name: object) -> Person:
    """Raises UserError where there is nobody of that name."""
    folder = folders.person(name)
    if not (folder / GIVEN).is_dir():
        raise UserError(f"there is no such person: {str(name)[:40]!r}; choose one from the list")
    try:
        record = read_json(folder / RECORD)
    except UserError:
        record = {}
    run = folder / str(record.get("run", ""))
    here = bool(record.get("run")) and run.is_dir() and run.parent == folder
    return Person(
        folder.name, folder, str(record.get("base", "")), str(record.get("quality", "")), run if here else None
    )  # fmt: skip


def add(folders: Folders, name: str, draft: Path) -> Person:
    """Somebody new, with the photos of a draft. Raises UserError where there are none, or the name is taken."""
    name, photos = person_name(name), list_photos(draft)
    if not photos:
        raise UserError("there are no photos yet; drop at least five of one person, or a film of them")
    folder, part = folders.people / name, folders.people / ".part"
    with locked(folders.root / ".people.lock"):
        if folder.exists():
            raise UserError(f"{name} is there already; choose them from the list, or give another name")
        shutil.rmtree(part, ignore_errors=True)  # of one who was interrupted here
        try:
            for photo in photos:
                copy_whole(photo, part / GIVEN / photo.name)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return find(folders, name)


def remember(folders: Folders, name: str, base: str, quality: str, run: Path) -> None:
    """What was learned last."""
    write_json(folders.person(name) / RECORD, {"base": base, "quality": quality, "run": run.name})


def used_run(person: Person) -> Path | None:
    """The run that the person's newest video was made with."""
    made = sorted(person.folder.glob("videos/*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if not made:
        return None
    try:
        control = str(yaml.safe_load(made[-1].read_text(encoding="utf-8"))["model"]["control_from"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):  # a power cut has emptied it
        return None
    run = person.folder / Path(control).name
    return run if control and run.is_dir() else None


def with_run(person: Person, name: str) -> Person:
    """The person with that run as what is learned, where it is still there: a job's own, which others may have come after."""
    return dataclasses.replace(person, run=person.folder / name) if name and (person.folder / name).is_dir() else person


def run_since(person: Person, begun: float) -> Path | None:
    """The run that was worked on after that time, if any was."""
    logs = [path for path in person.folder.glob("tuned-*/metrics.jsonl") if path.stat().st_mtime >= begun > 0]
    return max(logs, key=lambda path: path.stat().st_mtime).parent if logs else None


def loras_name(person: Person) -> str:
    """Of the zip of what was learned last."""
    return f"{person.name}-{person.run.name if person.run else 'none'}-{LORAS}"


def pack_loras(person: Person) -> Path:
    """The LoRAs of the learned run and their ControlNet, as extract_LoRA_weights.sh writes them, in one zip.

    Made when first asked for. Raises UserError where nothing is learned yet, or extraction says why not.
    """
    if person.run is None:
        raise UserError(f"{person.name}: nothing is learned yet")
    target = person.folder / loras_name(person)
    with locked(person.folder / ".loras.lock"):
        if target.is_file():
            return target
        loras = person.folder / ".loras"
        shutil.rmtree(loras, ignore_errors=True)
        command = [
            sys.executable, "scripts/extract_lora.py", str(person.run / "config.yaml"), "stage=extract",
            f"extract.checkpoint={person.run}", f"output_dir={loras}", "model.motion_from=",
        ]  # fmt: skip
        answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if answer.returncode:
            lines = [line for line in answer.stderr.splitlines() if line.startswith("error: ")] or ["error: it failed"]
            raise UserError(f"LoRAs cannot be taken out: {lines[-1].removeprefix('error: ')}")
        with whole_file(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(path for path in loras.rglob("*") if path.is_file()):
                archive.write(file, Path(f"{person.name}-loras") / file.relative_to(loras))
        shutil.rmtree(loras, ignore_errors=True)
    return target
