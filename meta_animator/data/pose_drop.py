"""Poses that lack parts: in training some are left out, so that what a pose does not show is filled in and not cut off."""

import dataclasses

import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.clips import Clip
from meta_animator.data.conditions import CONDITIONS
from meta_animator.diffusion.randomness import rng
from meta_animator.settings import DataConfig

FACE_SHARE, HANDS_SHARE, LIMB_SHARE = 0.5, 0.35, 0.35  # how often each is left out, of the poses that lack parts
DOTS = tuple(range(kp.FACE.start, kp.FACE.stop))
EYES_AND_EARS = (kp.LEFT_EYE, kp.RIGHT_EYE, kp.LEFT_EAR, kp.RIGHT_EAR)
# What published pose films show of a head: eyes, ears and nose; the nose alone; nothing. With the share of each.
HEADS = ((DOTS, 0.5), ((*DOTS, *EYES_AND_EARS), 0.35), ((*DOTS, *EYES_AND_EARS, kp.NOSE), 0.15))
HANDS = tuple(tuple(range(hand.start, hand.stop)) for hand in (kp.LEFT_HAND, kp.RIGHT_HAND))
SIDES = (
    (kp.LEFT_ELBOW, kp.LEFT_WRIST, kp.LEFT_KNEE, kp.LEFT_ANKLE), (kp.RIGHT_ELBOW, kp.RIGHT_WRIST, kp.RIGHT_KNEE, kp.RIGHT_ANKLE),
)  # fmt: skip
FEET = tuple(range(kp.LEFT_BIG_TOE, kp.LEFT_BIG_TOE + 3)), tuple(range(kp.RIGHT_BIG_TOE, kp.RIGHT_BIG_TOE + 3))
LIMBS = tuple(
    part
    for (elbow, wrist, knee, ankle), hand, foot in zip(SIDES, HANDS, FEET, strict=True)
    for part in ((elbow, wrist, *hand), (wrist, *hand), (knee, ankle, *foot), (ankle, *foot))
)
TRIES = 32  # until something is left out that was there


@dataclasses.dataclass(frozen=True)
class PoseDrop:
    """Which parts the poses of a sample lack: a function of (seed, name) alone, so that all frames of a clip lack the same
    ones, or with `per_frame` of the frame's number and of what it shows too."""

    seed: int
    name: str
    per_frame: bool

    def apply(self, keypoints: np.ndarray, frame: int) -> np.ndarray:
        """The points (133, 3) of frame number `frame`, those of the parts with score 0."""
        random = rng(self.seed, f"pose drop {self.name}", *([frame] if self.per_frame else []))
        return drop_parts(keypoints, random) if self.per_frame else _without(keypoints, some_parts(random))


def number_of_drops(config: DataConfig) -> int:
    """How many drawings of a frame lack parts, beside the whole one."""
    return config.pose_variants if config.pose_drop else 0


def drop_of(clip: Clip, number: int, crop: int, seed: int, per_frame: bool) -> PoseDrop:
    """What the drawings number `number` >= 1 of a clip's crop lack: in each frame something else, or in all the same."""
    return PoseDrop(seed, f"{number} of {clip.id}, crop {crop}", per_frame)


def loses_parts(task: str) -> bool:
    """Whether a task's images are drawn from keypoints alone."""
    return task in CONDITIONS and CONDITIONS[task].needs == ("keypoints",)


def drop_parts(keypoints: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The points (133, 3) without face, hands or a limb, or several of them: score 0. At least one point that is seen is left
    out, where any of these parts is."""
    seen = keypoints[:, 2] >= kp.VISIBLE
    for _ in range(TRIES):
        lost = some_parts(random)
        if seen[list(lost)].any():
            break
    return _without(keypoints, lost)


def _without(keypoints: np.ndarray, lost: set[int]) -> np.ndarray:
    dropped = np.array(keypoints)
    dropped[list(lost), 2] = 0
    return dropped


def some_parts(random: np.random.Generator) -> set[int]:
    """The points of face, hands or a limb, or of several of them; never none."""
    face = hands = limb = False
    while not (face or hands or limb):
        face, hands, limb = random.random(3) < (FACE_SHARE, HANDS_SHARE, LIMB_SHARE)
    head = random.choice(len(HEADS), p=[share for _, share in HEADS])
    which, part = random.integers(4), random.integers(len(LIMBS))
    lost = set(HEADS[head][0]) if face else set()
    if hands:
        lost.update(*(HANDS if which > 1 else HANDS[which : which + 1]))
    if limb:
        lost.update(LIMBS[part])
    return lost
