"""A hand as a solid: tapered tubes between its 21 points, melted together and lit from the upper left.

It stands in for a rendered hand mesh: where the mesh's points are known in the picture, its shape nearly is too.
"""

import itertools

import numpy as np

from meta_animator.data.keypoints import HAND_FINGERS

COLOUR = np.array([226.0, 226.0, 232.0])  # RGB of a surface that faces the light
LIGHT = np.array([-0.35, -0.45, 0.82]) / np.linalg.norm([-0.35, -0.45, 0.82])  # x right, y down, z to the camera
AMBIENT = 0.35

# Radii as a share of the palm's length (wrist to knuckles).
WRIST_RADIUS, PALM_RADIUS, WEB_RADIUS = 0.22, 0.17, 0.13
FINGER_RADII = (0.125, 0.115, 0.10, 0.085)  # at the four points of a finger, from the palm outwards
THUMB_RADII = (0.17, 0.145, 0.12, 0.095)
OVERSAMPLING = 2


def shade_hand(image: np.ndarray, hand: np.ndarray, threshold: float) -> None:
    """Draws the hand (21, 3) x, y, score into `image`, uint8 (h, w, 3) RGB, in place; points under `threshold` are
    left out, and a hand with fewer than two seen bones is not drawn."""
    tubes = _tubes(hand, threshold)
    if len(tubes) < 2:
        return
    x0, y0, x1, y1 = _window(tubes, image.shape)
    if x1 <= x0 or y1 <= y0:
        return
    step = 1 / OVERSAMPLING
    xs, ys = np.meshgrid(np.arange(x0 - 0.5 + step / 2, x1 - 0.5, step), np.arange(y0 - 0.5 + step / 2, y1 - 0.5, step))
    height = _surface(tubes, xs, ys)
    inside = height > 0
    down, right = np.gradient(height, step)
    normals = np.stack([-right, -down, np.ones_like(height)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    light = AMBIENT + (1 - AMBIENT) * np.clip(normals @ LIGHT, 0, 1)
    shaded = light[..., None] * COLOUR * inside[..., None]
    colour, cover = _average(shaded), _average(inside[..., None].astype(np.float64))
    patch = image[y0:y1, x0:x1]
    patch[:] = np.clip(np.rint(patch * (1 - cover) + colour), 0, 255).astype(np.uint8)


def _tubes(hand: np.ndarray, threshold: float) -> np.ndarray:
    """(n, 6): x, y, radius of both ends of every tube whose ends are seen; radii in pixels."""
    points = np.asarray(hand, np.float64)
    seen = np.isfinite(points).all(1) & (points[:, 2] >= threshold)
    knuckles = [finger[0] for finger in HAND_FINGERS[1:]]
    palm = _palm_length(points, seen)
    spans = [(0, knuckle, WRIST_RADIUS, PALM_RADIUS) for knuckle in knuckles]
    spans += [(a, b, WEB_RADIUS, WEB_RADIUS) for a, b in itertools.pairwise(knuckles)]
    spans += [(0, 1, WRIST_RADIUS, THUMB_RADII[0]), (1, knuckles[0], WEB_RADIUS, WEB_RADIUS)]
    for finger, radii in zip(HAND_FINGERS, (THUMB_RADII, *[FINGER_RADII] * 4), strict=True):
        joints = list(zip(finger, radii, strict=True))
        spans += [(a, b, ra, rb) for (a, ra), (b, rb) in itertools.pairwise(joints)]
    tubes = [(*points[a, :2], ra * palm, *points[b, :2], rb * palm) for a, b, ra, rb in spans if seen[a] and seen[b]]
    return np.array(tubes).reshape(-1, 6)


def _palm_length(points: np.ndarray, seen: np.ndarray) -> float:
    """In pixels: the longest of several measures, since foreshortening makes each of them only shorter."""
    measures = [(0, finger[0], 1.0) for finger in HAND_FINGERS[1:]]
    measures += [(finger[0], finger[1], 2.2) for finger in HAND_FINGERS[1:]]
    lengths = [k * np.hypot(*(points[a] - points[b])[:2]) for a, b, k in measures if seen[a] and seen[b]]
    return max([1.0, *(float(length) for length in lengths)])


def _window(tubes: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    ends = np.concatenate([tubes[:, :3], tubes[:, 3:]])
    low, high = (ends[:, :2] - ends[:, 2:]).min(0) - 2, (ends[:, :2] + ends[:, 2:]).max(0) + 3
    x0, y0 = (int(max(0, value)) for value in low)
    x1, y1 = (int(min(limit, value)) for limit, value in zip((shape[1], shape[0]), high, strict=True))
    return x0, y0, x1, y1


def _surface(tubes: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Height of the rounded tubes above the picture plane in pixels, 0 outside them."""
    height = np.zeros(xs.shape)
    for ax, ay, ra, bx, by, rb in tubes:
        reach = max(ra, rb)
        columns = _between(xs[0], min(ax, bx) - reach, max(ax, bx) + reach)
        rows = _between(ys[:, 0], min(ay, by) - reach, max(ay, by) + reach)
        x, y, dx, dy = xs[rows, columns] - ax, ys[rows, columns] - ay, bx - ax, by - ay
        t = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        square = (x - t * dx) ** 2 + (y - t * dy) ** 2
        part = np.sqrt(np.maximum((ra + t * (rb - ra)) ** 2 - square, 0))
        height[rows, columns] = np.maximum(height[rows, columns], part)
    return height


def _between(places: np.ndarray, low: float, high: float) -> slice:
    """Where ascending places are in [low, high]."""
    return slice(*np.searchsorted(places, [low, high]))


def _average(values: np.ndarray) -> np.ndarray:
    rows, columns, channels = values.shape
    n = OVERSAMPLING
    return values.reshape(rows // n, n, columns // n, n, channels).mean((1, 3))
