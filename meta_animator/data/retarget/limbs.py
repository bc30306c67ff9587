"""The driving person's motion on the reference person's limbs.

A turned limb looks shorter by the same factor whoever it belongs to. So every drawn bone is kept in direction and multiplied by
one factor for the whole clip: the reference's full length over the driver's.
"""

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget.comparing import DIFFERENT, Factors, compare
from meta_animator.data.retarget.faces import carry_face
from meta_animator.data.retarget.heads import Head, find_centres, find_head
from meta_animator.data.retarget.placing import place
from meta_animator.data.retarget.proportions import NECK, PELVIS, Proportions, measure, with_middles
from meta_animator.data.retarget.smoothing import smooth_points
from meta_animator.errors import UserError

# (point, the point it hangs on, their bone), from the neck outwards
TREE = (
    (kp.LEFT_SHOULDER, NECK, "shoulders"), (kp.RIGHT_SHOULDER, NECK, "shoulders"), (PELVIS, NECK, "trunk"),
    (kp.NOSE, NECK, "neck"), (kp.LEFT_ELBOW, kp.LEFT_SHOULDER, "upper_arm"),
    (kp.RIGHT_ELBOW, kp.RIGHT_SHOULDER, "upper_arm"), (kp.LEFT_WRIST, kp.LEFT_ELBOW, "forearm"),
    (kp.RIGHT_WRIST, kp.RIGHT_ELBOW, "forearm"), (kp.LEFT_HIP, PELVIS, "hips"), (kp.RIGHT_HIP, PELVIS, "hips"),
    (kp.LEFT_KNEE, kp.LEFT_HIP, "thigh"), (kp.RIGHT_KNEE, kp.RIGHT_HIP, "thigh"),
    (kp.LEFT_ANKLE, kp.LEFT_KNEE, "shin"), (kp.RIGHT_ANKLE, kp.RIGHT_KNEE, "shin"),
)  # fmt: skip
HALF = ("shoulders", "hips")  # bones that are measured from side to side, and hang on their middle
# What moves along with a point, in one piece: the ears and eyes, the feet, the hands.
PIECES = (
    (kp.NOSE, slice(1, 5), "head"), (kp.LEFT_ANKLE, slice(17, 20), "foot"), (kp.RIGHT_ANKLE, slice(20, 23), "foot"),
    (kp.LEFT_WRIST, kp.LEFT_HAND, "hand"), (kp.RIGHT_WRIST, kp.RIGHT_HAND, "hand"),
)  # fmt: skip
LONGER_NECK = 1.4  # times the whole person's factor that a neck's may be
GROWTH = 1.05  # no bone is drawn longer than this times the reference's, but for somebody who comes nearer as a whole
NEARS_S = 1.0


def fit_limbs(
    driving: np.ndarray, reference: np.ndarray, photos: np.ndarray | None = None, fps: float = 24.0, smooth: float = 1.0,
    threshold: float = kp.VISIBLE,
) -> np.ndarray:  # fmt: skip
    """The driving points (f, 133, 3) on the limbs and face of the reference person: float32 (f, 133, 3), in the pixels of
    `reference`, without jitter.

    reference   (133, 3), the person in the picture to come, in size and place; points outside of it may be seen too
    photos      (n, 133, 3), more pictures of that person, each at a scale of its own, that tell lengths and face; or None
    smooth      how much counts as jitter, see `smooth_points`; 0: nothing is smoothed or filled in

    A point that is not seen stays so, but for short gaps. Raises UserError where the reference shows nobody, or the driving
    nobody to measure.
    """
    driving, reference = _finite(driving), _finite(reference)
    if not kp.sees_person(reference, threshold):
        raise UserError("the reference photo shows no person (all scores below 0.3); take another, or set sample.fit_pose=no")
    pictures = reference[None] if photos is None else np.concatenate([reference[None], _finite(photos)])
    theirs = measure(pictures, threshold)
    own = measure(driving, threshold)
    if not np.isfinite(own.heights).any():
        raise UserError("the driving motion shows too little of a person (no two limbs, and no head over shoulders)")
    if not np.isfinite(theirs.heights[0]):
        raise UserError("the reference photo shows too little of the person (no two limbs, and no head over shoulders)")
    shows = np.flatnonzero(kp.sees_person(driving, threshold))
    span = slice(shows[0], shows[-1] + 1)
    fitted = driving.copy()
    fitted[span] = _fit(fitted[span], own, theirs, reference, pictures, fps, smooth, threshold)
    return fitted


def _finite(points: np.ndarray) -> np.ndarray:
    """Points float32 (..., 133, 3), those without a place (NaN) scored 0 at zero."""
    known = np.isfinite(points).all(-1, keepdims=True)
    return np.where(known, points, 0).astype(np.float32)


