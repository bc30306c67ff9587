"""What people drop: bounded in size, count and kind by what the files hold, not by what they are called."""

import contextlib
import json
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from meta_animator.app.folders import ID, Folders, new_id, plain_name
from meta_animator.errors import UserError
from meta_animator.file_kinds import described, kind_of
from meta_animator.files import whole_file
from meta_animator.media.images import HEIC_ADVICE, can_read_heic

MOST_PHOTOS, MOST_DRAFTS = 60, 200
PHOTO_BYTES, FILM_BYTES, POINTS_BYTES = 50 * 2**20, 500 * 2**20, 100 * 2**20
PHOTO_PIXELS, FILM_PIXELS = 100_000_000, 4096 * 4096
FILM_SECONDS, FILM_FRAMES = 180, 10_000
JSON_FPS = 25  # frames per second of keypoint JSON, which does not say
DRAFT_SECONDS, SENT_SECONDS = 24 * 3600, 3600  # after which what nobody asked for, and what nobody took, is forgotten
PICTURES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
FORMATS = "mov,matroska,avi,gif"  # as FFmpeg calls them; playlists, which lead to other files, are none of them
PHOTOS_WANTED = "expected photos (JPEG, PNG, WebP, HEIC) or one film of the person"
MOTION_WANTED = "expected a film, keypoints (.npz) or their JSON"


def new_draft(folders: Folders) -> str:
    """A place for what is dropped; the oldest give way where there are too many."""
    drafts = sorted(path for path in folders.drafts.iterdir() if ID.fullmatch(path.name))
    old = [path for path in drafts if time.time() - path.stat().st_mtime > DRAFT_SECONDS]
    for path in {*old, *drafts[: max(0, len(drafts) + 1 - MOST_DRAFTS)]}:
        shutil.rmtree(path, ignore_errors=True)
    sweep(folders.served)
    return new_id(folders.drafts)


def sweep(served: Path) -> None:
    """Removes what is left of uploads that were broken off; Gradio knows nothing of them."""
    for path in served.rglob("*"):
        with contextlib.suppress(OSError):  # another page sweeps, too
            if path.is_file() and time.time() - path.stat().st_mtime > SENT_SECONDS:
                path.unlink()


def take_photos(draft: Path, files: Sequence[Path]) -> list[str]:
    """Takes photos, or a film of the person, into the draft, beside those that are there. Returns why others were left out,
    a line each. Raises UserError where nothing can be taken."""
    home = draft / "photos"
    there = list_photos(draft)
    faults, kinds = [], {}
    for file in files:
        try:
            kinds[file] = photo_suffix(file)
        except UserError as error:
            faults.append(str(error))
    films = [file for file in kinds if kinds[file] in FILMS]
    if films and (len(kinds) > 1 or there):
        raise UserError(f"{films[0].name}: either photos or one film of the person; remove the others, or leave the film out")
    if any(path.suffix in FILMS for path in there) and kinds:
        raise UserError(f"{there[0].name} is a film of the person already; remove it first")
    room = MOST_PHOTOS - len(there)
    if len(kinds) > room:
        faults.append(f"{len(kinds) - room} photos left out: {MOST_PHOTOS} at most")
    for file in list(kinds)[:room]:
        copy_whole(file, _free(home, file.stem, kinds[file]))
    if not kinds and faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more files)" if faults[1:] else ""))
    return faults


def take_motion(draft: Path, file: Path) -> Path:
    """Takes the motion into the draft, in the place of an earlier one. Raises UserError for what gives none."""
    suffix = motion_suffix(file)
    home = draft / "motion"
    target = home / f"{plain_name(file.stem) or 'motion'}{suffix}"
    copy_whole(file, target)
    for earlier in set(home.iterdir()) - {target}:
        earlier.unlink(missing_ok=True)
    return target


def list_photos(draft: Path) -> list[Path]:
    """What was dropped of the person."""
    return sorted(path for path in (draft / "photos").glob("[!.]*") if path.is_file())


def clear_photos(draft: Path) -> None:
    shutil.rmtree(draft / "photos", ignore_errors=True)


def remove_draft(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)


def find_motion(draft: Path) -> Path | None:
    return next((path for path in (draft / "motion").glob("[!.]*") if path.is_file()), None)


