"""What the list says of published weights, and whether a file is the published one."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import yaml

from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor

LIST = Path(__file__).parents[1] / "published.yaml"
CACHE = "META_ANIMATOR_CACHE"  # environment variable: a folder in the place of ~/.cache/meta_animator
HUB = "https://huggingface.co"


class NotThere(UserError):
    """The repository does not have the file (any more)."""


class OutOfReach(UserError):
    """Neither here nor to be had for want of a network; `reason` says no more than that."""

    reason = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One file. `path` is its place in the wheel or repository, or, where `inside` is the name of a file, that of a zip archive
    that holds it; `size` in bytes is a guess where `sha256` is empty."""

    path: str
    size: int = 0
    sha256: str = ""
    optional: bool = False
    inside: str = ""

    @property
    def name(self) -> str:
        return self.inside or Path(self.path).name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """An entry of the list; its fields are explained at the top of `published.yaml`."""

    name: str
    files: tuple[File, ...]
    place: str
    licence: str
    permissive: bool
    checked: str
    wheel: str = ""
    hub: str = ""
    revision: str = "main"
    asked_by: tuple[str, ...] = ()
    note: str = ""
    can_be_missed: bool = False
    folders: tuple[File, ...] = ()  # with sizes that are guesses; `files` is then empty until the repository was asked

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files or self.folders)

    @property
    def source(self) -> str:
        if self.wheel:
            return f"the wheel {self.wheel}"
        return f"{HUB}/{self.hub}" + (f" at {self.revision}" if self.revision != "main" else "")

    def at(self, file: File, root: Path) -> Path:
        """Where `file` lies below a folder of weights."""
        if self.folders:
            return root / self.place / file.path
        return root / self.place if len(self.files) == 1 else root / self.place / file.name


def published() -> dict[str, Published]:
    """The whole list, by name."""
    return _read(LIST)


@functools.cache
def _read(path: Path) -> dict[str, Published]:
    return {name: _entry(name, dict(values)) for name, values in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def _entry(name: str, values: dict[str, Any]) -> Published:
    optional = values.pop("optional", ())
    files = tuple(File(path=path, optional=path in optional, **about) for path, about in values.pop("files", {}).items())
    folders = tuple(File(path=path, size=size) for path, size in values.pop("folders", {}).items())
    place = values.pop("place", files[0].name if len(files) == 1 else name)
    return Published(name=name, files=files, folders=folders, place=place, asked_by=tuple(values.pop("for", ())), **values)


def asked_by(*groups: str) -> list[Published]:
    """The entries that one of `groups` asks for, in the list's order."""
    return [entry for entry in published().values() if set(groups) & set(entry.asked_by)]


def cache_folder() -> Path:
    """Where fetched weights are kept for this user."""
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(own) / "meta_animator")


def parts_folder(entry: Published, root: Path) -> Path:
    """Where what has come of a download is kept until it is whole."""
    return root / f".{entry.name}.part"


def check(entry: Published, root: Path) -> None:
    """Raises UserError where a file of `entry` below `root` is missing or is not the published one."""
    for file in entry.files:
        path = entry.at(file, root)
        if path.is_file():
            _check_file(file, path, to_put(entry, file, root))
        elif not file.optional:
            raise UserError(f"weights {path}: no such file; {to_put(entry, file, root)}")


def check_at(entry: Published, path: Path) -> None:
    """The same of the file or folder `path`."""
    for file in entry.files:
        place = path if len(entry.files) == 1 else path / file.name
        if place.is_file():
            _check_file(file, place, f"delete it, or put {file.path} of {entry.source} there")


def to_put(entry: Published, file: File, root: Path) -> str:
    """ "put dw-ll_ucoco_384.onnx of https://huggingface.co/yzd-v/DWPose there as models/dw-ll_ucoco_384.onnx" """
    what = f"{file.inside} out of {file.path}" if file.inside else file.path
    return f"put {what} of {entry.source} there as {entry.at(file, root)}"


def all_to_put(entry: Published, root: Path) -> list[str]:
    """The same of everything that the entry cannot be without; of a model of several folders, folder by folder."""
    return [to_put(entry, file, root) for file in entry.folders or entry.files if not file.optional]


def is_published(file: File, path: Path) -> bool:
    return not file.sha256 or sha256_of(path) == file.sha256


def _check_file(file: File, path: Path, advice: str) -> None:
    refuse_impostor(path, "weights ")
    if not is_published(file, path):
        found = sha256_of(path)[:8]
        raise UserError(
            f"weights {path}: not the published file (its sha256 begins {found}, expected {file.sha256[:8]}); {advice}"
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def missing(entry: Published, folder: Path | None, reason: str, kind: type[UserError] = UserError) -> UserError:
    """The error that `entry` is neither in `folder` nor in the cache, and why it is not to be had: with what to put where."""
    named = folder or Path("DIR")
    put = "; ".join(all_to_put(entry, named))
    flag = "" if folder else " and name it with --weights DIR"
    where = f"neither in {folder} nor in {cache_folder()}" if folder else f"not in {cache_folder()}"
    error = kind(f"weights {entry.name}: {where}, and {reason}; {put}{flag}")
    if isinstance(error, OutOfReach):
        error.reason = reason
    return error


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ")[:200] if lines else "no reason given"
