"""Data sets packed into tar files, read in place: from a folder, or through fsspec from a URL (s3://, hf://, memory://, ...).

shards.jsonl   as manifest.jsonl, one line per clip, with "shard", the tar file beside it that holds the clip, and "stored":
               {path: {"suffix", "offsets", "sizes", "sha"}}, where in that tar each file lies; the path of a folder stands for
               000000, 000001, ... with the suffix, that of a file for itself
00000.tar      a clip is one sample of webdataset: NAME.json (its line), NAME.frame.000000.png, ..., NAME.keypoints.npz
"""

import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from meta_animator.errors import UserError, check_handles

INDEX = "shards.jsonl"
LASTING = (ValueError, ImportError, PermissionError)  # an unknown protocol, a package that is missing, no right to read
RETRIES = (0.5, 2.0, 8.0)  # seconds after which a failed request is made again


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Where the files of one layer lie in a tar: offsets and sizes in bytes, int64 (n,); suffix "" for a single file; sha of all
    their bytes."""

    suffix: str
    offsets: np.ndarray
    sizes: np.ndarray
    sha: str

    @property
    def single(self) -> bool:
        return not self.suffix


@dataclasses.dataclass(frozen=True)
class ShardPath:
    """A clip's folder inside a tar, a folder in that, or a file: with as much of a Path as reading a clip takes.

    tar       path or URL of the tar
    stored    {path of a folder or file: where it lies}
    relative  the path of this one; "" for the clip's folder
    """

    tar: str
    stored: dict[str, Stored] = dataclasses.field(repr=False, compare=False)
    relative: str = ""
    _read: dict[str, bytes] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __truediv__(self, name: str) -> "ShardPath":
        return ShardPath(self.tar, self.stored, str(PurePosixPath(self.relative) / name))

    def __str__(self) -> str:
        return f"{self.tar}/{self.relative}" if self.relative else self.tar

    def __lt__(self, other: "ShardPath") -> bool:
        return (self.tar, self.relative) < (other.tar, other.relative)

    @property
    def name(self) -> str:
        return PurePosixPath(self.relative).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.relative).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.relative).suffix

    def resolve(self) -> "ShardPath":
        return self

    def is_dir(self) -> bool:
        return not self.relative or (self.relative in self.stored and not self.stored[self.relative].single)

    def is_file(self) -> bool:
        return self._place() is not None

    def exists(self) -> bool:
        return self.is_dir() or self.is_file()

    def iterdir(self) -> Iterator["ShardPath"]:
        """The files of a layer's folder."""
        stored = self.stored[self.relative]
        return (self / f"{number:06d}{stored.suffix}" for number in range(len(stored.offsets)))

    def stat(self) -> os.stat_result:
        """st_size; st_mtime_ns is made from the content of all files of the layer."""
        place = self._place()
        if place is None:
            raise FileNotFoundError(2, "no such file in the tar", str(self))
        stored, number = place
        return _Facts(int(stored.sizes[number]), int(stored.sha[:12], 16))

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The file's bytes, read once. Raises FileNotFoundError where there is none, UserError where they cannot be had."""
        place = self._place()
        if place is None:
            raise FileNotFoundError(2, "no such file in the tar", str(self))
        if "bytes" not in self._read:
            stored, number = place
            start = int(stored.offsets[number])
            self._read["bytes"] = read_bytes(self.tar, start, start + int(stored.sizes[number]), str(self))
        return io.BytesIO(self._read["bytes"])

    def _place(self) -> tuple[Stored, int] | None:
        if self.relative in self.stored:
            stored = self.stored[self.relative]
            return (stored, 0) if stored.single else None
        folder, _, name = self.relative.rpartition("/")
        stored, number = self.stored.get(folder), name[:6]
        if stored is None or stored.single or not number.isdecimal() or name != f"{number}{stored.suffix}":
            return None
        return (stored, int(number)) if int(number) < len(stored.offsets) else None


@dataclasses.dataclass(frozen=True)
class _Facts:
    st_size: int
    st_mtime_ns: int


def is_sharded(folder: str | Path) -> bool:
    """Whether a data set is given as a URL, or as a folder with tar files and their index."""
    return is_url(folder) or (Path(folder) / INDEX).is_file()


