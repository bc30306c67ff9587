"""What is taken before it is taken, and then taking it: what scripts/get_weights.py does."""

import difflib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.published import fetch_into
from meta_animator.published.entries import NotThere, OutOfReach, Published, all_to_put, check, parts_folder, published
from meta_animator.published.model_folder import is_whole, with_files

SPARE = 2**30  # bytes that should stay free on a disk
RESTRICTED = "  [not free for every use]"


def named(names: Iterable[str]) -> list[Published]:
    """Entries of the list. Raises UserError for a name that is not there."""
    for name in names:
        if name not in published():
            near = difflib.get_close_matches(name, published(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--also {name}: no such weights{hint} (there are {', '.join(published())})")
    return [published()[name] for name in names]


def say(wanted: Sequence[Published], folder: Path, besides: int = 0) -> list[Published]:
    """Print what `wanted` is, what it takes and what is there already; returns what is lacking, with the files of models that lie
    in folders as far as the hub can be asked for them.

    besides   bytes that will be written there besides

    Raises UserError where `folder` is a file, the disk is too small, or a file there is not the published one.
    """
    if (there := next(place for place in (folder, *folder.absolute().parents) if place.exists())).is_file():
        raise UserError(f"{there}: is a file; --into takes a folder, which may be a new one")
    lacking = []
    for entry in wanted:
        there = _is_there(entry, folder)
        shown = entry if there else _listed(entry, folder)
        print(f"{shown.name:20} {_size(shown.size):>9}  {shown.source}{'  (there)' if there else ''}")
        print(f"{'':31} {_known(shown)}; {shown.licence}{'' if shown.permissive else RESTRICTED}")
        lacking += [] if there else [shown]
    needed = sum(max(0, entry.size - _come(entry, folder)) for entry in lacking) + besides
    free = shutil.disk_usage(_existing(folder)).free
    more = f", with what is made of them about {_size(needed)}" if besides else ""
    fetched = _size(needed - besides)
    print(f"to fetch: {len(lacking)} of {len(wanted)}, about {fetched}{more}, into {folder}, where {_size(free)} are free")
    if lacking and needed + SPARE > free:
        raise UserError(f"{folder}: {_size(free)} are free, about {_size(needed + SPARE)} are needed; make room, or use --into")
    return lacking


def fetch_all(lacking: Sequence[Published], folder: Path) -> list[str]:
    """Fetch entries into `folder`; returns the names of those that their repositories do not have and that can be missed.

    Raises UserError where one cannot be had: out of reach of the network, after a list of what to put where.
    """
    gone = []
    for number, entry in enumerate(lacking, 1):
        print(f"[{number}/{len(lacking)}] {entry.name}, about {_size(entry.size)}", flush=True)
        try:
            fetch_into(entry, folder, folder)
        except NotThere as error:
            if not entry.can_be_missed:
                raise
            print(f"note: {error}")
            gone.append(entry.name)
        except OutOfReach as error:
            rest = [other for other in lacking[number - 1 :] if other.wheel or not _is_there(other, folder)]
            for other in rest:
                print("\n".join(all_to_put(other, folder)))
            raise UserError(
                f"{error.reason}; put the files above by hand, or run the same command again where there is a network"
            ) from error
    return gone


def _listed(entry: Published, folder: Path) -> Published:
    """The same with the files that its repository lists, where those are not known beforehand and it can be asked."""
    if not entry.folders:
        return entry
    try:
        return with_files(entry, folder)
    except OutOfReach as error:
        print(f"note: {error.reason}; what {entry.name} takes is a guess")
        return entry


def _known(entry: Published) -> str:
    """What is known of the files beforehand."""
    if entry.folders:
        listed = f"{len(entry.files)} files, as listed there"
        return listed if entry.files else "its size is a guess, and less where it is kept in half precision"
    return f"sha256 {', '.join(file.sha256[:8] for file in entry.files if file.sha256) or 'not known'}"


def _come(entry: Published, folder: Path) -> int:
    """Bytes of it that are there already, whole files and parts."""
    parts = parts_folder(entry, folder)
    files = [entry.at(file, folder) for file in entry.files] + (list(parts.iterdir()) if parts.is_dir() else [])
    return sum(file.stat().st_size for file in files if file.is_file())


def _is_there(entry: Published, folder: Path) -> bool:
    if entry.folders:
        return is_whole(entry, folder)
    if not all(entry.at(file, folder).is_file() for file in entry.files if not file.optional):
        return False
    check(entry, folder)
    return True


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
