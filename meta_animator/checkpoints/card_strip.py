"""The picture of a model card: what a run has made already. No photo is in it, whole or in part: of what drove the pictures only
drawings are shown (a skeleton, a map), not conditions that are made of the photo's own pixels (edges, blur, inpainting)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator.checkpoints.card_facts import Origin
from meta_animator.config import load_config
from meta_animator.data.conditions import CONDITIONS
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.media.sheets import cells, grid
from meta_animator.media.video import VideoSource
from meta_animator.settings import RunConfig

COUNT, CELL = 6, 192  # pictures beside each other, and the longer side of each


def strip_of(origin: Origin) -> np.ndarray | None:
    """uint8 (h, w, 3): frames of a stage 3 with this run's weights above what drove them, else of its last preview; None where
    neither is found, or what is found cannot be read, which is said."""
    if origin.run is None or origin.config is None:
        return None
    sampled = _sampled_with(origin.run)
    try:
        rows = _sampled_rows(*sampled) if sampled else _preview_rows(origin.run, origin.config)
    except UserError as error:
        print(f"note: the model card has no picture: {error}")
        return None
    return grid(rows, cell=CELL) if rows else None


def _sampled_with(run: Path) -> tuple[Path, str] | None:
    """(folder, the task of what it keeps of its driving) of the newest stage 3, beside a run or in `videos` beside it, that took
    its weights and told the truth."""
    found = [file for file in (*run.parent.glob("*/config.yaml"), *run.parent.glob("videos/*/config.yaml"))]
    for file in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            config = load_config(file)
        except UserError:
            continue  # another version's
        taken = [Path(name).resolve() for name in (config.model.control_from, config.model.motion_from) if name]
        own = any(run.resolve() in (path, *path.parents) for path in taken)
        if config.stage == "sample" and own and not config.sample.shuffle_driving:
            return file.parent, next(iter(config.sample.tasks))
    return None


def _is_drawn(task: str) -> bool:
    """Whether the condition has nothing of the photo's own pixels."""
    return task in CONDITIONS and "frame" not in CONDITIONS[task].needs


def _sampled_rows(folder: Path, task: str) -> list[list[np.ndarray]]:
    rows = []
    for part in ("frames", "driving") if _is_drawn(task) else ("frames",):
        files = sorted((folder / part).glob("*.png"))
        rows.append([read_image(files[k]) for k in _spread(len(files))])
    return [row for row in rows if row]


def _preview_rows(run: Path, config: RunConfig) -> list[list[np.ndarray]]:
    """Generated pictures above their conditions, of one task; without the truth, which shows people's photos."""
    found = sorted(path for path in (run / "previews").glob("[!.]*") if path.suffix in (".png", ".mp4"))
    if not found or config.data.aspect_buckets:
        return []
    if found[-1].suffix == ".png":
        first = cells(read_image(found[-1]), config.data.height, config.data.width)[0]
        task = (config.train.lora_tasks or config.model.tasks)[0]
        return [first[column::3][:COUNT] for column in ((1, 0) if _is_drawn(task) else (1,))]
    task = found[-1].stem.split("-", 2)[-1]  # step-NUMBER-TASK
    film = VideoSource(found[-1])
    frames = film.read(_spread(film.num_frames))
    film.close()
    return [[np.split(frame, 3, axis=1)[column] for frame in frames] for column in ((1, 0) if _is_drawn(task) else (1,))]


def _spread(count: int) -> Sequence[int]:
    return sorted({round(k) for k in np.linspace(0, count - 1, min(COUNT, count))})
