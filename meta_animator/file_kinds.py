"""What a file really is, by its first bytes, whatever its name says."""

import zipfile
from pathlib import Path

from meta_animator.errors import UserError

HEAD = 512
DOWNLOAD = "download the file itself (a page of that kind comes where a login or a licence is asked for)"
IMPOSTORS = {  # kind: (what it is, what to do), for files that stand where something else should be
    "lfs": ("a Git LFS pointer, not the file that it points to", "fetch that with `git lfs pull`"),
    "html": ("a web page (HTML)", DOWNLOAD),
    "xml": ("an XML text", DOWNLOAD),
    "apple": ("an AppleDouble file (macOS's notes on a file, `._NAME`)", "name the file without `._`"),
}
OTHERS = {
    "empty": ("empty (0 bytes)", "copy or download it again"),
    "text": ("a text file", "download the file itself"),
    "torch": ("a PyTorch file", "give it a name that ends in .ckpt"),
    "npz": ("a NumPy archive", "expected weights"),
    "zip": ("a zip archive, whole or in part", "unpack it, or copy it again if it was cut off"),
    "safetensors": ("a safetensors file", "give it a name that ends in .safetensors"),
    "gzip": ("compressed (gzip)", "unpack it"),
    "hdf5": ("an HDF5 file (Keras?)", "expected PyTorch's weights"),
    "heic": ("a HEIC picture", "convert it to JPEG or PNG"),
}  # fmt: skip


def kind_of(path: Path) -> str:
    """A key of IMPOSTORS or OTHERS, or "" for anything else. Raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "lfs"
    if text.startswith((b"<!doctype html", b"<html", b"<head")) or (text.startswith(b"<") and b"<html" in text):
        return "html"
    if text.startswith(b"<?xml"):
        return "xml"
    if head.startswith(b"\x00\x05\x16\x07"):
        return "apple"
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "heic"
    starts = {b"\x1f\x8b": "gzip", b"\x89HDF\r\n": "hdf5"}
    found = next((kind for start, kind in starts.items() if head.startswith(start)), "")
    return found or ("text" if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) else "")


def _zip(path: Path) -> str:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # a damaged name is no UTF-8, a ValueError
        return "zip"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if any(name.endswith(".npy") for name in names) else "zip"


def described(kind: str) -> str:
    """ "is a web page (HTML); download ..." """
    said, advice = (IMPOSTORS | OTHERS)[kind]
    return f"is {said}; {advice}"


def refuse_impostor(path: Path, what: str = "") -> None:
    """Raises UserError, in which `what` comes before the path, for a file that stands where another should be, whichever that
    is: a Git LFS pointer, a web page, an AppleDouble file."""
    try:
        kind = kind_of(path)
    except OSError:  # its reader says it better
        return
    if kind in IMPOSTORS:
        raise UserError(f"{what}{path}: {described(kind)}")
