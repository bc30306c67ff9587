"""Weights on the model hub. The hub's own client names, checks and sends; a download that was cut off goes on where it stopped,
which that client does within one call only."""

import dataclasses
import os
import shutil
import zipfile
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.published.entries import HUB, File, NotThere, OutOfReach, Published, is_published, last_line, missing


def in_hub_cache(entry: Published) -> Path | None:
    """The file, or the folder, of `entry` in the cache of the hub's client, which other programs share; None where it is not
    whole there."""
    from huggingface_hub import try_to_load_from_cache

    needed = [file for file in entry.files if not file.optional]
    if entry.folders or any(file.inside for file in needed):
        return None
    found = [try_to_load_from_cache(entry.hub, file.path, revision=entry.revision) for file in needed]
    if not all(isinstance(path, str) for path in found):
        return None
    return Path(found[0]) if len(entry.files) == 1 else Path(found[0]).parent


def download(entry: Published, file: File, parts: Path, named: Path | None) -> Path | None:
    """`file` as a file in the folder `parts`, which keeps what has come of it; None for one that may be missing and is.

    Raises UserError, for which `named` is as in `fetch_into`, where it cannot be had.
    """
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _download(entry, file, parts)
    except EntryNotFoundError as error:
        if file.optional:
            return None
        if (moved := _moved(entry, file)) is not None:
            print(f"note: {entry.hub} has {file.name} as {moved.path} now; it is taken from there")
            return download(entry, moved, parts, named)
        reason = f"the hub has no {file.path} in {entry.hub} (moved or renamed?)"
        raise missing(entry, named, reason, NotThere) from error
    except Exception as error:
        raise _explained(error, entry, named) from error


def put_in_place(entry: Published, file: File, come: Path, place: Path, named: Path | None) -> None:
    """Move what has come to where it belongs. Raises UserError where it is not what was published; it is deleted then."""
    if not is_published(file, come):
        come.unlink()
        raise missing(entry, named, f"{entry.source} has another {file.name} than the published one")
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(come, place)


def files_of(entry: Published, named: Path | None) -> list[File]:
    """The files that the repository has, with their sizes and, of large ones, sha256. Raises UserError as `download` does."""
    from huggingface_hub import HfApi

    try:
        listed = HfApi().model_info(entry.hub, revision=entry.revision, files_metadata=True).siblings or []
    except Exception as error:
        raise _explained(error, entry, named) from error
    return [File(path=one.rfilename, size=one.size or 0, sha256=one.lfs.sha256 if one.lfs else "") for one in listed]


def _explained(error: Exception, entry: Published, named: Path | None) -> Exception:
    """What to raise in the place of an error of the hub's client: its own and its transport's classes have no common base."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return missing(entry, named, f"the hub wants its terms accepted first ({HUB}/{entry.hub}, then `hf auth login`)")
    if isinstance(error, RepositoryNotFoundError):
        return missing(entry, named, f"the hub has no {entry.hub}, or wants a login (`hf auth login`)")
    if isinstance(error, UserError) or (getattr(error, "errno", None) and not isinstance(error, ConnectionError)):
        return error  # a full disk, a folder that may not be written
    return missing(entry, named, f"the hub did not give it ({last_line(str(error))})", OutOfReach)


def _download(entry: Published, file: File, parts: Path) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(entry.hub, file.path, revision=entry.revision)
    about = get_hf_file_metadata(url)
    part = parts / f"{(about.etag or 'file').strip('/')[:16]}-{Path(file.path).name}"  # another file there is not gone on with
    parts.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as come:
        http_get(
            url, come, resume_size=come.tell(), headers=build_hf_headers(), expected_size=about.size,
            displayed_filename=Path(file.path).name,
        )  # fmt: skip
    return _unpacked(part, file.inside) if file.inside else part


def _unpacked(archive: Path, name: str) -> Path:
    """The only file of that name in an archive, whichever folder it lies in there, beside the archive."""
    try:
        with zipfile.ZipFile(archive) as content:
            (member,) = (member for member in content.namelist() if Path(member).name == name)
            with whole_file(archive.with_name(name)) as part, content.open(member) as source, part.open("wb") as to:
                shutil.copyfileobj(source, to)
    except (zipfile.BadZipFile, ValueError) as error:
        archive.unlink()
        raise ValueError(f"{archive.name} is no zip archive with one {name}") from error
    return archive.with_name(name)


def _moved(entry: Published, file: File) -> File | None:
    """The one file of the same name elsewhere in the repository."""
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(entry.hub, revision=entry.revision)
    except Exception:  # whatever it is, the file was not found where it should be
        return None
    same = [name for name in names if Path(name).name == Path(file.path).name and name != file.path]
    return dataclasses.replace(file, path=same[0]) if len(same) == 1 else None
