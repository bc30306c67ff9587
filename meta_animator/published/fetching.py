"""What is taken before it is taken, and then taking it: what scripts/get_weights.py does."""

import difflib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.published import fetch_into
from meta_animator.published.entries import NotThere, OutOfReach, Published, check, published, to_put

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
    """Print what `wanted` is, what it takes and what is there already; returns what is lacking.

    besides   bytes that will be written there besides

    Raises UserError where `folder` is a file, the disk is too small, or a file there is not the published one.
    """
    if (there := next(place for place in (folder, *folder.absolute().parents) if place.exists())).is_file():
        raise UserError(f"{there}: is a file; --into takes a folder, which may be a new one")
    lacking = [entry for entry in wanted if not _is_there(entry, folder)]
    for entry in wanted:
        state = "" if entry in lacking else "  (there)"
        hashes = [file.sha256[:8] for file in entry.files if file.sha256]
        print(f"{entry.name:20} {_size(entry.size):>9}  {entry.source}{state}")
        print(f"{'':31} sha256 {', '.join(hashes) or 'not known'}; {entry.licence}{'' if entry.permissive else RESTRICTED}")
    needed = sum(entry.size for entry in lacking) + besides
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
                for file in (file for file in other.files if not file.optional):
                    print(to_put(other, file, folder))
            raise UserError(
                f"{error.reason}; put the files above by hand, or run the same command again where there is a network"
            ) from error
    return gone


def _is_there(entry: Published, folder: Path) -> bool:
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
