"""Framing: one camera per clip, fixed or held by hand, for any picture size."""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.identity import Identity
from meta_animator.puppets.rendering.skeleton import rotation
from meta_animator.puppets.rendering.streams import stream

# the largest drift of a camera of motion 1: about the person, up, towards it (shares of the distance), and of its aim
DRIFTS = {"orbit": 0.09, "rise": 0.03, "dolly": 0.07, "pan": 0.018, "tilt": 0.012, "roll": 0.015}
_WAVES = (0.8, 0.2)  # shares of a slow and a quick wave in every drift


@dataclasses.dataclass(frozen=True)
class Drift:
    """A handheld camera: every drift of DRIFTS, times `motion` in [0, 1], is a sum of smooth waves drawn from `seed`."""

    seed: int
    motion: float

    def at(self, time: float) -> dict[str, float]:
        """The drifts (see DRIFTS) at `time` seconds."""
        rng, shape = stream(self.seed, "camera/drift"), (len(DRIFTS), len(_WAVES))
        periods, phases = rng.uniform((4.0, 1.4), (8.0, 2.5), shape), rng.uniform(0, 2 * np.pi, shape)
        waves = np.sin(2 * np.pi * time / periods + phases) @ _WAVES
        return {name: self.motion * most * float(wave) for (name, most), wave in zip(DRIFTS.items(), waves, strict=True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """How a person is framed, whatever the person's height.

    head_fraction  height of the head as a fraction of the frame's height
    headroom       free space above the head, fraction of the frame's height
    distance       from the camera to the person, metres
    pitch          downward tilt, radians
    offset         the person's place to the right of the middle, metres
    drift          how the camera moves; None: it stands still
    """

    head_fraction: float
    headroom: float
    distance: float
    pitch: float
    offset: float
    drift: Drift | None = None


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


def make_camera(seed: int, motion: float = 0.0) -> Camera:
    """Draw a framing between half and full body; the face is about a fifth to a quarter of the frame's height.

    `motion` in [0, 1] is how much the camera moves; the framing does not depend on it. ValueError beyond that range.
    """
    if not 0 <= motion <= 1:
        raise ValueError(f"camera motion must be in [0, 1], got {motion}")
    rng = stream(seed, "camera")
    return Camera(
        head_fraction=rng.uniform(0.235, 0.315),
        headroom=rng.uniform(0.05, 0.11),
        distance=rng.uniform(2.8, 4.5),
        pitch=rng.uniform(-0.02, 0.10),
        offset=rng.normal(0.0, 0.03),
        drift=Drift(seed, motion) if motion else None,
    )


def place(camera: Camera, identity: Identity, size: tuple[int, int], time: float = 0.0) -> View:
    """Put the camera before a person, for a picture of `size` = (height, width) at `time` seconds."""
    height, _ = size
    if min(size) < 8:
        raise ValueError(f"size must be at least 8 x 8 pixels, got {size}")
    visible = identity.head_ratio * identity.height / camera.head_fraction
    middle = identity.height + visible * (camera.headroom - 0.5)
    frame, distance = rotation("x", -camera.pitch), camera.distance
    target, focal = np.array([-camera.offset, middle, 0.0]), height * camera.distance / visible
    if camera.drift is None:
        return View(target + frame[:, 2] * distance, frame, focal, size)
    drift = camera.drift.at(time)
    about = rotation("y", drift["orbit"]) @ rotation("x", -camera.pitch - drift["rise"])
    aim = rotation("y", drift["pan"]) @ rotation("x", drift["tilt"]) @ rotation("z", drift["roll"])
    return View(target + about[:, 2] * distance * (1 + drift["dolly"]), about @ aim, focal, size)
