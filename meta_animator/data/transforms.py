"""Cutting, scaling and mirroring a frame together with everything that is known of it.

Boxes are (x0, y0, x1, y1) in pixel edges: (0, 0, width, height) is the whole picture; pixel x covers x ... x + 1 of
them. Keypoints count from pixel centres, so a point at x = 0 lies half a pixel inside the edge.
"""

import dataclasses

import numpy as np
from PIL import Image

from meta_animator.data.keypoints import flip_keypoints
from meta_animator.data.layers import PARTS, Layers

Box = tuple[float, float, float, float]


def crop_box(
    width: int,
    height: int,
    target_h: int,
    target_w: int,
    center: tuple[float, float] | None = None,
    zoom: float = 1.0,
) -> Box:
    """The largest box of the target's shape inside a width x height picture, made smaller by `zoom` >= 1.

    It lies around `center` (x, y in pixels; by default the middle) as nearly as the picture's edges allow.
    """
    if min(width, height, target_h, target_w) < 1 or not zoom >= 1:
        raise ValueError(f"sizes must be positive and zoom at least 1, got {width}x{height}, zoom {zoom}")
    scale = min(width / target_w, height / target_h) / zoom
    box_w, box_h = min(float(width), target_w * scale), min(float(height), target_h * scale)
    x, y = center or (width / 2, height / 2)
    x0 = min(max(x - box_w / 2, 0.0), width - box_w)
    y0 = min(max(y - box_h / 2, 0.0), height - box_h)
    return x0, y0, x0 + box_w, y0 + box_h


def crop_and_resize(layers: Layers, box: Box, size: tuple[int, int]) -> Layers:
    """Everything inside `box`, at size (height, width).

    Colours, depth and normals are averaged (anti-aliased), labels and the mask take the nearest pixel; normals keep
    length 1; keypoints move along, and those outside get score 0. Raises ValueError for a box outside the picture.
    """
    height, width = layers.size
    if not (-1e-3 <= box[0] < box[2] <= width + 1e-3 and -1e-3 <= box[1] < box[3] <= height + 1e-3):
        raise ValueError(f"box {box} is not inside a picture of {width}x{height}")
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    if size == layers.size and box == (0.0, 0.0, float(width), float(height)):
        return layers
    return Layers(
        frame=_smooth(layers.frame, box, size),
        mask=None if layers.mask is None else _nearest(layers.mask.astype(np.uint8), box, size) > 0,
        keypoints=None if layers.keypoints is None else move_keypoints(layers.keypoints, box, size),
        depth=_resize_depth(layers, box, size),
        normal=_resize_normal(layers.normal, box, size),
        parts=None if layers.parts is None else _nearest(layers.parts, box, size),
    )


def move_keypoints(keypoints: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Where points (..., 3) of the picture lie once `box` is shown at size (height, width); score 0 if outside."""
    x0, y0, x1, y1 = box
    scale = np.array([size[1] / (x1 - x0), size[0] / (y1 - y0)])
    moved = np.array(keypoints, np.float32)
    moved[..., :2] = (keypoints[..., :2] + 0.5 - [x0, y0]) * scale - 0.5
    inside = ((moved[..., :2] >= -0.5) & (moved[..., :2] < [size[1] - 0.5, size[0] - 0.5])).all(-1)
    moved[..., 2] *= inside
    return moved


def flip_layers(layers: Layers) -> Layers:
    """The picture mirrored left to right: left and right points and body parts change names, normals their x."""

    def mirror(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else np.ascontiguousarray(array[:, ::-1])

    mirrored = {field.name: mirror(getattr(layers, field.name)) for field in dataclasses.fields(layers)}
    if layers.normal is not None:
        mirrored["normal"] = mirrored["normal"] * np.array([-1, 1, 1], np.float32)
    if layers.keypoints is not None:
        mirrored["keypoints"] = flip_keypoints(layers.keypoints, layers.size[1])
    if layers.parts is not None:
        mirrored["parts"] = _other_side()[mirrored["parts"]]
    return Layers(**mirrored)


def _smooth(array: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Antialiased linear scaling of uint8 (h, w, 3) or float32 (h, w)."""
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.array(picture.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


def _nearest(array: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.array(picture.resize(size[::-1], Image.Resampling.NEAREST, box=box))


def _resize_depth(layers: Layers, box: Box, size: tuple[int, int]) -> np.ndarray | None:
    """The average over the person's pixels only: the background's 0 must not bleed into the outline."""
    if layers.depth is None:
        return None
    person = layers.depth > 0 if layers.mask is None else layers.mask
    total = _smooth(np.where(person, layers.depth, 0).astype(np.float32), box, size)
    weight = _smooth(person.astype(np.float32), box, size)
    inside = (_nearest(person.astype(np.uint8), box, size) > 0) & (weight > 1e-4)
    return np.where(inside, np.clip(total / np.maximum(weight, 1e-4), 0, 1), 0).astype(np.float32)


def _resize_normal(normal: np.ndarray | None, box: Box, size: tuple[int, int]) -> np.ndarray | None:
    if normal is None:
        return None
    surface = _nearest((np.abs(normal).max(-1) > 0).astype(np.uint8), box, size) > 0
    scaled = np.stack([_smooth(normal[..., i].astype(np.float32), box, size) for i in range(3)], -1)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return np.where(surface[..., None] & (length > 1e-6), scaled / np.maximum(length, 1e-6), 0).astype(np.float32)


def _other_side() -> np.ndarray:
    swap = {"left": "right", "right": "left"}
    names = ["_".join(swap.get(word, word) for word in part.split("_")) for part in PARTS]
    return np.array([PARTS.index(name) for name in names], np.uint8)
