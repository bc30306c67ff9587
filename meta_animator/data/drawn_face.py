"""The 68 points of a face from its white dots: a face of average shape is laid over them, turned and bent until it fits.

Units of the shape: the distance of the eyes' middles; x to image-right, y down, z to the camera, from between the eyes.
"""

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

POINTS = 68
STEP = 1e-3  # of each value, by which slopes are found
TRY_STEPS, FIRST_STEPS, STEPS = 5, 12, 6  # of the fits to a first face, of the best two, of one after another
CLOSE = 3.0  # radii of a dot, half the widest gap between dots of one face
DOT = 0.75  # radius of a face's dots, in half widths of limbs, at most
FEW = 60  # white pixels of a frame without a face
TURNS = (0.0, 0.45, -0.45)  # radians in the picture from which a first fit begins
WELL = 0.5  # radii of a dot, by which a fit is off at most or others are tried
SMALLEST = 5.0  # distance of the eyes in radii of a dot, below which dots run into each other
LEAST_MET = 0.85  # share of a face's dots that points lie on, and of points that lie on dots
STIFF = np.array([0, 0, 0, 0, 0.5, 1, 0.5, 1, 1, 3, 1, 1])  # how much turning, tilting and bending is held back


def _average() -> np.ndarray:
    """(68, 3)"""
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([-1.1 * np.cos(turn), 0.02 + 1.62 * np.sin(turn) ** 0.95, 0.75 * np.sin(turn) - 0.9], -1)
    brow = [(-0.98, -0.27, -0.2), (-0.82, -0.41, -0.05), (-0.62, -0.45, 0.03), (-0.42, -0.41, 0.08), (-0.22, -0.33, 0.1)]
    nose = [(0, -0.02, 0.12), (0, 0.22, 0.26), (0, 0.45, 0.4), (0, 0.66, 0.5)]
    base = [(-0.26, 0.78, 0.2), (-0.13, 0.82, 0.27), (0, 0.85, 0.3), (0.13, 0.82, 0.27), (0.26, 0.78, 0.2)]
    eye = [(-0.7, 0.02, -0.12), (-0.58, -0.06, -0.06), (-0.42, -0.06, -0.05)]
    eye += [(-0.3, 0.03, -0.08), (-0.42, 0.06, -0.06), (-0.58, 0.06, -0.07)]
    lips = [(-0.4, 1.12, 0.1), (-0.25, 1.06, 0.2), (-0.1, 1.03, 0.26), (0, 1.05, 0.27), (0.1, 1.03, 0.26), (0.25, 1.06, 0.2)]
    lips += [(0.4, 1.12, 0.1), (0.25, 1.21, 0.2), (0.1, 1.25, 0.24), (0, 1.26, 0.25), (-0.1, 1.25, 0.24), (-0.25, 1.21, 0.2)]
    inner = [(-0.34, 1.12, 0.12), (-0.12, 1.1, 0.22), (0, 1.11, 0.23), (0.12, 1.1, 0.22), (0.34, 1.12, 0.12)]
    inner += [(0.12, 1.15, 0.22), (0, 1.16, 0.23), (-0.12, 1.15, 0.22)]
    other = [(-x, y, z) for x, y, z in (eye[k] for k in (3, 2, 1, 0, 5, 4))]
    return np.array([*jaw, *brow, *[(-x, y, z) for x, y, z in brow[::-1]], *nose, *base, *eye, *other, *lips, *inner])


AVERAGE = _average()


def _bends() -> np.ndarray:
    """(6, 68, 3): mouth open, mouth wide, brows up, eyes open, long face, broad jaw."""
    bends = np.zeros((6, POINTS, 3))
    bends[0, [*range(55, 60), 65, 66, 67], 1] = 0.3
    bends[0, 4:13, 1] = 0.3 * np.sin(np.linspace(0, np.pi, 9))
    bends[1, 48:, 0] = 0.5 * AVERAGE[48:, 0]
    bends[2, 17:27, 1] = -0.2
    bends[3, [37, 38, 43, 44], 1], bends[3, [40, 41, 46, 47], 1] = -0.08, 0.08
    bends[4, :, 1] = 0.3 * AVERAGE[:, 1]
    bends[5, :17, 0] = 0.2 * AVERAGE[:17, 0]
    return bends


BENDS = _bends()


def _pose(values: np.ndarray) -> np.ndarray:
    """(..., 68, 2) pixels of values (..., 12): cosine and sine of the turn times the size, x, y, turn to the side, tilt, and six
    bends."""
    shape = AVERAGE + np.tensordot(values[..., 6:], BENDS, 1)
    x, y, z = np.moveaxis(shape, -1, 0)
    a, b, left, top, side, tilt = (values[..., k, None] for k in range(6))
    x, z = np.cos(side) * x + np.sin(side) * z, np.cos(side) * z - np.sin(side) * x
    y = np.cos(tilt) * y + np.sin(tilt) * z
    return np.stack([a * x - b * y + left, b * x + a * y + top], -1)


