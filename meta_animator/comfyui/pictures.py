"""ComfyUI's pictures, and what is seen in them: conditions drawn, poses read and fitted.

Shapes: image (n h w 3), float in [0, 1], ComfyUI's IMAGE; a list of `Layers` is a clip, a frame each.
"""

import sys
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from meta_animator.annotators.sets import AnnotatorSet
from meta_animator.data import retarget
from meta_animator.data.conditions import draw_condition, find_condition
from meta_animator.data.figures import figure_of_frame
from meta_animator.data.keypoints import NUM_KEYPOINTS, sees_person
from meta_animator.data.layers import Layers
from meta_animator.errors import UserError
from meta_animator.preparation.tracking import follow
from meta_animator.sampling.fitting import find_person

AT_ONCE = 16  # frames that annotators are shown together
FILM, PHOTOS = "film", "photos"


def to_frames(image: Tensor) -> list[np.ndarray]:
    """uint8 (h, w, 3) each; a fourth channel is left off."""
    pixels = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return list(np.ascontiguousarray(pixels))


def to_image(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).float() / 255


def read_layers(
    image: Tensor, annotators: str, kind: str = FILM, fps: float = 24.0, only: Collection[str] | None = None
) -> list[Layers]:
    """What a set of annotators (`light`, `full`, `light,mask=sam2`) tells of the main person in every frame.

    kind   "film": consecutive frames, in which one person is followed; "photos": pictures by themselves
    only   the layers that are asked for; all that the set gives

    Where a layer cannot be told in a frame it is empty there, which is said. Raises UserError where nobody is seen at all, or
    the set does not give a layer.
    """
    frames, chosen = to_frames(image), AnnotatorSet(annotators)
    if missing := [layer for layer in only or () if layer not in chosen.layers]:
        raise UserError(f"{missing[0]}: {chosen.missing[missing[0]]}")
    for note in chosen.licence_notes:
        print(f"note: {note}")
    progress = _progress(2 * len(frames))
    people, told = [], []
    for some in _some(frames):
        people += chosen.detect(some)
        progress(len(some))
    followed = follow(people, fps)[0] if kind == FILM else [follow([found])[0][0] for found in people]
    for some, who in zip(_some(frames), _some(followed), strict=True):
        told += chosen.annotate(some, who, None, only)
        progress(len(some))
    asked = [layer for layer in chosen.layers if only is None or layer in only]
    for layer in asked:
        without = sum(layer not in answer for answer in told)
        if without == len(told):
            raise UserError(f"image: nobody whose {layer} can be told in any of the {len(told)} frames")
        if without:
            print(f"note: {layer} cannot be told in {without} of {len(told)} frames, and is empty there")
    return [
        Layers(frame=frame, **{layer: answer.get(layer, _empty(layer, frame)) for layer in asked})
        for frame, answer in zip(frames, told, strict=True)
    ]


def _some(values: Sequence) -> list[Sequence]:
    return [values[k : k + AT_ONCE] for k in range(0, len(values), AT_ONCE)]


def _progress(total: int) -> Callable[[int], None]:
    """ComfyUI's bar, called with what was done; it also ends a node that was cancelled. Outside of ComfyUI nobody is told."""
    if "comfy" not in sys.modules:
        return lambda done: None
    from comfy.utils import ProgressBar

    return ProgressBar(total).update


def _empty(layer: str, frame: np.ndarray) -> np.ndarray:
    """Nobody there."""
    size = frame.shape[:2]
    return {
        "keypoints": lambda: np.zeros((NUM_KEYPOINTS, 3), np.float32), "mask": lambda: np.zeros(size, bool),
        "depth": lambda: np.zeros(size, np.float32), "normal": lambda: np.zeros((*size, 3), np.float32),
        "parts": lambda: np.zeros(size, np.uint8),
    }[layer]()  # fmt: skip


def draw(
    task: str, image: Tensor | None, layers: Sequence[Layers] | None, annotators: str = "light", fps: float = 24.0
) -> Tensor:  # fmt: skip
    """The condition picture of a task for every frame: of known `layers`, else of what annotators see in `image`, whom tasks
    that need nothing but the frame do not ask. Raises UserError without either."""
    needs = find_condition(task).needs
    if layers is None and image is None:
        raise UserError("connect image, or layers; neither is there to draw from")
    if layers is None and needs == ("frame",):
        layers = [Layers(frame=frame) for frame in to_frames(image)]
    elif layers is None:
        layers = read_layers(image, annotators, fps=fps, only=[layer for layer in needs if layer != "frame"])
    return to_image([draw_condition(task, one) for one in layers])


def fit(
    motion: Sequence[Layers], person: Sequence[Layers], width: int, height: int, how: str = "limbs", smooth: float = 1.0,
    fps: float = 24.0,
) -> list[Layers]:  # fmt: skip
    """The motion's keypoints on the person's body, in a picture of `width` x `height` that shows the first of the person's photos
    as stage 3 crops it; nothing else is known of these frames.

    how     "limbs": bone by bone; "whole": one scale and one shift
    smooth  how much counts as jitter; 0 keeps it
    """
    own = _keypoints(motion, "motion")
    photos = _keypoints(person, "person")
    seen = np.flatnonzero(sees_person(photos))
    if not len(seen):
        raise UserError(f"person: no person in any of the {len(photos)} photos (all scores below 0.3)")
    first = person[seen[0]]
    found = find_person(first, figure_of_frame(first), (height, width), photos=photos)
    if how == "limbs":
        fitted = retarget.fit_limbs(own, found.points, found.photos, fps, smooth)
    else:
        fitted = retarget.fit_keypoints(own, found.points)
    blank = np.zeros((height, width, 3), np.uint8)
    return [Layers(frame=blank, keypoints=points) for points in fitted.astype(np.float32)]


def _keypoints(layers: Sequence[Layers], what: str) -> np.ndarray:
    if any(one.keypoints is None for one in layers):
        raise UserError(f"{what}: has no keypoints; read it with annotators that give them")
    return np.stack([one.keypoints for one in layers])
