"""An animation against the truth: the metrics file and the overview picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meta_animator.config import load_config
from meta_animator.data.clips import Clip
from meta_animator.data.crops import person_crop
from meta_animator.data.keypoints import face_box, five_points
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import find_clip, read_manifest
from meta_animator.data.samples import to_pixels
from meta_animator.data.transforms import crop_and_resize
from meta_animator.errors import UserError
from meta_animator.evaluation.baselines import first_photo, nearest_photo
from meta_animator.evaluation.frames import frame_metrics
from meta_animator.evaluation.leaks import seen_before
from meta_animator.evaluation.report import overview
from meta_animator.json_files import read_json
from meta_animator.media.images import IMAGE_SUFFIXES, read_image


def evaluate_animation(
    generated: Path, truth: Path, reference: Path, *, clip: str = "", shuffled: Path | None = None,
    seconds: Mapping[str, float] | None = None, face: Any = None, lpips: Any = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """(metrics, overview picture) of a sampled run.

    generated   folder of stage 3, with frames/ and driving/
    truth       data set with a clip of the same person in the driving motion
    reference   data set of the reference photos: its frames that are not held out
    clip        which clip of `truth`; empty: its first
    shuffled    folder of stage 3 driven by the poses in a wrong order: a control that must score worse
    seconds     wall-clock seconds per stage, for the record
    lpips       a `perceptual.Lpips`: adds `lpips`
    face        a face embedder, best another one than training used: adds `face_distance`, see there

    Frames whose truth is nearly one of the photos are left out of all numbers and of the picture (see `leaks`).

    Raises UserError where folders are missing or lengths differ.
    """
    frames = read_frames(generated / "frames")
    size, margin = frames.shape[1:3], margin_of(generated)
    truths = load_layers([find_clip(truth, clip)], size, margin)
    numbers = driving_frames(generated, len(frames))
    if len(truths) <= max(numbers):
        raise UserError(f"{generated}: has {max(numbers) + 1} frames, the truth {truth} only {len(truths)}")
    truths = [truths[number] for number in numbers]
    photos = load_layers([photo for photo in read_manifest(reference) if photo.split == "train"], size, margin)
    if not photos:
        raise UserError(f"{reference}: holds no reference photo (all are held out)")
    pictures, poses = _stack(photos, "frame"), [photo.keypoints for photo in photos]
    kept = _not_seen_before(truths, pictures, truth)
    truths = [truths[k] for k in kept]
    target_poses = [layers.keypoints for layers in truths]

    def score(candidate: np.ndarray) -> dict[str, Any]:
        masks = None if truths[0].mask is None else _stack(truths, "mask")
        boxes = [None if k is None else face_box(k) for k in target_poses]
        row = frame_metrics(candidate, _stack(truths, "frame"), masks, boxes, lpips=lpips)
        return row if face is None else row | {"face_distance": face_distance(face, candidate, truths)}

    metrics: dict[str, Any] = {**score(frames[kept]), "seconds": dict(seconds or {})}
    metrics["baselines"] = {"first_photo": score(first_photo(pictures, len(kept)))}
    if all(pose is not None for pose in [*poses, *target_poses]):
        metrics["baselines"]["nearest_photo"] = score(nearest_photo(pictures, np.stack(poses), np.stack(target_poses)))
    metrics["controls"] = {}
    if shuffled is not None:
        control = read_frames(shuffled / "frames")
        if len(control) < len(frames) or control.shape[1:] != frames.shape[1:]:
            raise UserError(f"{shuffled}: its frames are not as many and as large as those of {generated}; sample it likewise")
        metrics["controls"]["shuffled_pose"] = score(control[: len(frames)][kept])
    driving = read_frames(generated / "driving")
    return metrics, overview(list(pictures), list(driving[kept]), list(frames[kept]), list(_stack(truths, "frame")))


def _not_seen_before(truths: Sequence[Layers], photos: np.ndarray, truth: Path) -> list[int]:
    """Numbers of the true frames that no photo shows; a note says of the others. Raises UserError where none is left."""
    known = seen_before(_stack(truths, "frame"), photos)
    if known.all():
        raise UserError(f"{truth}: every frame is (nearly) a reference photo; nothing is left to compare")
    if known.any():
        print(f"note: {int(known.sum())} of {len(truths)} true frames are (nearly) reference photos, and left out of all numbers")
    return np.flatnonzero(~known).tolist()


@torch.no_grad()
def face_distance(embedder: Any, frames: np.ndarray, truths: Sequence[Layers]) -> float | None:
    """Mean of 1 - cosine between the embeddings of generated and true faces, in [0, 2], both cut out at the true landmarks;
    over the frames whose face is seen and large enough, None where there are none."""
    distances = []
    for frame, truth in zip(frames, truths, strict=True):
        points = None if truth.keypoints is None else five_points(truth.keypoints)
        if points is None or not bool(embedder.large_enough(torch.from_numpy(points)[None])):
            continue
        landmarks = torch.from_numpy(points)[None].expand(2, -1, -1)
        ours, theirs = embedder.embed_face(torch.stack([to_pixels(frame), to_pixels(truth.frame)]), landmarks)
        distances.append(float(1 - ours @ theirs))
    return float(np.mean(distances)) if distances else None


def driving_frames(generated: Path, count: int) -> list[int]:
    """Numbers of the driving's frames that the `count` frames of a sampled run belong to; one by one, where it does not say."""
    record = generated / "times.json"
    numbers = read_json(record).get("driving_frames") if record.is_file() else list(range(count))
    if not isinstance(numbers, list) or len(numbers) != count or not all(isinstance(k, int) and k >= 0 for k in numbers):
        raise UserError(f"{record}: does not fit the {count} frames beside it; sample again")
    return numbers


def read_frames(folder: Path) -> np.ndarray:
    """uint8 (n, h, w, 3) of a folder of numbered pictures. Raises UserError where there are none."""
    return np.stack([read_image(file) for file in frame_files(folder)])


def frame_files(folder: Path) -> list[Path]:
    """The pictures that `read_frames` reads, in order."""
    files = sorted(p for p in folder.glob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder}: no frames; run stage 3 first")
    return files


def margin_of(generated: Path) -> float:
    """`data.person_margin` of the run that a folder of stage 3 comes from; 0 where it does not say."""
    path = generated / "config.yaml"
    return load_config(path, []).data.person_margin if path.is_file() else 0.0


def load_layers(clips: list[Clip], size: tuple[int, int], margin: float = 0.0) -> list[Layers]:
    """All frames of the clips with what is known of them, at size (height, width), cropped as stage 3 crops them."""
    shown = []
    for clip in clips:
        box = person_crop(clip, size, margin)
        shown += [crop_and_resize(clip.load(k), box, size) for k in range(clip.num_frames)]
    return shown


def _stack(layers: list[Layers], name: str) -> np.ndarray:
    return np.stack([getattr(frame, name) for frame in layers])
