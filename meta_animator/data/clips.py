"""One clip or photo of a data set on disk, and how its layers are stored.

frame, mask, normal, parts, depth   a folder with one picture per frame, 000000.png, 000001.png, ...; frames and
                                    drawn conditions may also be .jpg, or one video file instead of a folder
keypoints                           an .npz with `keypoints` float32 (num_frames, 133, 3)
mask 0 or 255 · depth 16 bits, 65535 nearest · normal (n + 1) / 2 in 8 bits, black: no surface · parts: label
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from meta_animator.data.conditions import CONDITIONS, draw_condition, find_condition
from meta_animator.data.formats.following import followed
from meta_animator.data.formats.keypoint_json import holds_json, read_poses
from meta_animator.data.keypoints import NUM_KEYPOINTS
from meta_animator.data.layers import LAYER_NAMES, PARTS, Layers
from meta_animator.data.shards import ShardPath
from meta_animator.errors import UserError, check_handles
from meta_animator.file_kinds import refuse_impostor
from meta_animator.media.images import IMAGE_SUFFIXES, read_image, read_map
from meta_animator.media.recent import Recent
from meta_animator.media.timeline import Timeline, check_fps, even
from meta_animator.media.video import VideoSource, open_film

POINTS_KEPT = 64 * 2**20  # bytes of keypoints


_points = Recent(POINTS_KEPT, weigh=lambda points: points.nbytes)


@dataclasses.dataclass(kw_only=True)
class Clip:
    """A clip or photo; `layers` and `conditions` map names to paths inside `folder`, on disk or in a tar.

    `made_by`: {layer: name of the annotator that made it in most of the frames}, as far as it is known.
    `times`: seconds (num_frames,) at which the frames are shown, where that is not at a constant rate.
    `video_reader`: the library that reads its films.
    Conditions that were drawn beforehand take the place of those drawn from layers. A clip without the frame layer
    ("driving only") can still be driven from, if it has keypoints or drawn conditions.
    """

    folder: Path | ShardPath
    id: str
    identity: str
    fps: float
    num_frames: int
    width: int
    height: int
    layers: dict[str, str]
    conditions: dict[str, str] = dataclasses.field(default_factory=dict)
    prompt: str = ""
    kind: Literal["clip", "photo"] = "clip"
    split: Literal["train", "heldout"] = "train"
    made_by: dict[str, str] = dataclasses.field(default_factory=dict)
    video_reader: Literal["pyav", "decord"] = "pyav"
    times: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    _memory: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def has_frames(self) -> bool:
        """False for a clip to drive from that comes without its RGB frames."""
        return "frame" in self.layers

    @property
    def timeline(self) -> Timeline:
        """When each frame is shown."""
        return even(self.num_frames, self.fps) if self.times is None else Timeline(self.times, self.fps)

    def available_tasks(self) -> list[str]:
        """Tasks whose condition image can be shown, drawn beforehand or from the layers; in the registry's order."""
        have = set(self.layers)
        return [name for name, task in CONDITIONS.items() if name in self.conditions or have.issuperset(task.needs)]

    def load(self, index: int, names: tuple[str, ...] = LAYER_NAMES) -> Layers:
        """Frame `index` with the layers of `names` that the clip has. Without "frame" in `names` it is black.

        Raises UserError for frames that are asked for and not there, or files that do not fit the manifest.
        """
        self._check(index)
        if "frame" in names and not self.has_frames:
            raise UserError(f"clip {self.id!r} has no frames, only {', '.join([*self.layers, *self.conditions])}")
        wanted = [name for name in LAYER_NAMES if name in names and name in self.layers]
        loaded = {name: self._load_layer(name, index) for name in wanted}
        loaded.setdefault("frame", np.zeros((self.height, self.width, 3), np.uint8))
        return Layers(**loaded)

    def load_keypoints(self, index: int) -> np.ndarray | None:
        """The keypoints (133, 3) of frame `index`, if the clip has any."""
        self._check(index)
        return self._load_layer("keypoints", index) if "keypoints" in self.layers else None

    def load_condition(self, task: str, index: int) -> np.ndarray:
        """The condition image of frame `index`: uint8 (height, width, 3) RGB."""
        if task in self.conditions:
            self._check(index)
            return self._fitting(self._picture(self.conditions[task], index, drawn=True), task, index)
        return draw_condition(task, self.load(index, find_condition(task).needs))

    def remember(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make()` gives of this clip, made once per process."""
        if what not in self._memory:
            self._memory[what] = make()
        return self._memory[what]

    def stamp(self) -> str:
        """A fingerprint of the clip's entry and of its files' names, sizes and times; read once per process."""
        if "stamp" not in self._memory:
            entry = [self.id, self.num_frames, self.width, self.height, self.layers, self.conditions]
            digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode())
            for relative in sorted({*self.layers.values(), *self.conditions.values()}):
                path = self.folder / relative
                for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                    facts = file.stat()
                    digest.update(f"{relative}/{file.name}:{facts.st_size}:{facts.st_mtime_ns};".encode())
            self._memory["stamp"] = digest.hexdigest()[:16]
        return self._memory["stamp"]

    def _check(self, index: int) -> None:
        if not 0 <= index < self.num_frames:
            raise IndexError(f"clip {self.id!r}: frame {index} of {self.num_frames}")

    def _load_layer(self, name: str, index: int) -> np.ndarray:
        relative = self.layers[name]
        if name == "keypoints":
            path = self.folder / relative
            return _points.get((path, path.stat().st_mtime_ns), lambda: read_keypoints(path))[index].copy()
        if name == "frame":
            return self._fitting(self._picture(relative, index), name, index)
        stored = self._fitting(read_map(picture_path(self.folder / relative, index)), name, index)
        return decode_map(name, stored, f"clip {self.id!r}, {name} of frame {index}")

    def _picture(self, relative: str, index: int, *, drawn: bool = False) -> np.ndarray:
        path = self.folder / relative
        if path.is_dir():
            return read_image(picture_path(path, index))
        return open_film(path, self.video_reader, drawn=drawn).read([index])[0]

    def _fitting(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        if image.shape[:2] != (self.height, self.width):
            raise UserError(
                f"clip {self.id!r}: {name} of frame {index} is {image.shape[1]}x{image.shape[0]}, "
                f"the manifest says {self.width}x{self.height}"
            )
        return image


def driving_clip(path: str | Path, task: str = "dwpose") -> Clip:
    """A video of drawn condition images, such as a DWPose video, as a clip to drive from; it has no frames."""
    path = Path(path)
    source = VideoSource(path)
    return Clip(
        folder=path.parent,
        id=re.sub(r"[^A-Za-z0-9._-]", "_", path.stem),
        identity="",
        fps=source.timeline.rate,
        num_frames=source.num_frames,
        width=source.width,
        height=source.height,
        layers={},
        conditions={find_condition(task).name: path.name},
        times=None if source.timeline.steady else source.timeline.times,
    )


def read_keypoints(path: Path, single: bool = False) -> np.ndarray:
    """float32 (frames, 133, 3) from an .npz, or of the main person in JSON of others (`formats.keypoint_json`). UserError where
    it is neither or has another shape.

    With `single`, one frame may come as (133, 3).
    """
    refuse_impostor(path)
    if holds_json(path):
        return followed(path, read_poses(path).people)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            keypoints = np.asarray(stored["keypoints"], np.float32)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected an .npz with 'keypoints' (frames, 133, 3)") from None
    except Exception as error:  # zip, npy and pickle errors have no common type
        check_handles(error, path)
        raise UserError(f"{path}: cannot be read; expected an .npz with 'keypoints' (frames, 133, 3)") from error
    keypoints = keypoints[None] if single and keypoints.ndim == 2 else keypoints
    if keypoints.ndim != 3 or keypoints.shape[1:] != (NUM_KEYPOINTS, 3):
        raise UserError(f"{path}: keypoints have shape {keypoints.shape}; expected (frames, 133, 3)")
    if not len(keypoints):
        raise UserError(f"{path}: holds no frame; expected keypoints (frames, 133, 3)")
    return np.nan_to_num(keypoints, nan=0.0, posinf=0.0, neginf=0.0)


def read_numbers(path: Path) -> dict[str, float]:
    """Those of "width", "height" and "fps" that an .npz of keypoints holds. Raises UserError for what is no single number."""
    found: dict[str, float] = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in ("width", "height", "fps"):
            if name not in stored.files:
                continue
            try:
                value = stored[name]
            except ValueError:  # an array of objects
                value = np.array("a pickled object")
            value = value.item() if value.size == 1 else value.tolist()
            if name == "fps":
                found[name] = check_fps(value, f"{path}: fps")
            elif not isinstance(value, int | float) or not 1 <= value < 1e6:
                raise UserError(f"{path}: {name} is {str(value)[:40]!r}; expected a number of pixels")
            else:
                found[name] = int(value)
    return found


def picture_path(folder: Path, index: int) -> Path:
    """The file of frame `index` in a folder of pictures; UserError where there is none."""
    for suffix in IMAGE_SUFFIXES:
        path = folder / f"{index:06d}{suffix}"
        if path.exists():
            return path
    raise UserError(f"{folder / f'{index:06d}.png'}: no such file; the manifest counts on it")


def decode_map(name: str, stored: np.ndarray, where: str) -> np.ndarray:
    if name == "normal":
        if stored.ndim != 3 or stored.dtype != np.uint8:
            raise UserError(f"{where}: expected an 8-bit RGB PNG")
        vectors = stored.astype(np.float32) / 127.5 - 1
        vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
        return vectors * (stored.max(-1, keepdims=True) > 0)
    if stored.ndim != 2:
        raise UserError(f"{where}: expected a PNG with one channel, got {stored.shape[2]}")
    if name == "mask":
        return stored > (0 if stored.max() <= 1 else np.iinfo(stored.dtype).max // 2)
    if name == "depth":
        return stored.astype(np.float32) / np.iinfo(stored.dtype).max
    if stored.max() >= len(PARTS):
        raise UserError(f"{where}: has label {stored.max()}; labels go from 0 to {len(PARTS) - 1}")
    return stored.astype(np.uint8)