class FaceReader:
    """Reads the faces of a film whose limbs have half the `width` in pixels, one after another; each fit begins with the face
    before it."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.before: np.ndarray | None = None

    def read(self, white: np.ndarray) -> np.ndarray:
        """68 points (68, 3) from a mask (h, w) of white pixels; score 0 where no dot is met, all 0 where no face fits."""
        found = _cores(white, self.width)
        if found is None:
            self.before = None
            return np.zeros((POINTS, 3))
        cores, radius = found
        starts = [self.before] if self.before is not None else []
        fits = [_fit(start, cores, STEPS) for start in starts]
        if not fits or fits[0][1] > WELL * radius:
            tries = sorted((_fit(start, cores, TRY_STEPS) for start in _starts(cores)), key=lambda fit: fit[1])
            fits += [_fit(begun, cores, FIRST_STEPS) for begun, _ in tries[:2]]
        values, off = min(fits, key=lambda fit: fit[1])
        self.before = values
        if np.hypot(*values[:2]) < SMALLEST * radius or off > 2 * WELL * radius:
            return np.zeros((POINTS, 3))
        points, met = _onto_dots(_pose(values), cores, radius)
        covered = cKDTree(points).query(cores)[0] < radius + 1
        if met.mean() < LEAST_MET - 0.25 or covered.mean() < LEAST_MET:
            return np.zeros((POINTS, 3))
        return np.concatenate([points, met[:, None]], 1)


def _cores(white: np.ndarray, width: float) -> tuple[np.ndarray, float] | None:
    """(pixels (n, 2) in the middle of white dots, a dot's radius); None without a face."""
    rows, columns = np.nonzero(white)
    if len(rows) < FEW:
        return None
    y, x = rows.min(), columns.min()
    part = np.pad(white[y : rows.max() + 1, x : columns.max() + 1], 1).astype(np.uint8)
    depth = cv2.distanceTransform(part, cv2.DIST_L2, 5)
    count, labels = cv2.connectedComponents(part, connectivity=8)
    deepest = np.zeros(count)
    deepest[1:] = ndimage.maximum(depth[part > 0], labels[part > 0], np.arange(1, count))
    whole = deepest[deepest > 0.6 * np.percentile(depth[part > 0], 90)]
    radius = min(float(np.median(whole)), DOT * width + 0.5)
    cores = depth > max(0.9, 0.72 * radius)
    cores[cores] = deepest[labels[cores]] > 0.6 * radius
    reach = 2 * int(CLOSE * radius) + 1
    groups, group, facts, _ = cv2.connectedComponentsWithStats(cv2.dilate(part * cores, np.ones((reach, reach), np.uint8)))
    if groups < 2:
        return None
    inner_y, inner_x = np.nonzero(cores & (group == 1 + facts[1:, cv2.CC_STAT_AREA].argmax()))
    if len(inner_x) < 20:
        return None
    return np.stack([inner_x + x - 1, inner_y + y - 1], -1).astype(np.float64), radius


def _starts(cores: np.ndarray) -> list[np.ndarray]:
    low, high = np.percentile(cores, [1, 99], axis=0)
    size = max(float((high - low)[0]) / 2.2, float((high - low)[1]) / 2.2, 2.0)
    middle = (low + high) / 2
    starts = []
    for turn in TURNS:
        for side in (0.0, 0.7, -0.7) if turn == 0 else (0.0,):
            values = np.zeros(12)
            values[:2] = size * np.cos(turn), size * np.sin(turn)
            values[4] = side
            values[2:4] = middle
            centre = (_pose(values).min(0) + _pose(values).max(0)) / 2
            values[2:4] += middle - centre
            starts.append(values)
    return starts


def _fit(values: np.ndarray, cores: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """(the pose that lies closest to the dots, how far it is off in pixels), by Gauss-Newton with the nearest pairs."""
    values = values.copy()
    tree, some = cKDTree(cores), cores[:: max(1, len(cores) // 200)]
    off = np.inf
    for _ in range(steps):
        points = _pose(values)
        far, nearest = tree.query(points)
        back, owner = cKDTree(points).query(some)
        off = float((np.minimum(far, 20).mean() + np.minimum(back, 20).mean()) / 2)
        slopes = np.moveaxis(_pose(values + STEP * np.eye(12)) - points, 0, -1) / STEP  # (68, 2, 12)
        wrong = np.concatenate([points - cores[nearest], points[owner] - some]).ravel()
        slope = np.concatenate([slopes, slopes[owner]]).reshape(-1, 12)
        weight = np.repeat(np.concatenate([_trust(far), _trust(back) * POINTS / len(some)]), 2)
        size = np.hypot(*values[:2])
        held = STIFF * size**2 * 0.3
        held[6:] *= 0.2
        left = (slope * weight[:, None]).T @ slope + np.diag(held + 1e-6)
        values -= np.linalg.solve(left, slope.T @ (weight * wrong) + held * values)
        values[4:6] = np.clip(values[4:6], -1.2, 1.2)
        values[6:] = np.clip(values[6:], -1.5, 1.5)
        if not 1 < np.hypot(*values[:2]) < 1e4:
            return values, np.inf
    return values, off


def _trust(far: np.ndarray) -> np.ndarray:
    """Far pairs count less."""
    scale = max(3.0, 2 * float(np.median(far)))
    return 1 / (1 + (far / scale) ** 2)


def _onto_dots(points: np.ndarray, cores: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(points (68, 2) moved to the middle of the dots that they lie on, which of them lie on one)."""
    tree = cKDTree(cores)
    far, _ = tree.query(points)
    moved = points.copy()
    reach = 1.2 * radius + 0.5
    owner = cKDTree(points).query(cores)[1]
    for k in np.nonzero(far < 2 * reach)[0]:
        own = cores[owner == k]
        if len(own):
            near = own[np.hypot(*(own - points[k]).T) < 2 * reach]
            if len(near):
                middle = near.mean(0)
                step = middle - points[k]
                moved[k] = points[k] + step * min(1.0, reach / max(float(np.hypot(*step)), 1e-6))
    return moved, tree.query(moved)[0] < reach
