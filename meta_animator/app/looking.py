"""What is recognised in what was dropped, as a process of its own: python scripts/app.py --look DRAFT photos|motion

It prepares the photos, and a few frames of a film, as preparation does, into <draft>/seen-<what>/, and writes beside it what a
page can show: seen-<what>.json, {"state": busy | done | failed, "pictures": [...], "lines": [...], "error": line}.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.app import processes
from meta_animator.app.folders import REPOSITORY
from meta_animator.app.uploads import FILMS, JSON_FPS, find_motion, list_photos
from meta_animator.errors import UserError
from meta_animator.json_files import read_json, write_json

SHOWN, SIDE = 12, 320  # pictures, and pixels of their longer side
FRAMES_OF_MOTION, FRAMES_OF_PERSON = 5, 16
BUSY, READY, BROKEN = "busy", "done", "failed"
PHOTOS, MOTION = "photos", "motion"


@dataclasses.dataclass(frozen=True)
class Sight:
    """What is to be shown.

    pictures  (file, title, why it is not used, or "")
    lines     advice and facts
    """

    state: str = ""
    pictures: tuple[tuple[Path, str, str], ...] = ()
    lines: tuple[str, ...] = ()
    error: str = ""


def look_again(draft: Path, what: str) -> None:
    """Begins to look at what the draft holds now; whoever still looks at what it held ends."""
    forget(draft, what)
    told = draft / f"seen-{what}.json"
    command = [sys.executable, "scripts/app.py", "--look", str(draft.resolve()), what]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    process = processes.start(command, draft / f"seen-{what}.log", REPOSITORY, environment)
    write_json(draft / f"seen-{what}.process.json", processes.identify(process.pid))
    if not told.exists():  # after who it is: another page must not take it for one that broke down
        write_json(told, {"state": BUSY})


def forget(draft: Path, what: str) -> None:
    """Ends whoever looks, and what was seen is not known any more."""
    processes.end_now(_read(draft / f"seen-{what}.process.json"))
    (draft / f"seen-{what}.json").unlink(missing_ok=True)


def read_sight(draft: Path, what: str) -> Sight:
    """As it is by now."""
    told = _read(draft / f"seen-{what}.json")
    state = str(told.get("state", ""))
    if state == BUSY and not processes.is_alive(_read(draft / f"seen-{what}.process.json")):
        told = _read(draft / f"seen-{what}.json")  # it may have ended in between
        if (state := str(told.get("state", ""))) == BUSY:
            return Sight(state=BROKEN, error=f"it could not be looked at; {draft / f'seen-{what}.log'} says why")
    pictures = tuple((draft / name, title, reason) for name, title, reason in told.get("pictures", ()))
    return Sight(state=state, pictures=pictures, lines=tuple(told.get("lines", ())), error=str(told.get("error", "")))


def main(folder: str, what: str) -> None:
    draft = Path(folder)
    os.nice(5)
    home = draft / f"seen-{what}"
    try:
        found = (look_at_photos if what == PHOTOS else look_at_motion)(draft, home)
        told: dict[str, Any] = {"state": READY, **found}
    except UserError as error:
        told = {"state": BROKEN, "error": without_folder(str(error), draft)}
    write_json(draft / f"seen-{what}.json", told)


def look_at_photos(draft: Path, home: Path) -> dict[str, Any]:
    files = list_photos(draft)
    film = next((path for path in files if path.suffix in FILMS), None)
    found = recognise(film or draft / "photos", home, draft, FRAMES_OF_PERSON if film else 0, strict=True)
    used = sum(not reason for _, _, reason in found["pictures"])
    first = f"{used} of {len(found['pictures'])} {'frames' if film else 'photos'} can be used"
    return {**found, "pictures": found["pictures"][:SHOWN * 5], "lines": [first, *found["lines"]]}


def look_at_motion(draft: Path, home: Path) -> dict[str, Any]:
    from meta_animator.data.motion_kinds import kind_of
    from meta_animator.media.video import VideoSource

    motion = find_motion(draft)
    if motion is None:
        raise UserError("there is no motion")
    kind = kind_of(motion)
    if kind == "keypoints":
        return draw_points(motion, home, draft)
    film = VideoSource(motion)
    facts = f"{film.num_frames} frames, {film.timeline.duration:.1f} s, {film.width} x {film.height}"
    if kind == "drawn":
        numbers = _evenly(film.num_frames)
        pictures = [_write(frame, home, draft, k) for k, frame in zip(numbers, film.read(numbers), strict=True)]
        return {"pictures": pictures, "lines": [f"a film of drawn poses: {facts}"]}
    film.close()
    found = recognise(motion, home, draft, FRAMES_OF_MOTION, strict=False)
    if not any(not reason for _, _, reason in found["pictures"]):
        raise UserError(f"{motion.name}: nobody is recognised in it; take a film in which one person is seen well")
    return {**found, "lines": [f"a film: {facts}", *found["lines"]]}


def recognise(source: Path, home: Path, draft: Path, frames: int, strict: bool) -> dict[str, Any]:
    """Pictures and advice of preparation's own. frames: how many of a film; strict: with the limits for photos."""
    from meta_animator.annotators.sets import AnnotatorSet
    from meta_animator.media.video import VideoSource
    from meta_animator.preparation.folder import ANNOTATED
    from meta_animator.preparation.footage_set import FootageConfig, NothingKept, prepare_footage
    from meta_animator.preparation.page import Painter, advice_on
    from meta_animator.preparation.quality import Limits

    fps = None
    if frames:
        film = VideoSource(source)
        fps = min(film.timeline.rate, frames / max(film.timeline.duration, 1e-3))
        film.close()
    free = Limits(min_height=0, min_share=0.0, min_seen=0.0, need_head=False, min_sharpness=0.0, blur_ratio=0.0)
    config = FootageConfig(
        inputs=[source], output=home, identity="person", fps=fps, least=1, alike=True, limits=Limits() if strict else free,
    )  # fmt: skip
    try:
        summary = prepare_footage(config, AnnotatorSet("light").load(), empty=True)
    except NothingKept as error:
        summary = error.summary
    painter = Painter({wish.source.name: wish.source for wish in summary.wishes}, home / ANNOTATED)
    names = {wish.source.name: wish.source.path.name for wish in summary.wishes}
    pictures = []
    try:
        for k, record in enumerate(summary.records):
            title = names[record.source] if record.time is None else f"{record.time:.1f} s"
            file, *_ = _write(painter.paint(record), home, draft, k)
            pictures.append((file, title, "" if record.kept else record.reason))
    finally:
        painter.close()
    photos = [wish for wish in summary.wishes if wish.source.kind == "photo"]
    lines = [without_folder(error, draft) for error in summary.broken.values()]
    return {"pictures": pictures, "lines": [*lines, *(advice_on(photos, summary.records, home / ANNOTATED) if photos else [])]}