def is_url(folder: str | Path) -> bool:
    return isinstance(folder, str) and "://" in folder


def read_index(folder: str | Path) -> str:
    """The text of the index. Raises UserError where there is none."""
    where = f"{str(folder).rstrip('/')}/{INDEX}"
    try:
        return read_bytes(where, None, None, where).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; expected tar shards made by scripts/prepare_data.py --shards") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read as UTF-8 text") from error


def unpack(folder: str | Path, entry: dict[str, Any]) -> ShardPath:
    """Takes out of an index's line what a manifest does not have: where the clip's files are. Raises UserError, without saying
    where, for anything else."""
    shard, stored = entry.pop("shard", None), entry.pop("stored", None)
    if not isinstance(shard, str) or PurePosixPath(shard).name != shard or not isinstance(stored, dict):
        raise UserError("lacks 'shard', the name of a tar, and 'stored', where its files lie in it")
    home = str(folder) if is_url(folder) else str(Path(folder).resolve())
    try:
        return ShardPath(f"{home.rstrip('/')}/{shard}", {path: _stored(**facts) for path, facts in stored.items()})
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError('\'stored\' is not {path: {"suffix", "offsets", "sizes", "sha"}}') from error


def check_tars(paths: list[ShardPath]) -> None:
    """Raises UserError where a tar is missing, or shorter than its index says."""
    ends: dict[str, int] = {}
    for path in paths:
        for stored in path.stored.values():
            ends[path.tar] = max(ends.get(path.tar, 0), int((stored.offsets + stored.sizes).max()))
    for tar, end in ends.items():
        try:
            size = _with_fsspec(tar, tar, lambda system, place: system.size(place))
        except FileNotFoundError:
            raise UserError(f"{tar}: no such file; {INDEX} counts on it") from None
        if size is not None and size < end:
            raise UserError(f"{tar}: has {size} bytes, {INDEX} counts on at least {end}; copy it again")


def stored_files(suffix: str, places: list[tuple[int, int]], sha: str) -> dict[str, Any]:
    """What an index says of a layer whose files lie at (offset, size)."""
    offsets, sizes = zip(*places, strict=True)
    return {"suffix": suffix, "offsets": list(offsets), "sizes": list(sizes), "sha": sha}


def digest(contents: list[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]


def read_bytes(url: str, start: int | None, end: int | None, what: str) -> bytes:
    """Bytes `start` to `end` - 1 of a file, through fsspec. Raises FileNotFoundError, or UserError for any other failure."""
    found = _with_fsspec(url, what, lambda system, place: system.cat_file(place, start=start, end=end))
    if start is not None and len(found) != end - start:
        raise UserError(f"{what}: is cut off ({len(found)} of {end - start} bytes); copy the tar again")
    return found


def _with_fsspec(url: str, what: str, do: Any) -> Any:
    import fsspec

    for wait in (*(RETRIES if is_url(url) else ()), None):
        try:
            return do(*fsspec.core.url_to_fs(url))  # file systems are remembered by fsspec, for each process and thread
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of storage has its own
            check_handles(error, what)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if wait is None or isinstance(error, LASTING):
                raise UserError(f"{what}: cannot be read ({reason})") from error
            time.sleep(wait)


def _stored(suffix: str, offsets: list[int], sizes: list[int], sha: str) -> Stored:
    stored = Stored(str(suffix), np.array(offsets, np.int64), np.array(sizes, np.int64), str(sha))
    if stored.offsets.ndim != 1 or stored.offsets.shape != stored.sizes.shape or not len(stored.offsets):
        raise ValueError("offsets and sizes do not fit together")
    if (stored.offsets < 0).any() or (stored.sizes < 0).any() or (stored.single and len(stored.offsets) != 1):
        raise ValueError("negative places, or several for one file")
    int(stored.sha[:12], 16)
    return stored


def line_of(entry: dict[str, Any], shard: str, stored: dict[str, Any]) -> str:
    """A line of the index."""
    return json.dumps(entry | {"shard": shard, "stored": stored}, ensure_ascii=False)
