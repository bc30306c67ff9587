"""Turned squares of a picture, which networks are shown: cropped from it, and their answers carried back."""

import dataclasses
import math

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Region:
    """A turned rectangle: its centre, width and height in pixels, its angle in radians, clockwise on the screen."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0

    def crop(self, image: np.ndarray, size: int, *, low: float = 0.0, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """What a network is shown: float32 (1, size, size, 3) in [low, 1] from uint8 (h, w, 3)."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(image, self._from_grid(size), (size, size), flags=flags, borderMode=border)
        return (crop.astype(np.float32) * np.float32((1 - low) / 255) + np.float32(low))[None]

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2 or more) given as shares of the region, in pixels of the picture; a third column, depth, too."""
        placed = np.array(points, np.float64)
        x, y = (points[:, 0] - 0.5) * self.width, (points[:, 1] - 0.5) * self.height
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        placed[:, 0], placed[:, 1] = self.x + cos * x - sin * y, self.y + sin * x + cos * y
        placed[:, 2:3] *= self.width
        return placed

    def shares(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the picture as shares of the region: what `place` puts there."""
        x, y = points[:, 0] - self.x, points[:, 1] - self.y
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([(cos * x + sin * y) / self.width, (cos * y - sin * x) / self.height], 1) + 0.5

    def paste(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Values (n, n) of the region at their place in a picture of `shape` (h, w); 0 around."""
        matrix = self._from_grid(len(values))
        matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
        return cv2.warpAffine(values, matrix, shape[::-1], flags=cv2.INTER_LINEAR)

    def square(self, scale: float, shift: float = 0.0) -> "Region":
        """A square `scale` times the longer side, moved downwards (in its own sense) by a share `shift` of the height."""
        side, down = scale * max(self.width, self.height), shift * self.height
        x, y = self.x - down * math.sin(self.angle), self.y + down * math.cos(self.angle)
        return Region(x, y, side, side, self.angle)

    def _from_grid(self, size: int) -> np.ndarray:
        """(2, 3): from pixel numbers of a crop to those of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        across, down = self.width / size, self.height / size
        x, y = self.place(np.zeros((1, 2)))[0]
        return np.array([[cos * across, -sin * down, x], [sin * across, cos * down, y]])


def whole_picture(image: np.ndarray) -> Region:
    """The square around a picture (h, w, 3)."""
    height, width = image.shape[:2]
    return Region(width / 2, height / 2, max(height, width), max(height, width))


def around(points: np.ndarray, angle: float) -> Region:
    """The upright box of points (n, 2), of which it is then said that it is turned by `angle`: as MediaPipe has it."""
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return Region(float(x0 + x1) / 2, float(y0 + y1) / 2, float(x1 - x0), float(y1 - y0), angle)


def upright(centre: np.ndarray, above: np.ndarray, scale: float) -> Region:
    """The square around the circle about `centre` through `above`, `scale` times as large, turned so that `above` is up."""
    side = 2 * scale * float(np.hypot(*(above - centre)))
    return Region(float(centre[0]), float(centre[1]), side, side, turn(centre, above, -math.pi / 2))


def turn(start: np.ndarray, end: np.ndarray, wanted: float = 0.0) -> float:
    """The angle in [-pi, pi) by which a region is turned in which the way from start to end has the angle `wanted`; angles
    are clockwise on the screen, 0 to the right."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0]) - wanted
    return (angle + math.pi) % (2 * math.pi) - math.pi
