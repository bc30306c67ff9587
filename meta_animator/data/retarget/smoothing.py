"""Estimated points made steady, looking ahead as much as back, so that nothing lags: slips are dropped, short gaps bridged and
jitter is averaged away, while fast motion keeps its extremes."""

import numpy as np

from meta_animator.data import keypoints as kp

GAP_S = 0.3  # gaps up to here are bridged
REACH_S = 0.13  # seconds to either side that a point is averaged over
SLIP = 35.0  # person's heights per second squared: nobody moves so far aside and back between two frames
LEAST_SLIP = 0.03  # heights
MOST_JITTER = 0.01  # heights: standard deviation of what may still be jitter
EXCESS = 1.5  # times the jitter's energy, from which on a deviation is motion
LOW = 0.2  # quantile of the fourth differences in which the jitter is read: the quiet moments
SIDES = {
    "arms": ((5, 6), (7, 8), (9, 10)),
    "legs": ((11, 12), (13, 14), (15, 16), (17, 20), (18, 21), (19, 22)),
    "hands": tuple(zip(range(91, 112), range(112, 133), strict=True)),
}  # pairs that an estimator takes for each other together


def smooth_points(
    points: np.ndarray, fps: float, height: float, strength: float = 1.0, threshold: float = kp.VISIBLE
) -> np.ndarray:
    """Points (f, n, 3) of one person, `height` pixels tall, made steady: float32 (f, n, 3).

    Sides that are swapped in a single frame are swapped back, single frames that lie far off are taken for gaps, gaps of at
    most 0.3 s are bridged (with the lower score of their ends), longer ones stay open. Then jitter is averaged away by local
    parabolas, weighted by the scores; `strength` is how much counts as jitter, 0 keeps it.
    """
    steady = unswap(points, height, threshold)
    steady[..., 2] = np.where(_slips(steady, fps, height, threshold), 0, steady[..., 2])
    steady = fill_gaps(steady, int(GAP_S * fps + 1e-6), threshold)
    return _without_jitter(steady, round(REACH_S * fps), height, strength, threshold)


def unswap(points: np.ndarray, height: float, threshold: float = kp.VISIBLE) -> np.ndarray:
    """The points (f, n, 3) with left and right put right in single frames where they have changed places: float32."""
    mended = np.array(points, np.float32)
    if len(points) < 3 or points.shape[1] < kp.NUM_KEYPOINTS:
        return mended
    seen = points[..., 2] >= threshold
    for pairs in SIDES.values():
        order = np.array(pairs)
        own, other = order.T.ravel(), order[:, ::-1].T.ravel()
        use = (seen[:-2, own] & seen[1:-1, own] & seen[1:-1, other] & seen[2:, own])[..., None]
        between = (points[:-2, own, :2] + points[2:, own, :2]) / 2
        count = np.maximum(use.sum((1, 2)), 1)
        kept, swapped = (
            (np.linalg.norm((points[1:-1, which, :2] - between) * use, axis=-1).sum(1) / count) for which in (own, other)
        )
        turn = 1 + np.flatnonzero((kept > LEAST_SLIP * height) & (swapped < 0.3 * kept))
        mended[np.ix_(turn, own)] = points[np.ix_(turn, other)]
    return mended


def fill_gaps(points: np.ndarray, longest: int, threshold: float = kp.VISIBLE) -> np.ndarray:
    """The points (f, n, 3) with runs of up to `longest` unseen frames between seen ones filled in linearly."""
    filled = np.array(points, np.float32)
    seen = points[..., 2] >= threshold
    frames = np.arange(len(points))
    before = np.maximum.accumulate(np.where(seen, frames[:, None], -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frames[:, None], len(points))[::-1], axis=0)[::-1]
    inside = ~seen & (before >= 0) & (after < len(points)) & (after - before - 1 <= longest)
    frame, which = np.nonzero(inside)
    first, last = before[frame, which], after[frame, which]
    share = ((frame - first) / (last - first))[:, None]
    start, end = points[first, which], points[last, which]
    filled[frame, which, :2] = (1 - share) * start[:, :2] + share * end[:, :2]
    filled[frame, which, 2] = np.minimum(start[:, 2], end[:, 2])
    return filled