def draw_points(motion: Path, home: Path, draft: Path) -> dict[str, Any]:
    """Keypoints as poses. Raises UserError for what stage 3 cannot be driven by."""
    from meta_animator.data.clips import read_keypoints
    from meta_animator.data.conditions.pose import draw_dwpose
    from meta_animator.data.keypoint_clips import json_clip, keypoint_clip
    from meta_animator.data.keypoints import VISIBLE
    from meta_animator.data.layers import Layers

    clip = keypoint_clip(motion) if motion.suffix == ".npz" else json_clip(motion, JSON_FPS)
    points = read_keypoints(motion)
    seen = points[points[..., 2] >= VISIBLE]
    if not len(seen):
        raise UserError(f"{motion.name}: none of its points is seen")
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    scale = 0.9 * SIDE / max(float((high - low).max()), 1e-6)
    points = points.copy()
    points[..., :2] = (points[..., :2] - (low + high) / 2) * scale + SIDE / 2
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    pictures = [
        _write(draw_dwpose(Layers(frame=black, keypoints=points[k])), home, draft, k) for k in _evenly(len(points))
    ]  # fmt: skip
    return {"pictures": pictures, "lines": [f"keypoints: {len(points)} frames, {clip.fps:g} a second"]}


def without_folder(text: str, draft: Path) -> str:
    """Without where the page keeps files: people know their own names of them."""
    for folder in (draft / "photos", draft / "motion", draft):
        for shown in (folder, folder.resolve()):
            text = text.replace(f"{shown}/", "").replace(f"{shown}:", "the photos:")
    return text


def _evenly(count: int) -> list[int]:
    return sorted({round(k) for k in np.linspace(0, count - 1, min(FRAMES_OF_MOTION, count))})


def _write(picture: np.ndarray, home: Path, draft: Path, number: int) -> tuple[str, str, str]:
    """A small picture's (file below the draft, title, "")."""
    from PIL import Image

    from meta_animator.media.images import write_image

    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((SIDE, SIDE))
    file = write_image(home / "pictures" / f"{number:05d}.jpg", np.asarray(image), quality=85)
    return str(file.relative_to(draft)), "", ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except UserError:
        return {}
