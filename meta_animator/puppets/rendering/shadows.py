"""Cast shadows: where the body keeps the scene's one distant light from itself, from the floor and from a wall."""

import dataclasses

import cv2
import numpy as np

from meta_animator.puppets.rendering.body import Primitive
from meta_animator.puppets.rendering.camera import View

_LIFT = 0.004  # metres that a ray starts above its surface, so that no surface shades itself by rounding
_NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def blocked(primitives: list[Primitive], light: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether (n,) a primitive lies between points (n, 3) and the far light in the unit direction `light` (3,).

    All in camera coordinates, as everywhere in this file. A primitive only meets the points that may lie behind it.
    """
    frame = _light_frame(light)
    points = points @ frame
    dark = np.zeros(len(points), dtype=bool)
    for primitive in primitives:
        shape = primitive.shape.moved(frame.T, np.zeros(3))
        corners = shape.boxes()
        (left, low, _), (right, high, top) = corners.min(axis=0), corners.max(axis=0)
        x, y, z = points.T
        met = np.flatnonzero((x > left) & (x < right) & (y > low) & (y < high) & (z < top) & ~dark)
        if len(met):
            turned = dataclasses.replace(primitive, shape=shape, frame=frame.T @ primitive.frame, origin=primitive.origin @ frame)
            dark[met] = _stops(turned, points[met])
    return dark


def lit(primitives: list[Primitive], light: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether (n,) the light reaches surface points (n, 3) with unit normals (n, 3)."""
    result = normals @ light > 0
    facing = np.flatnonzero(result)
    result[facing] = ~blocked(primitives, light, points[facing] + _LIFT * normals[facing])
    return result


def soften(lit: np.ndarray, depth: np.ndarray, fine_depth: np.ndarray) -> np.ndarray:
    """The share of light (n,) in [0, 1] at each finite sample of `fine_depth` (h * o, w * o), metres.

    It is the mean of `lit` (h, w) over the 3 x 3 pixels about the sample, nearer ones first, and only those whose
    `depth` (h, w) tells the same surface: soft edges of shadows, sharp edges of limbs. A sample without any is lit.
    """
    oversample = len(fine_depth) // len(depth)
    rows, columns = np.nonzero(np.isfinite(fine_depth))
    own = fine_depth[rows, columns]
    y, x = rows // oversample, columns // oversample
    off_y, off_x = ((k % oversample + 0.5) / oversample - 0.5 for k in (rows, columns))
    light, depth = np.pad(lit.astype(float), 1), np.pad(depth, 1, constant_values=np.inf)
    total, share = np.full(len(own), 1e-6), np.full(len(own), 1e-6)
    for down, right in _NEIGHBOURS:
        same = np.abs(depth[y + 1 + down, x + 1 + right] - own) < 0.03
        weight = same * np.exp(-((down - off_y) ** 2 + (right - off_x) ** 2) / 0.8)
        total += weight
        share += weight * light[y + 1 + down, x + 1 + right]
    return share / total


def on_backdrop(primitives: list[Primitive], light: np.ndarray, view: View, points: np.ndarray, oversample: int) -> np.ndarray:
    """How much of the light is missing, (h, w) in [0, 1], at the scene's world points (h, w, 3); inf: no surface, 0.

    Every `oversample`-th point is asked, the rest is smooth between them.
    """
    coarse = points[::oversample, ::oversample]
    there = np.isfinite(coarse[..., 0])
    dark = np.zeros(there.shape)
    dark[there] = blocked(primitives, light, view.to_camera(coarse[there]))
    dark = cv2.GaussianBlur(dark, (0, 0), max(len(dark) / 140, 0.6))
    return cv2.resize(dark, points.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _light_frame(light: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) whose last column is `light`."""
    side = np.cross(np.eye(3)[int(np.argmin(np.abs(light)))], light)
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(light, side), light], axis=1)


def _stops(primitive: Primitive, points: np.ndarray) -> np.ndarray:
    """Whether (n,) rays from points (n, 3) along z meet the primitive; a point inside a closed shape is in the dark."""
    rays = np.broadcast_to((0.0, 0.0, 1.0), points.shape)
    leave = primitive.shape.leave(points, rays)
    if primitive.keep is None:
        return np.isfinite(leave) & (leave > 0)
    stopped = np.zeros(len(points), dtype=bool)
    for t in (leave, primitive.shape.enter(points, rays)):
        met = np.flatnonzero(np.isfinite(t) & (t > 0))
        stopped[met] |= primitive.keep(primitive.local(points[met] + rays[met] * t[met, None]))
    return stopped