def _slips(points: np.ndarray, fps: float, height: float, threshold: float) -> np.ndarray:
    """bool (f, n): far off the straight way from the frame before to the frame after, which lie close together."""
    slips = np.zeros(points.shape[:2], bool)
    if len(points) < 3:
        return slips
    seen = points[..., 2] >= threshold
    before, now, after = (points[k : len(points) - 2 + k, :, :2].astype(np.float64) for k in range(3))
    off = np.linalg.norm(now - (before + after) / 2, axis=-1)
    way = np.linalg.norm(after - before, axis=-1)
    far = off > 2 * way + max(LEAST_SLIP, SLIP / fps**2) * height
    slips[1:-1] = far & seen[:-2] & seen[1:-1] & seen[2:]
    return slips


def _without_jitter(points: np.ndarray, reach: int, height: float, strength: float, threshold: float) -> np.ndarray:
    if reach < 2 or strength <= 0 or len(points) < 2 * reach + 1:
        return points
    places = points[..., :2].astype(np.float64)
    weight = np.where(points[..., 2] >= threshold, points[..., 2], 0.0).astype(np.float64)
    fitted, enough = _local_parabola(places, weight, reach)
    off = np.where(enough[..., None], places - fitted, 0)
    energy = _mean_around((off**2).sum(-1), weight > 0, reach)
    jitter = np.minimum(_jitter(places, weight), MOST_JITTER * height)
    keep = np.clip(1 - EXCESS * strength * 2 * jitter**2 / np.maximum(energy, 1e-12), 0, 1)
    steady = points.copy()
    steady[..., :2] = np.where(enough[..., None], places - (1 - keep[..., None]) * off, places)
    return steady


def _local_parabola(places: np.ndarray, weight: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(value in the middle (f, n, 2) of the parabolas fitted around each frame, whether enough is seen for one (f, n))."""
    powers, target = np.zeros((*weight.shape, 5)), np.zeros((*weight.shape, 3, 2))
    sides = np.zeros((2, *weight.shape), int)
    weighted = places * (weight > 0)[..., None]
    for step in range(-reach, reach + 1):
        near, at = (1 - (abs(step) / (reach + 1)) ** 3) ** 3, step / reach  # tricube
        share = near * _shifted(weight, step)
        powers += share[..., None] * at ** np.arange(5)
        target += (share[..., None] * _shifted(weighted, step))[..., None, :] * (at ** np.arange(3))[:, None]
        if step:
            sides[int(step > 0)] += share > 0
    enough = (weight > 0) & (sides.min(0) >= min(2, reach))
    normal = np.where(enough[..., None, None], powers[..., np.add.outer(range(3), range(3))], np.eye(3))
    return np.linalg.solve(normal, np.where(enough[..., None, None], target, 0))[..., 0, :], enough


def _shifted(array: np.ndarray, step: int) -> np.ndarray:
    """What lies `step` frames later than each frame of (f, ...); zeros outside."""
    shifted = np.zeros_like(array)
    if abs(step) < len(array):
        shifted[max(0, -step) : len(array) - max(0, step)] = array[max(0, step) : len(array) - max(0, -step)]
    return shifted


def _mean_around(values: np.ndarray, seen: np.ndarray, reach: int) -> np.ndarray:
    steps = range(-reach, reach + 1)
    total, count = (sum(_shifted(array, step) for step in steps) for array in (values * seen, seen.astype(np.float64)))
    return total / np.maximum(count, 1)


def _jitter(places: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Standard deviation (n,) of each point's jitter per axis in pixels, from fourth differences, which motion hardly has."""
    fourths = np.linalg.norm(np.diff(places, n=4, axis=0), axis=-1)
    seen = np.lib.stride_tricks.sliding_window_view(weight > 0, 5, axis=0).all(-1)
    found = np.array([np.quantile(d[s], LOW) if s.sum() >= 4 else 0.0 for d, s in zip(fourths.T, seen.T, strict=True)])
    return found / np.sqrt(-2 * np.log(1 - LOW)) / np.sqrt(70)  # of a Rayleigh distribution; 70 = 1 + 16 + 36 + 16 + 1
