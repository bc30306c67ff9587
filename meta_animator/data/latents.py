"""A cache of latents on disk: each frame and condition image is encoded once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from meta_animator.data.manifest import Clip
from meta_animator.weights import save_tensors

# encode(clip, name, frame indices, crop number) -> latents (n, c, h, w); name is a task, or "frame" for the frames themselves
Encode = Callable[[Clip, str, list[int], int], Tensor]


class LatentCache:
    """`<folder>/<key>/<clip>.safetensors` with one tensor (len(frames), c, h, w) per name, and per crop where there are several.

    The key is made of everything that the latents depend on beside the clip: base model, size, condition settings.
    """

    def __init__(self, folder: Path, depends_on: dict, kept: Sequence[tuple[Clip, list[int]]]):
        """kept: the frames of each clip that are worth encoding."""
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = folder / key
        self.kept = list(kept)
        self.files = {_name(clip): (self._path(clip, frames), frames) for clip, frames in self.kept}

    def _path(self, clip: Clip, frames: list[int]) -> Path:
        """Clips of one name in two data sets, or changed on disk, have files of their own, and so have parts of a clip."""
        part = "" if len(frames) == clip.num_frames else f":{frames}"
        stamp = hashlib.sha256(f"{clip.folder.resolve()}:{clip.stamp()}{part}".encode()).hexdigest()[:8]
        return self.folder / f"{clip.id}-{stamp}.safetensors"

    def fill(self, tasks: Sequence[str], encode: Encode, batch_size: int, progress=None, crops: int = 1) -> None:
        """Encode what is not there yet. `progress(n)` is called after each clip."""
        for clip, frames in self.kept:
            path, _ = self.files[_name(clip)]
            shown = ["frame", *(t for t in tasks if t in clip.available_tasks())]
            have = self._names(path)
            if missing := [(n, c) for n in shown for c in range(crops) if _key(n, c) not in have]:
                tensors = {n: self._read(path, n) for n in have}
                for name, crop in missing:
                    chunks = [encode(clip, name, frames[s : s + batch_size], crop) for s in range(0, len(frames), batch_size)]
                    tensors[_key(name, crop)] = torch.cat(chunks).float().cpu()
                save_tensors(tensors, path)
            if progress is not None:
                progress(1)

    def read(self, clip: Clip, name: str, frames: Sequence[int], crop: int = 0) -> Tensor:
        """Latents (len(frames), c, h, w) of frames that are kept."""
        path, kept = self.files[_name(clip)]
        with safe_open(path, "pt") as file:
            part = file.get_slice(_key(name, crop))
            return torch.stack([part[kept.index(k)] for k in frames])

    @staticmethod
    def _names(path: Path) -> list[str]:
        if not path.exists():
            return []
        with safe_open(path, "pt") as file:
            return list(file.keys())

    @staticmethod
    def _read(path: Path, name: str) -> Tensor:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name)


def _key(name: str, crop: int) -> str:
    return f"{name}@{crop}" if crop else name


def _name(clip: Clip) -> tuple[str, str]:
    return str(clip.folder), clip.id