def photo_suffix(file: Path) -> str:
    """The suffix that fits a picture's content. Raises UserError for what is no photo and no film, or too large."""
    name = file.name
    if file.suffix.lower() in FILMS and file.suffix.lower() != ".gif":
        return _film_suffix(file, PHOTOS_WANTED)
    _check_size(file, PHOTO_BYTES)
    kind = kind_of(file)
    if kind == "heic":
        if not can_read_heic():
            raise UserError(f"{name}: is a HEIC photo; {HEIC_ADVICE}")
        _check_pixels(name, *_heic_size(file))
        return ".heic"
    if kind:
        raise UserError(f"{name}: {described(kind).partition(';')[0]}; {PHOTOS_WANTED}")
    try:
        with Image.open(file) as picture:
            form, (width, height) = picture.format, picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        form, width, height = "", 0, 0
    if form not in PICTURES:
        raise UserError(f"{name}: is not a picture that can be read; {PHOTOS_WANTED}")
    _check_pixels(name, width, height)
    return PICTURES[form]


def _heic_size(file: Path) -> tuple[int, int]:
    import pillow_heif

    try:
        return pillow_heif.open_heif(file).size
    except (OSError, ValueError, RuntimeError, SyntaxError):
        raise UserError(f"{file.name}: is not a picture that can be read; {PHOTOS_WANTED}") from None


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > PHOTO_PIXELS:
        raise UserError(f"{name}: has {width} x {height} pixels; {PHOTO_PIXELS // 10**6} million at most, make it smaller")


def motion_suffix(file: Path) -> str:
    """The suffix that fits. Raises UserError for what is no motion, or too large."""
    kind = kind_of(file) if file.stat().st_size else "empty"
    if kind == "npz":
        _check_size(file, POINTS_BYTES)
        with zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > 4 * POINTS_BYTES:
                raise UserError(f"{file.name}: is larger than it seems when unpacked; {MOTION_WANTED}")
        return ".npz"
    if kind == "text" and file.suffix.lower() == ".json":
        _check_size(file, POINTS_BYTES)
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise UserError(f"{file.name}: is not valid JSON; {MOTION_WANTED}") from None
        return ".json"
    if kind:
        raise UserError(f"{file.name}: {described(kind).partition(';')[0]}; {MOTION_WANTED}")
    return _film_suffix(file, MOTION_WANTED)


def _film_suffix(file: Path, wanted: str) -> str:
    import av

    _check_size(file, FILM_BYTES)
    suffix = file.suffix.lower()
    if suffix not in FILMS:
        raise UserError(f"{file.name}: is not a film of a known kind ({', '.join(FILMS)}); {wanted}")
    try:
        with av.open(str(file), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}) as container:
            (stream, *_) = container.streams.video
            size = stream.codec_context.width * stream.codec_context.height
            seconds, frames = (container.duration or 0) / 1e6, float(stream.frames)
            if not container.duration:  # as of a recording that was streamed: its parts tell, undecoded
                ends = [part.pts * part.time_base for part in container.demux(stream) if part.pts is not None]
                seconds, frames = float(max(ends, default=0)), float(len(ends))
            frames = frames or seconds * float(stream.average_rate or 0)
    except (av.FFmpegError, ValueError, AttributeError):
        raise UserError(f"{file.name}: cannot be read as a film ({', '.join(FILMS)}); {wanted}") from None
    if seconds > FILM_SECONDS or frames > FILM_FRAMES:
        raise UserError(f"{file.name}: lasts {seconds:.0f} s; {FILM_SECONDS} s and {FILM_FRAMES} frames at most, cut it")
    if size > FILM_PIXELS:
        raise UserError(f"{file.name}: its frames are too large; 4096 x 4096 pixels at most")
    return suffix


def _check_size(file: Path, most: int) -> None:
    if (size := file.stat().st_size) > most:
        raise UserError(f"{file.name}: has {size / 2**20:.0f} MB; {most // 2**20} MB at most")
    if not size:
        raise UserError(f"{file.name}: is empty; copy or export it again")


def _free(home: Path, stem: str, suffix: str) -> Path:
    """A name that is not taken."""
    stem, count = plain_name(stem) or "photo", 1
    name = stem
    while (home / f"{name}{suffix}").exists():
        count += 1
        name = f"{stem}-{count}"
    return home / f"{name}{suffix}"


def copy_whole(file: Path, target: Path) -> None:
    """Raises UserError where there is no room for it; nothing is left of it then."""
    with whole_file(target) as part:
        shutil.copyfile(file, part)
