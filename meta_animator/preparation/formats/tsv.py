"""DisCo's published TSV files as folders of pictures.

A row of an images file is: key, ..., the picture in base64; of a masks file: key, the picture in base64, maybe more. The key is
SEQUENCE_FRAME.SUFFIX, such as TiktokDance_00001_0002.png. A name with "val" in it is of what is held out.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.preparation.footage import slug

KEY = re.compile(r"(.+)_(\d+)(\.\w+)?")
KINDS = {"images": "images", "masks": "masks"}  # what a file's name holds: the folder of its pictures
STARTS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}


def find_tsv(root: Path) -> list[Path]:
    """The TSV files with pictures or masks at most one folder below `root`."""
    return sorted(path for pattern in ("*.tsv", "*/*.tsv") for path in root.glob(pattern) if _kind(path) is not None)


def unpack(files: list[Path], into: Path) -> list[Path]:
    """Writes the pictures to SPLIT/SEQUENCE/images and masks below `into`, each file once, and returns the folders of the splits.

    Raises UserError for rows that are none.
    """
    for path in files:
        split = into / ("heldout" if "val" in path.stem.lower() else "train")
        kind = _kind(path)
        for number, row in _rows(path):
            sequence, frame = _name(path, number, row[0])
            encoded = row[-1] if kind == "images" else row[min(1, len(row) - 1)]
            home = split / sequence / kind
            if not any((home / f"{frame}{suffix}").exists() for suffix in STARTS.values()):
                content, suffix = _decoded(path, number, encoded)
                with whole_file(home / f"{frame}{suffix}") as part:
                    part.write_bytes(content)
    return sorted(folder for folder in into.iterdir() if folder.is_dir())


def _kind(path: Path) -> str | None:
    return next((kind for word, kind in KINDS.items() if word in path.stem.lower()), None)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a TSV of pictures ({error})") from error


def _name(path: Path, number: int, key: str) -> tuple[str, str]:
    found = KEY.fullmatch(key)
    if found is None:
        raise UserError(f"{path}, line {number}: key {key[:60]!r}; expected SEQUENCE_FRAME, such as TiktokDance_00001_0002.png")
    return slug(found[1]), f"{int(found[2]):06d}"


def _decoded(path: Path, number: int, encoded: str) -> tuple[bytes, str]:
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    suffix = next((suffix for start, suffix in STARTS.items() if content.startswith(start)), None)
    if suffix is None:
        raise UserError(f"{path}, line {number}: holds no picture in base64 (PNG, JPEG or WebP)")
    return content, suffix
