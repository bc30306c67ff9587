"""Framing: one fixed camera per clip, for any picture size."""

import dataclasses

import numpy as np

from meta_animator.data.puppets.identity import Identity
from meta_animator.data.puppets.skeleton import rotation
from meta_animator.data.puppets.streams import stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """How a person is framed, whatever the person's height.

    head_fraction  height of the head as a fraction of the frame's height
    headroom       free space above the head, fraction of the frame's height
    distance       from the camera to the person, metres
    pitch          downward tilt, radians
    offset         the person's place to the right of the middle, metres
    """

    head_fraction: float
    headroom: float
    distance: float
    pitch: float
    offset: float


@dataclasses.dataclass(frozen=True)
class View:
    """A camera at `position` (3,) with axes `frame` (3, 3: right, up, back) and focal length in pixels."""

    position: np.ndarray
    frame: np.ndarray
    focal: float
    size: tuple[int, int]

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in camera coordinates: x right, y up, z backwards, metres."""
        return (points - self.position) @ self.frame

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera points (..., 3) to pixels (..., 2) as (x, y), pixel centres at integers."""
        height, width = self.size
        scale = self.focal / -points[..., 2:]
        return points[..., :2] * scale * (1, -1) + ((width - 1) / 2, (height - 1) / 2)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Camera-frame directions (..., 3), z = -1, through pixels (..., 2): the ray's t is the depth in metres."""
        height, width = self.size
        flat = (pixels - ((width - 1) / 2, (height - 1) / 2)) / (self.focal, -self.focal)
        return np.concatenate([flat, np.full_like(flat[..., :1], -1.0)], axis=-1)

    def grid(self, oversample: int = 1) -> np.ndarray:
        """Rays (h * oversample, w * oversample, 3) through a regular grid of samples in the pixels."""
        height, width = self.size
        x = (np.arange(width * oversample) + 0.5) / oversample - 0.5
        y = (np.arange(height * oversample) + 0.5) / oversample - 0.5
        return self.rays(np.stack(np.meshgrid(x, y), axis=-1))


def make_camera(seed: int) -> Camera:
    """Draw a framing between half and full body; the face is about a sixth to a fifth of the frame's height."""
    rng = stream(seed, "camera")
    return Camera(
        head_fraction=rng.uniform(0.195, 0.275),
        headroom=rng.uniform(0.05, 0.11),
        distance=rng.uniform(2.8, 4.5),
        pitch=rng.uniform(-0.02, 0.10),
        offset=rng.normal(0.0, 0.03),
    )


def place(camera: Camera, identity: Identity, size: tuple[int, int]) -> View:
    """Put the camera before a person, for a picture of `size` = (height, width)."""
    height, _ = size
    if min(size) < 8:
        raise ValueError(f"size must be at least 8 x 8 pixels, got {size}")
    visible = identity.head_ratio * identity.height / camera.head_fraction
    middle = identity.height + visible * (camera.headroom - 0.5)
    frame = rotation("x", -camera.pitch)
    target = np.array([-camera.offset, middle, 0.0])
    return View(target + frame[:, 2] * camera.distance, frame, height * camera.distance / visible, size)
