"""Packing a data set into tar files of about one size, with their index: see `shards`."""

import io
import json
import math
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from meta_animator.data.clips import Clip, picture_path
from meta_animator.data.manifest import read_manifest
from meta_animator.data.shards import INDEX, digest, line_of, stored_files
from meta_animator.errors import UserError

MEGABYTE = 2**20
BLOCK = 512  # bytes of a tar's unit


def write_shards(
    folder: str | Path, output: Path, megabytes: float, progress: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
    """Packs the data set `folder` into tar files of about so many megabytes each in `output`, which takes its name when complete;
    older shards there are replaced. Frames of films become PNG pictures. Returns the numbers of clips and of tar files.

    A clip is never divided. `progress(done, of)` is called after each clip. Raises UserError for what cannot be read or written.
    """
    if not 0 < megabytes < math.inf:
        raise UserError(f"tar files of {megabytes:g} megabytes: expected a number above 0")
    clips = read_manifest(folder)
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / INDEX).is_file())):
        raise UserError(f"{output}: holds other things than tar shards and is not replaced; choose another folder")
    staging = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        staging.mkdir(parents=True)
        count = _pack(clips, staging, megabytes * MEGABYTE, progress)
        shutil.rmtree(output, ignore_errors=True)
        staging.rename(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(clips), count


def _pack(clips: list[Clip], staging: Path, limit: float, progress: Callable[[int, int], None] | None) -> int:
    lines: list[str] = []
    left, count = iter(clips), 0
    while len(lines) < len(clips):
        name = f"{count:05d}.tar"
        with tarfile.open(staging / name, "w", format=tarfile.PAX_FORMAT) as tar:
            while (tar.offset == 0 or tar.offset < limit) and (clip := next(left, None)) is not None:
                entry, stored = _add_clip(tar, clip)
                lines.append(line_of(entry, name, stored) + "\n")
                if progress is not None:
                    progress(len(lines), len(clips))
        count += 1
    (staging / INDEX).write_text("".join(lines), encoding="utf-8")
    return count


def _add_clip(tar: tarfile.TarFile, clip: Clip) -> tuple[dict[str, Any], dict[str, Any]]:
    """The clip's line as a manifest has it, and where its files lie."""
    key = clip.id.replace(".", "%2E")  # webdataset takes the name up to the first dot for the sample's
    layers = {name: "keypoints.npz" if name == "keypoints" else name for name in clip.layers}
    conditions = {task: f"conditions/{task}" for task in clip.conditions}
    names = ("id", "identity", "prompt", "fps", "num_frames", "width", "height", "kind", "split", "made_by")
    entry = {name: getattr(clip, name) for name in names} | {"layers": layers, "conditions": conditions}
    _add(tar, f"{key}.json", json.dumps(entry, ensure_ascii=False).encode())
    stored = {}
    sources = [(clip.layers[name], name, path) for name, path in layers.items()]
    sources += [(clip.conditions[task], task, path) for task, path in conditions.items()]
    for relative, name, path in sources:
        suffix, contents = _contents(clip, name, clip.folder / relative)
        places, written = [], []
        stem = f"{key}.{path.removesuffix('.npz').replace('/', '.')}"
        for index, content in enumerate(contents):
            member = f"{stem}.npz" if not suffix else f"{stem}.{index:06d}{suffix}"
            places.append((_add(tar, member, content), len(content)))
            written.append(digest([content]).encode())
        stored[path] = stored_files(suffix, places, digest(written))
    return entry, stored


def _contents(clip: Clip, name: str, path: Any) -> tuple[str, Iterator[bytes]]:
    """(suffix, the bytes of each file) of a layer or condition; suffix "" for the file of keypoints."""
    if name == "keypoints":
        return "", iter([_bytes(path)])
    if not path.is_dir():  # a film
        drawn = name in clip.conditions
        numbers = range(clip.num_frames)
        frames = (clip.load_condition(name, k) if drawn else clip.load(k, ("frame",)).frame for k in numbers)
        return ".png", map(_png, frames)
    files = [picture_path(path, index) for index in range(clip.num_frames)]
    suffixes = sorted({file.suffix for file in files})
    if len(suffixes) > 1:
        raise UserError(f"{path}: holds pictures of several kinds ({', '.join(suffixes)}); shards take one kind for each layer")
    return suffixes[0], map(_bytes, files)


def _bytes(file: Any) -> bytes:
    with file.open("rb") as opened:
        return opened.read()


def _png(frame: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a file with neither time nor owner, so that the same data make the same tar; returns where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return tar.offset - -(-len(content) // BLOCK) * BLOCK