def _fit(
    points: np.ndarray, own: Proportions, theirs: Proportions, reference: np.ndarray, pictures: np.ndarray, fps: float,
    smooth: float, threshold: float,
) -> np.ndarray:  # fmt: skip
    """As `fit_limbs`, of frames whose first and last show the person."""
    if smooth > 0:
        points = smooth_points(points, fps, own.height, smooth, threshold)
    own = measure(points, threshold)
    factors = compare(points, own, pictures, theirs, threshold)
    head = find_head(points, own.heights / own.height, threshold)
    their_head = find_head(pictures, theirs.heights / theirs.heights[0], threshold)
    old = complete(points, threshold)
    if head is not None and their_head is not None:
        _compare_heads(points, own, head, pictures, theirs, their_head, factors, threshold)
    new = _limbs(old, factors, own, nearness(own, fps))
    if head is not None and their_head is not None:
        _hang_head(points, old, new, head, their_head, factors, threshold)
    fitted = points.copy()
    fitted[:, :17, :2] = new[:, :17]
    for root, piece, bone in PIECES:
        fitted[:, piece, :2] = new[:, root, None] + factors.bones[bone] * (points[:, piece, :2] - old[:, root, None])
    carry_face(points, fitted, head, their_head, factors.bones["head"], threshold)
    fitted[..., :2] += place(points, old, new, reference, factors, fps, threshold)[:, None]
    return fitted


def complete(points: np.ndarray, threshold: float = kp.VISIBLE) -> np.ndarray:
    """Where body joints are, or may be, in every frame: float64 (f, 135, 2), with the middles of shoulders and hips.

    A joint that is not seen is where it hung last on its neighbour and will hang next; one that is never seen lies on it.
    Points that do not belong to TREE are as they are, NaN where not seen.
    """
    seen = with_middles(points, threshold)
    whole = seen.copy()
    whole[:, NECK] = _necks(seen)
    for joint, parent, _ in TREE:
        hang = _over_time(seen[:, joint] - whole[:, parent])
        whole[:, joint] = whole[:, parent] + (0 if hang is None else hang)
    return whole


def _necks(seen: np.ndarray) -> np.ndarray:
    """The neck in every frame (f, 2): between the shoulders, else as far from a neighbour as it was before and will be."""
    neck = seen[:, NECK].copy()
    for neighbour in (kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER, PELVIS, kp.NOSE, kp.LEFT_HIP, kp.RIGHT_HIP):
        away = _over_time(neck - seen[:, neighbour])
        if away is None and not np.isfinite(neck).any():
            away = np.zeros(2)
        if away is not None:
            neck = np.where(np.isfinite(neck), neck, seen[:, neighbour] + away)
    filled = _over_time(neck)
    if filled is None:
        raise UserError("the driving motion shows neither shoulders nor hips nor a nose to hang a skeleton on")
    return filled


def _over_time(values: np.ndarray) -> np.ndarray | None:
    """Values (f, 2) with NaNs filled in along the time, None where there is nothing else."""
    known = np.isfinite(values).all(1)
    if not known.any():
        return None
    frames = np.arange(len(values))
    return np.stack([np.interp(frames, frames[known], values[known, axis]) for axis in range(2)], axis=1)


def _compare_heads(
    points: np.ndarray, own: Proportions, head: Head, pictures: np.ndarray, theirs: Proportions, their_head: Head,
    factors: Factors, threshold: float,
) -> None:  # fmt: skip
    """Set the factors of head and neck by the heads in three dimensions, which turn and nod without getting smaller."""
    factors.bones["head"] = _bounded(their_head.unit / head.unit, factors.body, DIFFERENT)
    lengths = [
        np.linalg.norm(find_centres(clip, one, threshold)[0] - with_middles(clip, threshold)[:, NECK], axis=1) / which.heights
        for clip, one, which in ((points, head, own), (pictures, their_head, theirs))
    ]
    if all(np.isfinite(length).any() for length in lengths):
        here, there = (float(np.nanmedian(length)) for length in lengths)
        factors.bones["neck"] = _bounded(there / here * theirs.heights[0] / own.height, factors.body, LONGER_NECK)


def _bounded(factor: float, body: float, most: float) -> float:
    return float(np.clip(factor, body / most, body * most))


def _hang_head(
    points: np.ndarray, old: np.ndarray, new: np.ndarray, head: Head, their_head: Head, factors: Factors, threshold: float
) -> None:
    """Put the nose in `new` so that the neck holds the head between the ears, wherever the face looks."""
    centres, cameras = find_centres(points, head, threshold)
    hang = factors.bones["neck"] * (centres - old[:, NECK])
    nose = new[:, NECK] + hang - (cameras @ their_head.centre) * (their_head.unit / head.unit)
    new[:, kp.NOSE] = np.where(np.isfinite(nose), nose, new[:, kp.NOSE])


def nearness(own: Proportions, fps: float) -> np.ndarray:
    """(f,) how many times as large as usual somebody is who comes near the camera, at least 1: medians over a second."""
    reach = max(1, round(NEARS_S * fps / 2))
    heights = np.where(np.isfinite(own.heights), own.heights, own.height)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(heights, reach, mode="edge"), 2 * reach + 1)
    return np.maximum(1, np.median(around, axis=-1) / own.height)


def _limbs(old: np.ndarray, factors: Factors, own: Proportions, near: np.ndarray) -> np.ndarray:
    """The joints (f, 135, 2) with the neck at zero."""
    new = np.zeros_like(old)
    for joint, parent, bone in TREE:
        step = old[:, joint] - old[:, parent]
        if bone != "neck":
            longest = GROWTH * own.share(bone) * own.height * near * (0.5 if bone in HALF else 1.0)
            step = step * np.minimum(1, longest / np.maximum(np.linalg.norm(step, axis=1), 1e-9))[:, None]
        new[:, joint] = new[:, parent] + factors.bones[bone] * step
    return new
