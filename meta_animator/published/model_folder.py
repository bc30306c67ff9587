"""A model of several networks, which lies on the hub as folders: whichever files its repository lists there.

Into which shards a network is cut is the repository's affair: no names are known beforehand. What it listed is kept beside what
has come, until all has.
"""

import dataclasses
import re
import shutil
from pathlib import Path

from meta_animator.files import locked
from meta_animator.json_files import read_json, write_json
from meta_animator.published.entries import NotThere, Published, cache_folder, missing, parts_folder
from meta_animator.published.hub import download, files_of, put_in_place

LISTING = "listing.json"  # among the parts: {path: size}
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:-(\d+)-of-(\d+))?\.safetensors")


def with_files(entry: Published, named: Path | None) -> Published:
    """The entry with the files that its repository lists.

    Raises UserError, for which `named` is as in `fetch_into`, where it cannot be asked or lacks a folder.
    """
    parts = [folder.path for folder in entry.folders]
    files = [file for file in files_of(entry, named) if file.path == "model_index.json" or file.path.split("/")[0] in parts]
    stored = {Path(file.path).parent for file in files if file.path.endswith(".safetensors")}
    files = [file for file in files if not (file.path.endswith(".bin") and Path(file.path).parent in stored)]  # the same again
    if lacking := [part for part in parts if not any(file.path.startswith(f"{part}/") for file in files)]:
        raise missing(entry, named, f"the hub has no {', '.join(lacking)} in {entry.hub} (moved or renamed?)", NotThere)
    return dataclasses.replace(entry, files=tuple(files))


def fetch_folders(entry: Published, root: Path, named: Path | None) -> Path:
    """Put the files of an entry of `with_files`, or those that its repository lists, below `root`; what was there and what has
    come of a file before is not fetched again. Returns the model's folder."""
    parts = parts_folder(entry, root)
    with locked(cache_folder() / f".{entry.name}.lock"):
        entry = entry if entry.files else with_files(entry, named)
        write_json(parts / LISTING, {file.path: file.size for file in entry.files})
        for file in entry.files:
            place = entry.at(file, root)
            if place.is_file() and place.stat().st_size == file.size:
                continue
            print(f"  {file.path}", flush=True)
            come = download(entry, file, parts, named)
            if come is not None:
                put_in_place(entry, file, come, place, named)
        shutil.rmtree(parts, ignore_errors=True)
    return root / entry.place


def is_whole(entry: Published, root: Path) -> bool:
    """Whether a model is below `root`, fetched or put there by hand: by its listing while it is being fetched, else by its looks.
    No file is opened."""
    kept = parts_folder(entry, root) / LISTING
    if kept.is_file():
        sizes = {root / entry.place / path: size for path, size in read_json(kept).items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
    return all(_looks_whole(root / entry.place / folder.path) for folder in entry.folders)


def _looks_whole(folder: Path) -> bool:
    """Of one part: a tokenizer's or a scheduler's config, or a network's config and all of its weights."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if "config.json" not in names:
        words = {"tokenizer.json", "spiece.model"} & set(names)
        return "scheduler_config.json" in names or ("tokenizer_config.json" in names and bool(words))
    found = [match for name in names if (match := WEIGHTS.fullmatch(name))]
    shards = {int(match[1]) for match in found if match[1]}
    if not shards:
        return bool(found)
    indexed = any(name.endswith(".index.json") for name in names)
    return indexed and shards == set(range(1, 1 + max(int(match[2]) for match in found if match[2])))
