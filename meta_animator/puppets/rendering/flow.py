"""Where each pixel of a puppet's clip was in the frame before: every primitive's texture coordinates move with the body."""

import itertools

import numpy as np

from meta_animator.puppets.rendering.body import Primitive, build
from meta_animator.puppets.rendering.camera import View, make_camera, place
from meta_animator.puppets.rendering.identity import make_identity
from meta_animator.puppets.rendering.motion import make_motion
from meta_animator.puppets.rendering.render import cast_grid, in_camera
from meta_animator.puppets.rendering.skeleton import solve

NEAR = 0.02  # metres within which two depths are those of one point


def backward_flow(
    identity_seed: int, motion_seed: int, num_frames: int, fps: float = 12, size: tuple[int, int] = (128, 128),
    motion_kind: str | None = None, camera_seed: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Of the person in a clip of `render_clip` with these arguments and a camera that stands still: float32
    (num_frames - 1, h, w, 2), for each pixel of the frames from the second on how far (x, y) away, in pixels, the same point
    of the body was in the frame before. NaN off the person, and where that point was hidden or outside of the picture."""
    identity, motion = make_identity(identity_seed), make_motion(motion_seed, motion_kind)
    view = place(make_camera(motion_seed if camera_seed is None else camera_seed), identity, size)
    bodies = [build(identity, solve(identity, motion.pose(index / fps))) for index in range(num_frames)]
    clip = [[in_camera(primitive, view) for primitive in body] for body in bodies]
    return np.stack([_step(before, now, view) for before, now in itertools.pairwise(clip)])


def _step(before: list[Primitive], now: list[Primitive], view: View) -> np.ndarray:
    """The flow (h, w, 2) from the frame `now` to the one `before`."""
    height, width = view.size
    rays = view.grid()
    hits, old = cast_grid(now, view, rays, 1), cast_grid(before, view, rays, 1)
    flow = np.full((height * width, 2), np.nan, np.float32)
    for number in np.unique(hits.index[hits.index >= 0]):
        here = np.flatnonzero(hits.index == number)
        points = rays.reshape(-1, 3)[here] * hits.depth[here, None]
        points = before[number].origin + now[number].local(points) @ before[number].frame.T
        pixels = view.project(points)
        column, row = np.rint(pixels).astype(int).T
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        nearest = np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1)
        seen &= (old.index[nearest] == number) & (np.abs(old.depth[nearest] + points[:, 2]) < NEAR + _slant(old.depth, nearest))
        x, y = here % width, here // width
        flow[here[seen]] = (pixels - np.stack([x, y], 1))[seen]
    return flow.reshape(height, width, 2)


def _slant(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """How much depth changes between a pixel's neighbours in the row, in metres; 0 where they miss the body."""
    left, right = depth[np.maximum(pixels - 1, 0)], depth[np.minimum(pixels + 1, len(depth) - 1)]
    met = np.isfinite(left) & np.isfinite(right)
    return np.abs(np.subtract(left, right, out=np.zeros(len(pixels)), where=met))
