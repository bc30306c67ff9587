"""Solid shapes and their exact intersection with rays.

One family serves all: the round cone (two spheres and the cone that touches both) under an affine map. With no length
it is an ellipsoid, with equal radii a capsule, with a flattening map a torso.
"""

import dataclasses
import functools
import itertools

import numpy as np

_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


@dataclasses.dataclass(frozen=True)
class Shape:
    """Points centre + matrix @ l, l in the round cone from 0 (radius r0) to (0, length, 0) (radius r1).

    `centre` (3,) and `matrix` (3, 3) in metres; `length`, `r0`, `r1` in the units that `matrix` maps to metres.
    """

    centre: np.ndarray
    matrix: np.ndarray
    length: float
    r0: float
    r1: float

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.matrix)

    @property
    def _slope(self) -> float:
        """Sine of the cone's half opening angle, positive where it narrows upwards."""
        return (self.r0 - self.r1) / self.length if self.length else 0.0

    def moved(self, frame: np.ndarray, origin: np.ndarray) -> "Shape":
        """The shape after p -> origin + frame @ p."""
        return Shape(origin + frame @ self.centre, frame @ self.matrix, self.length, self.r0, self.r1)

    def boxes(self) -> np.ndarray:
        """Corners (16, 3) of the boxes about both end spheres; their convex hull holds the shape."""
        half = np.linalg.norm(self.matrix, axis=1)
        end = self.centre + self.matrix[:, 1] * self.length
        return np.concatenate([self.centre + _CORNERS * half * self.r0, end + _CORNERS * half * self.r1])

    def enter(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """The t (n,) where origin + t rays enters the shape, inf where it misses.

        origin (3,) or (n, 3), outside the shape; rays (n, 3) of any length.
        """
        return self._roots(origin, rays, -1)

    def leave(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """The t (n,) where origin + t rays leaves the shape, inf where it misses; arguments as for `enter`."""
        return self._roots(origin, rays, 1)

    def _roots(self, origin: np.ndarray, rays: np.ndarray, sign: int) -> np.ndarray:
        """Each bounding quadric is a t^2 + 2 b t + c = 0; the shape is convex, so that its root (-b -+ sqrt)/a on the
        part of the axis that this quadric bounds is the entry (-) or the exit (+)."""
        start, rays = (origin - self.centre) @ self._inverse.T, rays @ self._inverse.T
        ox, oy, oz = start[..., 0], start[..., 1], start[..., 2]
        dx, dy, dz = rays[:, 0], rays[:, 1], rays[:, 2]
        found = np.full(len(rays), np.inf)
        flat, along, flat_start = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz
        square, slope = flat + dy * dy, self._slope
        low, high = slope * self.r0, self.length + slope * self.r1  # where the cone touches the spheres
        quadrics = [(square, along + oy * dy, flat_start + oy * oy - self.r0**2, -np.inf, low)]
        if self.length:
            sharp, k, m, top = 1.0 / (1.0 - slope * slope), self.r0 - slope * oy, -slope * dy, oy - self.length
            quadrics.append((flat - sharp * m * m, along - sharp * k * m, flat_start - sharp * k * k, low, high))
            quadrics.append((square, along + top * dy, flat_start + top * top - self.r1**2, high, np.inf))
        else:
            quadrics[0] = (*quadrics[0][:4], np.inf)
        for a, b, c, least, most in quadrics:
            root = b * b - a * c
            met = np.flatnonzero(root > 0)
            t = (sign * np.sqrt(root[met]) - b[met]) / a[met]
            y = (oy if oy.ndim == 0 else oy[met]) + t * dy[met]
            valid = (y >= least) & (y <= most)
            found[met[valid]] = t[valid]
        return found

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (n, 3) at surface points (n, 3)."""
        local, slope = (points - self.centre) @ self._inverse.T, self._slope
        # the surface point is a sphere's: find the sphere's centre on the axis
        radius = np.hypot(local[:, 0], local[:, 2])
        axis = local[:, 1] - radius * slope / np.sqrt(1.0 - slope * slope)
        local[:, 1] -= np.clip(axis, 0.0, self.length)
        normals = local @ self._inverse
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def ellipsoid(centre: np.ndarray, radii: tuple[float, float, float], frame: np.ndarray | None = None) -> Shape:
    """An ellipsoid with half axes `radii` along the columns of `frame` (default: the world's axes)."""
    frame = np.eye(3) if frame is None else frame
    return Shape(np.asarray(centre, dtype=float), frame * radii, 0.0, 1.0, 1.0)


def round_cone(
    start: np.ndarray, end: np.ndarray, r0: float, r1: float, frame: np.ndarray | None = None,
    flatten: tuple[float, float] = (1.0, 1.0),
) -> Shape:  # fmt: skip
    """A round cone from `start` (radius r0) to `end` (radius r1).

    With `frame`, radii are scaled by flatten[0] along the axis' end caps and flatten[1] along frame's z axis.
    """
    start, axis = np.asarray(start, dtype=float), np.asarray(end, dtype=float) - start
    length = float(np.linalg.norm(axis))
    y = axis / length
    z = frame[:, 2] if frame is not None else np.eye(3)[int(np.argmin(np.abs(y)))]
    z = z - y * (z @ y)
    z /= np.linalg.norm(z)
    matrix = np.stack([np.cross(y, z), y * flatten[0], z * flatten[1]], axis=1)
    return Shape(start, matrix, length / flatten[0], r0, r1)
