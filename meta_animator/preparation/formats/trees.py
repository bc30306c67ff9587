"""Published data sets as they lie on disk: each sequence with its frames, what comes with them, and the split.

tiktok  the TikTok dataset of Jafarian and Park: 00001/images/0001.png, ..., 00001/masks/0001.png, ..., densepose (not used);
        30 frames per second. It comes without lists; as in DisCo's loaders, sequences 335 to 340 are held out.
disco   the same arranged by DisCo: 00001/images, masks, openpose_json/0001.png.json; or as its PREPRO.md has it, 001/0000.png,
        001/openpose_json/0000.png.json and 001/groundsam_vis/0000.png.mask.png; or its published *_images.tsv with *_masks.tsv,
        whose pictures are unpacked first (`tsv`). Its drawn poses are not used.
ubc     UBC Fashion: videos *.mp4 (in the folder, or in videos, train and test below it), split by fashion_train.txt and
        fashion_test.txt (an address or name in each line), or else by the folders train and test

Everyone is somebody else: the identity is the sequence's name.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from meta_animator.data.formats.keypoint_json import json_files
from meta_animator.data.formats.maps import pictures_in
from meta_animator.data.formats.names import natural_key, picture_name
from meta_animator.errors import UserError

TIKTOK_FPS = 30.0
TIKTOK_HELD_OUT = range(335, 341)
LISTS = {"train": "fashion_train.txt", "heldout": "fashion_test.txt"}
FILMS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence:
    """One sequence of a published data set.

    frames     the pictures, in order; empty where `path` is a film
    path       the film, or the folder of the frames
    fps        of the pictures; 0 for a film, which says it itself
    masks, keypoints   a file for each of the frames; None where there are none
    """

    name: str
    path: Path
    split: Literal["train", "heldout"]
    frames: tuple[Path, ...] = ()
    fps: float = 0.0
    masks: tuple[Path, ...] | None = None
    keypoints: tuple[Path, ...] | None = None


def find_sequences(format: str, root: Path) -> list[Sequence]:
    """The sequences of a data set of `format`, a key of FORMATS, in the order of their names; says what is left out.

    Raises UserError where `root` is not of that format.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected that of the data set, for --format {format}")
    found = sorted(FORMATS[format](root), key=lambda sequence: natural_key(sequence.name))
    if not found:
        raise UserError(f"{root}: is not arranged as --format {format} expects: {EXPECTED[format]}")
    return found


def _tiktok(root: Path) -> list[Sequence]:
    root = root / "TikTok_dataset" if (root / "TikTok_dataset").is_dir() else root
    return [_of_frames(home, home / "images", home / "masks", None) for home in _folders(root) if (home / "images").is_dir()]


def _disco(root: Path) -> list[Sequence]:
    root = root / "TikTok_dataset" if (root / "TikTok_dataset").is_dir() else root
    found = []
    for home in _folders(root):
        if (home / "images").is_dir():
            found.append(_of_frames(home, home / "images", home / "masks", home / "openpose_json"))
        elif pictures_in(home):
            found.append(_of_frames(home, home, home / "groundsam_vis", home / "openpose_json"))
    return found


def _of_frames(home: Path, images: Path, masks: Path, keypoints: Path | None) -> Sequence:
    frames = pictures_in(images)
    held_out = bool(re.fullmatch(r"\d{5}", home.name)) and int(home.name) in TIKTOK_HELD_OUT
    # Grounded-SAM leaves a coloured 0000.png.mask.jpg beside the mask
    labels = [file for file in pictures_in(masks) if not file.name.endswith(".mask.jpg")] if masks.is_dir() else []
    points = json_files(keypoints) if keypoints is not None and keypoints.is_dir() else []
    return Sequence(
        name=home.name, path=images, split="heldout" if held_out else "train", frames=tuple(frames), fps=TIKTOK_FPS,
        masks=_by_frame(frames, labels, masks), keypoints=_by_frame(frames, points, keypoints),
    )  # fmt: skip


def _by_frame(frames: list[Path], files: list[Path], folder: Path | None) -> tuple[Path, ...] | None:
    """The file of each frame, by name; None, and said, where some have none."""
    places = {picture_name(file.name): file for file in files}
    found = tuple(places.get(picture_name(frame.name)) for frame in frames)
    if files and None in found:
        print(f"note: {folder}: has no file for {found.count(None)} of {len(frames)} frames, and is left out")
    return None if None in found else found


def _ubc(root: Path) -> list[Sequence]:
    films = sorted(path for path in root.rglob("*") if path.suffix.lower() in FILMS and not path.name.startswith("."))
    lists = {split: _listed(root / name) for split, name in LISTS.items()}
    if None in lists.values():
        lists = {"train": None, "heldout": None}
        print(f"note: {root}: lacks {' or '.join(LISTS.values())}; videos below a folder named test are held out")
    found, unlisted = [], []
    for film in films:
        if lists["train"] is None:
            split = "heldout" if "test" in film.relative_to(root).parts[:-1] else "train"
        else:
            split = next((split for split, names in lists.items() if film.stem in names), None)
        if split is None:
            unlisted.append(film.name)
        else:
            found.append(Sequence(name=film.stem, path=film, split=split))
    if unlisted:
        print(f"note: {root}: left out {len(unlisted)} videos that are in neither list ({', '.join(unlisted[:4])})")
    wanted = sum(len(names) for names in lists.values() if names is not None)
    if wanted > len(found):
        print(f"note: {root}: {wanted - len(found)} of {wanted} videos of the lists are not there")
    return found


def _listed(path: Path) -> set[str] | None:
    """Names of videos, without suffix, that a list of addresses has; None where there is no list."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of videos ({error})") from error
    return {Path(unquote(line).split("/")[-1]).stem for line in lines}


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


FORMATS: dict[str, Callable[[Path], list[Sequence]]] = {"tiktok": _tiktok, "ubc": _ubc, "disco": _disco}
EXPECTED = {
    "tiktok": "00001/images/0001.png, 00001/masks/0001.png",
    "ubc": "videos *.mp4 with fashion_train.txt and fashion_test.txt",
    "disco": "00001/images/0001.png with masks and openpose_json, or 001/0000.png with groundsam_vis and openpose_json",
}
