"""How long a person's bones are, from pictures in which limbs are turned out of the picture plane.

Turning a bone only makes it look shorter. So a bone's full length is the longest one that is seen often enough, and where
even that is shorter than any grown-up's, it is taken from body proportions.
"""

import dataclasses
import warnings

import numpy as np

from meta_animator.data import keypoints as kp

# Bone: the pairs of points between which it is measured on either side, and its usual share of a person's height. The middle
# of both shoulders is point 133, that of both hips 134.
NECK, PELVIS = kp.NUM_KEYPOINTS, kp.NUM_KEYPOINTS + 1
FACE_0, HAND_L, HAND_R = kp.FACE.start, kp.LEFT_HAND.start, kp.RIGHT_HAND.start
BONES: dict[str, tuple[tuple[tuple[int, int], ...], float]] = {
    "shoulders": (((kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER),), 0.200),
    "trunk": (((NECK, PELVIS),), 0.290),
    "upper_arm": (((kp.LEFT_SHOULDER, kp.LEFT_ELBOW), (kp.RIGHT_SHOULDER, kp.RIGHT_ELBOW)), 0.163),
    "forearm": (((kp.LEFT_ELBOW, kp.LEFT_WRIST), (kp.RIGHT_ELBOW, kp.RIGHT_WRIST)), 0.150),
    "thigh": (((kp.LEFT_HIP, kp.LEFT_KNEE), (kp.RIGHT_HIP, kp.RIGHT_KNEE)), 0.235),
    "shin": (((kp.LEFT_KNEE, kp.LEFT_ANKLE), (kp.RIGHT_KNEE, kp.RIGHT_ANKLE)), 0.235),
    "hips": (((kp.LEFT_HIP, kp.RIGHT_HIP),), 0.110),
    "neck": (((NECK, kp.NOSE),), 0.125),
    "face": (((FACE_0 + 27, FACE_0 + 8),), 0.072),
    "ears": (((kp.LEFT_EAR, kp.RIGHT_EAR),), 0.075),
    "eyes": (((kp.LEFT_EYE, kp.RIGHT_EYE),), 0.036),
    "hand": (((HAND_L, HAND_L + 9), (HAND_R, HAND_R + 9)), 0.055),
    "foot": (((kp.LEFT_ANKLE, kp.LEFT_BIG_TOE), (kp.RIGHT_ANKLE, kp.RIGHT_BIG_TOE)), 0.095),
}
NAMES = tuple(BONES)
USUAL = np.array([share for _, share in BONES.values()])
BODY_BONES = 7  # the first of BONES; the others differ more from person to person, and hardly tell a person's size
SIZED_BY = 6  # the first of BONES, whose lengths tell a person's size: the second longest, as turning only makes them shorter
FEW = 4  # of them, up to which it is the longest one
LONG = 0.9  # quantile over the pictures: long, but not the longest, which may be a slip
NEAR = 0.75  # quantile over the pictures of the person's height: upright, at the usual distance
CHAINS = (("upper_arm", "forearm"), ("thigh", "shin"))
BENT = 0.9  # share of its bones' full lengths that a chain has at least, where it is never seen stretched out
SLACK = np.where(np.arange(len(USUAL)) < BODY_BONES, 1.4, 2.0)  # how far a person's bone may differ from the usual one


@dataclasses.dataclass(frozen=True)
class Proportions:
    """shares: bone lengths (len(BONES),) as shares of the person's height, NaN where never seen; heights: the person's
    height in pixels, as if standing upright at that distance, in each picture (n,), NaN where too little is seen."""

    shares: np.ndarray
    heights: np.ndarray

    def share(self, bone: str) -> float:
        """A bone's share of the height; the usual one where it was never seen."""
        index = NAMES.index(bone)
        return float(self.shares[index]) if np.isfinite(self.shares[index]) else float(USUAL[index])

    def saw(self, bone: str) -> bool:
        return bool(np.isfinite(self.shares[NAMES.index(bone)]))

    @property
    def height(self) -> float:
        """Height in pixels at the usual distance from the camera."""
        return float(np.nanquantile(self.heights, NEAR))


def measure(keypoints: np.ndarray, threshold: float = kp.VISIBLE) -> Proportions:
    """The proportions of the one person whom pictures (n, 133, 3) show, each at its own scale. Left and right are taken
    for equally long. All NaN where no picture shows enough."""
    sides = side_lengths(keypoints, threshold)
    lengths = np.fmax(*np.moveaxis(sides, -1, 0))
    shares = np.full(len(USUAL), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nanquantile of nothing is NaN, as it should be
        for _ in range(3):
            heights = _heights(lengths, np.where(np.isfinite(shares), shares, USUAL))
            shares = _long(sides / heights[:, None, None])
            shares = np.clip(shares, USUAL / SLACK, USUAL * SLACK)
        heights = _heights(lengths, np.where(np.isfinite(shares), shares, USUAL))
    return Proportions(shares, heights)


def bone_lengths(keypoints: np.ndarray, threshold: float = kp.VISIBLE) -> np.ndarray:
    """(n, len(BONES)) pixels: of every bone the longer side; NaN where neither is seen."""
    return np.fmax(*np.moveaxis(side_lengths(keypoints, threshold), -1, 0))


def side_lengths(keypoints: np.ndarray, threshold: float = kp.VISIBLE) -> np.ndarray:
    """(n, len(BONES), 2) pixels, left and right, twice the same for bones in the middle; NaN where not seen."""
    points = with_middles(keypoints, threshold)
    first, second = (np.array([[pairs[0][end], pairs[-1][end]] for pairs, _ in BONES.values()]) for end in (0, 1))
    return np.linalg.norm(points[:, first] - points[:, second], axis=-1)


def with_middles(keypoints: np.ndarray, threshold: float = kp.VISIBLE) -> np.ndarray:
    """The points' places with NECK and PELVIS behind them: float64 (n, 135, 2), NaN where not seen."""
    seen = keypoints[..., 2:] >= threshold
    points = np.where(seen, keypoints[..., :2], np.nan).astype(np.float64)
    middles = [points[:, list(pair)].mean(1, keepdims=True) for pair in ((5, 6), (11, 12))]
    return np.concatenate([points, *middles], axis=1)


def _long(shares: np.ndarray) -> np.ndarray:
    """The full lengths (bones,) from those in the pictures (n, bones, 2), of the side that tells more. An estimator that
    puts a knee too high or too low gives both bones too long at times, but not the leg."""
    full = np.fmax(*np.nanquantile(shares, LONG, axis=0).T)
    for names in CHAINS:
        chain = [NAMES.index(name) for name in names]
        whole = np.fmax(*np.nanquantile(shares[:, chain].sum(1), LONG, axis=0)) / full[chain].sum()
        full[chain] *= np.clip(whole, BENT, 1) if np.isfinite(whole) else 1
    return full


def _heights(lengths: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(n,) pixels, from the trunk, shoulders and limbs; from neck and face where fewer than two of these are seen."""
    each = lengths / shares
    enough = np.isfinite(each[:, :SIZED_BY]).sum(1) >= 2
    head = [NAMES.index(name) for name in ("neck", "face", "ears")]
    longest = np.sort(np.nan_to_num(each[:, :SIZED_BY], nan=0.0), axis=1)[:, ::-1]
    body = np.where(np.isfinite(each[:, :SIZED_BY]).sum(1) > FEW, longest[:, 1], longest[:, 0])
    rest = np.nanmedian(np.concatenate([each[:, :SIZED_BY], each[:, head]], axis=1), axis=1)
    heights = np.where(enough, body, rest)
    return np.where(heights > 1e-3, heights, np.nan)
