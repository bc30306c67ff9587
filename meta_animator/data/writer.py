"""Writing a data set: everything goes to a folder beside, which takes its name only when it is complete."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.conditions import find_condition
from meta_animator.data.layers import LAYER_NAMES, Layers
from meta_animator.errors import UserError
from meta_animator.media.images import write_image

MANIFEST = "manifest.jsonl"


class DatasetWriter:
    """Makes a data-set folder; a context manager. Left by an exception, it leaves nothing behind.

    with DatasetWriter(folder) as writer:
        writer.add(id="walk", identity="anna", layers=frames, fps=25)
    """

    def __init__(self, folder: str | Path, *, overwrite: bool = False, frame_suffix: str = ".png") -> None:
        """`overwrite` replaces an older data set, and nothing else. Frames are stored as PNG, or as .jpg.

        Raises UserError where `folder` exists and holds something that may not be replaced.
        """
        self.folder = Path(folder)
        self.frame_suffix = frame_suffix
        self._check_target(overwrite)
        self.staging = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.part")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.staging.mkdir()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        self.entries: list[dict[str, Any]] = []

    def add(
        self,
        *,
        id: str,
        identity: str,
        layers: Iterable[Layers],
        fps: float,
        prompt: str = "",
        kind: str = "clip",
        split: str = "train",
        conditions: Mapping[str, Iterable[np.ndarray]] | None = None,
    ) -> None:
        """Writes one clip. All its frames have one size and the same layers.

        `conditions` are drawn beforehand, {task: uint8 (h, w, 3) RGB images}. Raises ValueError for an id that is
        used or not fit for a folder name, and for frames that do not fit together.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id) or id in [entry["id"] for entry in self.entries]:
            raise ValueError(f"id {id!r} is used already, or holds other than letters, digits, '.', '_' and '-'")
        home = self.staging / "clips" / id
        try:
            facts = self._write_frames(home, id, layers, fps)
            if conditions:
                size = facts["height"], facts["width"]
                facts["conditions"] = self._write_conditions(home, id, conditions, size, facts["num_frames"])
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        entry = {"id": id, "identity": identity, "prompt": prompt, "fps": float(fps), "kind": kind, "split": split}
        self.entries.append(entry | facts)

    def close(self) -> None:
        """Writes the manifest and gives the folder its name."""
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.entries]
        (self.staging / MANIFEST).write_text("".join(lines), encoding="utf-8")
        old = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.old")
        if self.folder.exists():
            self.folder.rename(old)
        self.staging.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def abort(self) -> None:
        """Throws away what was written so far."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check_target(self, overwrite: bool) -> None:
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; give the name of a new folder")
        held = [path.name for path in self.folder.iterdir()]
        if held and not overwrite:
            raise UserError(f"{self.folder}: exists and is not empty; choose another folder or add --overwrite")
        if held and MANIFEST not in held:
            raise UserError(f"{self.folder}: holds other things than a data set and is not replaced; choose another")

    def _write_frames(self, home: Path, id: str, layers: Iterable[Layers], fps: float) -> dict[str, Any]:
        keypoints: list[np.ndarray] = []
        shape: tuple[tuple[int, int], tuple[str, ...]] | None = None
        count = 0
        for frame in layers:
            present = tuple(name for name in LAYER_NAMES if getattr(frame, name) is not None)
            if shape not in (None, (frame.size, present)):
                raise ValueError(f"clip {id!r}: frame {count} has {frame.size} {present}, the first {shape}")
            shape = (frame.size, present)
            for name in present:
                if name != "keypoints":
                    suffix = self.frame_suffix if name == "frame" else ".png"
                    write_image(home / name / f"{count:06d}{suffix}", encode_map(name, getattr(frame, name)))
            keypoints += [] if frame.keypoints is None else [frame.keypoints]
            count += 1
        if shape is None:
            raise ValueError(f"clip {id!r} has no frames")
        (height, width), present = shape
        paths = {name: f"clips/{id}/{name}" for name in present}
        if keypoints:
            paths["keypoints"] += ".npz"
            about = {"width": width, "height": height, "fps": float(fps)}
            np.savez_compressed(home / "keypoints.npz", keypoints=np.stack(keypoints).astype(np.float32), **about)
        return {"num_frames": count, "width": width, "height": height, "layers": paths}

    def _write_conditions(
        self,
        home: Path,
        id: str,
        conditions: Mapping[str, Iterable[np.ndarray]],
        size: tuple[int, int],
        count: int,
    ) -> dict[str, str]:
        for task, images in conditions.items():
            find_condition(task)
            written = 0
            for image in images:
                if image.shape[:2] != size:
                    raise ValueError(f"clip {id!r}: {task} is {image.shape[:2]}, the frames are {size}")
                write_image(home / "conditions" / task / f"{written:06d}.png", image)
                written += 1
            if written != count:
                raise ValueError(f"clip {id!r}: {written} images of {task} for {count} frames")
        return {task: f"clips/{id}/conditions/{task}" for task in conditions}


def encode_map(name: str, array: np.ndarray) -> np.ndarray:
    if name == "depth":
        return np.rint(np.clip(array, 0, 1) * 65535).astype(np.uint16)
    if name == "normal":
        surface = np.abs(array).max(-1, keepdims=True) > 0
        return np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8) * surface
    return array
