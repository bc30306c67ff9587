"""By what a driver's bones are to be multiplied to become those of another person.

Two witnesses are heard. Pictures in which both stand alike compare bone with bone, however far these are turned out of the
picture plane. And full lengths, see `proportions`, compare what was never seen alike.
"""

import dataclasses

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget.proportions import BONES, NAMES, Proportions, with_middles

# Points by which poses are alike; arms are left out, since they move most.
FRAME_POINTS = [
    kp.NOSE, kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER, kp.LEFT_HIP, kp.RIGHT_HIP, kp.LEFT_KNEE, kp.RIGHT_KNEE, kp.LEFT_ANKLE,
    kp.RIGHT_ANKLE,
]  # fmt: skip
ALIKE = 0.1  # share of the driving frames, those most like a photo's pose, that it is compared with
UNLIKE = 0.02  # mean squared distance, in units of the pose's spread, at which a comparison counts 1/e
ASKEW = 0.35  # radians between two bones at which their comparison counts 1/e
FULL_LENGTHS, USUAL = 0.3, 0.1  # weights of the comparison of full lengths, and of no difference, beside that of a like pose
ACROSS = ("shoulders", "hips", "ears", "eyes")  # narrow from the side, which no like pose tells: their full lengths count
FULL_ACROSS = 3.0
BUILT = 0.3  # logarithm of a ratio at which it counts 1/e: such thighs are no build, they point at the camera
MOST = 3.0  # weight of all like poses together
DIFFERENT = 2.0  # no bone's factor is so many times that of the whole person
HEAD = ("ears", "eyes", "face")  # what tells a head's size


@dataclasses.dataclass(frozen=True)
class Factors:
    """bones: what the driver's are multiplied by, by name, "head" among them; body: the same for the person as a whole."""

    bones: dict[str, float]
    body: float


def compare(
    driving: np.ndarray, own: Proportions, pictures: np.ndarray, theirs: Proportions, threshold: float = kp.VISIBLE
) -> Factors:
    """The factors from the driver in `driving` (f, 133, 3) to the person in `pictures` (n, 133, 3), each at its own scale, with
    proportions `own` and `theirs`. They make the driver as large as the person in the first picture."""
    here, there = with_middles(driving, threshold), with_middles(pictures, threshold)
    found = [_compare_alike(here, picture) for picture in there]
    full = np.array([theirs.share(name) / own.share(name) if own.saw(name) and theirs.saw(name) else np.nan for name in NAMES])
    heights = theirs.heights[0] / own.height
    weight, size = (found[0][0], np.log(found[0][1])) if found[0] is not None else (0.0, 0.0)
    body = float(np.exp((weight * size + FULL_LENGTHS * np.log(heights)) / (weight + FULL_LENGTHS)))
    full *= heights / body
    total, weights = np.zeros(len(NAMES)), np.full(len(NAMES), 1e-9)
    for weight, size, bones, agree in (one for one in found if one is not None):
        log = np.where(np.isfinite(bones), np.log(np.where(np.isfinite(bones), bones, 1) / size), 0)
        share = weight * np.where(np.isfinite(bones), agree * np.exp(-((log / BUILT) ** 2)), 0)
        total, weights = total + share * log, weights + share
    mean, weights = total / weights, np.minimum(weights, MOST)
    known = np.isfinite(full)
    weighs = np.where(known, [FULL_ACROSS if name in ACROSS else FULL_LENGTHS for name in NAMES], 0)
    mean = (weights * mean + weighs * np.log(np.where(known, full, 1))) / (weights + weighs + USUAL)
    bones = {name: body * float(np.clip(np.exp(m), 1 / DIFFERENT, DIFFERENT)) for name, m in zip(NAMES, mean, strict=True)}
    heads = [k for k in map(NAMES.index, HEAD) if known[k]]
    bones["head"] = bones[NAMES[max(heads, key=lambda k: weights[k])]] if heads else body
    return Factors(bones, body)


def _compare_alike(driving: np.ndarray, picture: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray] | None:
    """(weight, ratio of the sizes, ratios of the bones (n,), weights of these (n,)) of a picture (135, 2) over the driving frames
    (f, 135, 2) whose pose is most like it; None where too few points are seen in both."""
    points, target = driving[:, FRAME_POINTS], picture[FRAME_POINTS]
    both = np.isfinite(points).all(-1) & np.isfinite(target).all(-1)
    enough = np.flatnonzero(both.sum(1) >= max(3, 0.7 * both.sum(1).max(initial=0)))
    if len(enough) == 0:
        return None
    both = both[enough, :, None]
    here, size = _centred(points[enough], both)
    there, other = _centred(np.broadcast_to(target, here.shape), both)
    if min(size.min(), other.min()) < 1e-3:
        return None
    unlike = np.square(here / size[:, None, None] - there / other[:, None, None]).sum((1, 2)) / both.sum((1, 2))
    alike = np.argsort(unlike, kind="stable")[: max(1, round(ALIKE * len(unlike)))]
    ratios, agree = zip(*(_bone_ratios(driving[enough[alike]], picture, pairs) for pairs, _ in BONES.values()), strict=True)
    weight = float(np.exp(-np.median(unlike[alike]) / UNLIKE))
    return weight, float(np.median(other[alike] / size[alike])), np.array(ratios), np.array(agree)


def _centred(points: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (f, n, 2) less the mean of those in use (f, n, 1), others 0; and their spread (f,)."""
    kept = np.where(use, points, 0)
    centred = np.where(use, kept - kept.sum(1, keepdims=True) / use.sum(1, keepdims=True), 0)
    return centred, np.sqrt(np.square(centred).sum((1, 2)) / use.sum((1, 2)))


def _bone_ratios(driving: np.ndarray, picture: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> tuple[float, float]:
    """(how many times as long a bone is in `picture`, how far that counts), over both sides and the frames (f, 135, 2)."""
    logs, weights = [], []
    for a, b in pairs:
        bones, bone = driving[:, a] - driving[:, b], picture[a] - picture[b]
        lengths, length = np.linalg.norm(bones, axis=-1), np.linalg.norm(bone)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = (bones @ bone) / (lengths * length)
            weight = np.exp(-((np.arccos(np.clip(cosine, -1, 1)) / ASKEW) ** 2))
            log = np.log(length / lengths)
        use = np.isfinite(log) & np.isfinite(weight)
        logs.append(log[use])
        weights.append(weight[use])
    log, weight = np.concatenate(logs), np.concatenate(weights)
    if not weight.sum() > 1e-6:
        return np.nan, 0.0
    return float(np.exp((log * weight).sum() / weight.sum())), float(weight.mean())
