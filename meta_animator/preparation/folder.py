"""A data-set folder that is worked on: valid at any time, with all clips that are complete."""

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meta_animator.data.writer import MANIFEST
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.preparation.clipping import Built
from meta_animator.training.lock import lock_folder

ANNOTATED = "annotated"
PARTS = "parts"
SOON = 1.0  # seconds after which new clips come into the manifest at the latest


class DataFolder:
    """The clips and the manifest of a folder; a context manager. A new folder in which nothing came about goes away again, and
    a data set that is overwritten stands aside until the new one is made: left by an exception, it is in its place again."""

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        """Raises UserError where `folder` holds something that was not made here, unless a data set is to be overwritten."""
        self.folder = folder
        _check_target(folder, overwrite)
        self._old = _set_aside(folder) if overwrite and folder.exists() and any(folder.iterdir()) else None
        self._new = not folder.exists() or not any(folder.iterdir())
        self._existed = folder.exists()
        try:
            (folder / ANNOTATED).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if self._old is not None:
                self._put_back()
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        self.entries: dict[str, dict[str, Any]] = {}
        self._written = 0.0

    def __enter__(self) -> "DataFolder":
        return self

    def begin(self) -> None:
        """Reads what is there and takes unfinished clips away: for who holds the folder's lock, or they may be another run's."""
        for part in (self.folder / "clips").glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)
        self.entries = read_entries(self.folder)

    @property
    def replaces(self) -> bool:
        """Whether an older data set stands aside."""
        return self._old is not None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._old is not None:
            if kind is not None:
                self._put_back()
            shutil.rmtree(self._old, ignore_errors=True)
            return
        anything = any(self.folder.glob(f"{ANNOTATED}/*/*/*")) or (self.folder / MANIFEST).exists()
        if kind is not None and self._new and not anything:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._existed:
                self.folder.mkdir()

    def _put_back(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._old.rename(self.folder)

    def add(self, built: Built, prompt: str) -> None:
        """Takes a clip in, in the place of an older one of that name."""
        plan, home = built.plan, self.folder / "clips" / built.plan.id
        entry = {"id": plan.id, "identity": plan.source.identity, "prompt": prompt, "fps": float(plan.fps)}
        entry |= {"kind": plan.source.kind, "split": plan.split} | built.facts
        if built.part is not None:
            if self.entries.pop(plan.id, None) is not None:
                self.write()
            shutil.rmtree(home, ignore_errors=True)
            built.part.rename(home)
        elif self.entries.get(plan.id) == entry:
            return
        self.entries[plan.id] = entry
        if time.monotonic() - self._written > SOON:
            self.write()

    def finish(self, ids: Iterable[str]) -> None:
        """Leaves these clips, in this order, and nothing of others."""
        self.entries = {id: self.entries[id] for id in ids}
        self.write()
        for home in (self.folder / "clips").glob("*"):
            if home.name not in self.entries:
                shutil.rmtree(home, ignore_errors=True)

    def write(self) -> None:
        write_entries(self.folder, self.entries.values())
        self._written = time.monotonic()


def read_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of a manifest by id; none where there is none that can be read."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").split("\n")
        return {entry["id"]: entry for entry in map(json.loads, filter(str.strip, lines))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_entries(folder: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Writes the manifest whole, where it changes; without entries there is none."""
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    path = folder / MANIFEST
    if not text:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the name of a new folder")
    held = [path.name for path in folder.iterdir()]
    if PARTS in held and not overwrite:
        raise UserError(f"{folder}: holds parts of a data set; add --part K/N or --join, or name another folder")
    if not held or (ANNOTATED in held and not overwrite):
        return
    if not overwrite:
        raise UserError(f"{folder}: exists and is not empty; choose another folder or add --overwrite")
    if not {ANNOTATED, MANIFEST, PARTS} & set(held):
        raise UserError(f"{folder}: holds other things than a data set and is not replaced; choose another")


def _set_aside(folder: Path) -> Path:
    """Renames a folder that no other run works on; returns where it is."""
    folder = folder.resolve()
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        with lock_folder(folder):
            folder.rename(aside)
    except OSError as error:
        raise UserError(f"{folder}: cannot be replaced ({error.strerror})") from error
    return aside
