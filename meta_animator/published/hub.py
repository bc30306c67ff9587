"""Weights on the model hub, through the hub's own client, which goes on where a download stopped."""

import dataclasses
from pathlib import Path
from typing import Any

from meta_animator.published.entries import HUB, File, NotThere, OutOfReach, Published, check_file, last_line, missing


def in_hub_cache(entry: Published) -> bool:
    """Whether all of `entry` lies in the hub's own cache."""
    from huggingface_hub import try_to_load_from_cache

    needed = (file for file in entry.files if not file.optional)
    return all(isinstance(try_to_load_from_cache(entry.hub, file.path, revision=entry.revision), str) for file in needed)


def from_hub_cache(entry: Published, folder: Path | None, fetch: bool) -> Path:
    """In the hub's own cache, which other programs share; the hub is asked for what is not there."""
    got: Path | None = None
    here = in_hub_cache(entry)
    for file in entry.files:
        path = ask_hub(entry, file, folder, local_files_only=here or not fetch)
        if path is not None:
            check_file(entry, file, path, folder or Path("DIR"))
            got = path
    return got if len(entry.files) == 1 else got.parent


def ask_hub(entry: Published, file: File, folder: Path | None, **how: Any) -> Path | None:
    """The downloaded file; None for one that may be missing there and is."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(entry.hub, file.path, revision=entry.revision, **how))
    except LocalEntryNotFoundError as error:
        if file.optional and how.get("local_files_only"):
            return None
        if how.get("local_files_only"):
            raise missing(entry, folder, "not fetched") from error
        raise missing(entry, folder, "the hub is out of reach", OutOfReach) from error
    except EntryNotFoundError as error:
        if file.optional:
            return None
        if (moved := _moved(entry, file)) is not None:
            print(f"note: {entry.hub} has {file.name} as {moved.path} now; it is taken from there")
            return ask_hub(entry, moved, folder, **how)
        reason = f"the hub has no {file.path} in {entry.hub} (moved or renamed?)"
        raise missing(entry, folder, reason, NotThere) from error
    except GatedRepoError as error:
        reason = f"the hub wants its terms accepted first ({HUB}/{entry.hub}, then `hf auth login`)"
        raise missing(entry, folder, reason) from error
    except RepositoryNotFoundError as error:
        raise missing(entry, folder, f"the hub has no {entry.hub}, or wants a login (`hf auth login`)") from error
    except Exception as error:  # its own and its transport's classes, without a common base
        if getattr(error, "errno", None) is not None and not isinstance(error, ConnectionError):
            raise  # a full disk, a folder that may not be written
        raise missing(entry, folder, f"the hub did not give it ({last_line(str(error))})", OutOfReach) from error


def _moved(entry: Published, file: File) -> File | None:
    """The one file of the same name elsewhere in the repository."""
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(entry.hub, revision=entry.revision)
    except Exception:  # whatever it is, the file was not found where it should be
        return None
    same = [name for name in names if Path(name).name == file.name and name != file.path]
    return dataclasses.replace(file, path=same[0]) if len(same) == 1 else None
