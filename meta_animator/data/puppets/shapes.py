"""Solid shapes and their exact intersection with rays.

One family serves all: the round cone (two spheres and the cone that touches both) under an affine map. With no length
it is an ellipsoid, with equal radii a capsule, with a flattening map a torso.
"""

import dataclasses

import numpy as np


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

    def moved(self, frame: np.ndarray, origin: np.ndarray) -> "Shape":
        """The shape after p -> origin + frame @ p."""
        return Shape(origin + frame @ self.centre, frame @ self.matrix, self.length, self.r0, self.r1)

    def boxes(self) -> np.ndarray:
        """Corners (16, 3) of the boxes about both end spheres; their convex hull holds the shape."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
        half = np.linalg.norm(self.matrix, axis=1)
        end = self.centre + self.matrix[:, 1] * self.length
        return np.concatenate([self.centre + signs * half * self.r0, end + signs * half * self.r1])

    def intersect(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where origin + t rays enters and leaves: t (n,) each, (inf, -inf) where it misses.

        origin (3,) or (n, 3), outside the shape; rays (n, 3) of any length. Entry and exit are the smallest and the
        largest root on the parts of the three quadrics that bound the shape (it is convex).
        """
        inverse = np.linalg.inv(self.matrix).T
        start = (origin - self.centre) @ inverse
        ox, oy, oz = start[..., 0], start[..., 1], start[..., 2]
        dx, dy, dz = (rays @ inverse).T
        near, far = np.full(len(rays), np.inf), np.full(len(rays), -np.inf)
        flat, along = dx * dx + dz * dz, ox * dx + oz * dz
        flat_start = ox * ox + oz * oz
        quadrics = []
        slope = (self.r0 - self.r1) / self.length if self.length else 0.0
        low, high = slope * self.r0, self.length + slope * self.r1  # where the cone touches the spheres
        square = flat + dy * dy
        if self.length:
            sharp = 1.0 / (1.0 - slope * slope)
            k, m = self.r0 - slope * oy, -slope * dy
            quadrics.append((flat - sharp * m * m, along - sharp * k * m, flat_start - sharp * k * k, low, high))
            top = oy - self.length
            quadrics.append((square, along + top * dy, flat_start + top * top - self.r1**2, high, np.inf))
        bottom = low if self.length else np.inf
        quadrics.append((square, along + oy * dy, flat_start + oy * oy - self.r0**2, -np.inf, bottom))
        for a, b, c, least, most in quadrics:
            root = b * b - a * c
            hit = root > 0
            root = np.sqrt(np.where(hit, root, 0.0))
            for t in ((-b - root) / a, (-b + root) / a):
                y = oy + t * dy
                valid = hit & (y >= least) & (y <= most) & (t > 0)
                near = np.where(valid & (t < near), t, near)
                far = np.where(valid & (t > far), t, far)
        return near, far

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (n, 3) at surface points (n, 3)."""
        inverse = np.linalg.inv(self.matrix)
        local = (points - self.centre) @ inverse.T
        slope = (self.r0 - self.r1) / self.length if self.length else 0.0
        # the surface point is a sphere's: find the sphere's centre on the axis
        radius = np.hypot(local[:, 0], local[:, 2])
        axis = local[:, 1] - radius * slope / np.sqrt(1.0 - slope * slope)
        local[:, 1] -= np.clip(axis, 0.0, self.length)
        normals = local @ inverse
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
