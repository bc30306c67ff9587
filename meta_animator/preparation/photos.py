"""Photos of one person as a set: which are nearly the same, and what the set lacks."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from meta_animator.data.figures import mask_box
from meta_animator.data.keypoints import BODY, LEFT_ANKLE, LEFT_KNEE, RIGHT_ANKLE, RIGHT_KNEE, VISIBLE, person_box
from meta_animator.preparation.quality import VIEWS, measure
from meta_animator.preparation.views import inside

ALIKE = "nearly the same as another photo"

ENOUGH = 5  # photos
SMALL_FACE = 64  # pixels
HASH = 8  # the perceptual hash has HASH * HASH bits
SAME_PERSON = 16  # bits in which the hashes of the person's part differ, where the pose is the same as well
SAME_PICTURE = 4  # bits of the whole picture's, where no pose is known
SAME_POSE = 0.03  # mean distance of the body's points, in sides of the box around it
MARGIN = 0.1  # around the person
LEGS = [LEFT_KNEE, RIGHT_KNEE, LEFT_ANKLE, RIGHT_ANKLE]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What is remembered of a photo.

    facts  what `quality.measure` says of it
    bits   bool (64,), a perceptual hash of the person's part of it, or of the whole where nobody knows the person
    pose   (17, 2), the body's points in the box around it, NaN where not seen; None without keypoints
    legs   whether knees or ankles are in the picture
    """

    name: str
    facts: Mapping[str, float]
    bits: np.ndarray
    pose: np.ndarray | None
    legs: bool


def look_at(
    name: str, frame: np.ndarray, layers: Mapping[str, np.ndarray], facts: Mapping[str, float] | None = None
) -> Look:
    """Remembers a photo uint8 (h, w, 3) with its layers. facts: what `quality.measure` has said of it already."""
    import imagehash

    points, mask = layers.get("keypoints"), layers.get("mask")
    box = person_box(points, margin=MARGIN) if points is not None else mask_box(mask) if mask is not None else None
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (0, 0, width, height) if box is None else box
    part = frame[max(0, int(y0)) : max(1, int(min(height, y1))), max(0, int(x0)) : max(1, int(min(width, x1)))]
    return Look(
        name=name,
        facts=measure(frame, layers) if facts is None else facts,
        bits=imagehash.phash(Image.fromarray(part if part.size else frame), hash_size=HASH).hash.ravel(),
        pose=None if points is None or box is None else _pose(points, person_box(points, margin=0.0)),
        legs=points is not None and bool(inside(points, (height, width))[LEGS].any()),
    )


def repeats(looks: Sequence[Look]) -> list[int | None]:
    """For each photo the number of the one that it nearly repeats, or None. Of those that are alike the sharpest is not told,
    among equals the first."""
    order = sorted(range(len(looks)), key=lambda k: (-_sharpness(looks[k]), k))
    repeated: list[int | None] = [None] * len(looks)
    kept: list[int] = []
    for k in order:
        repeated[k] = next((other for other in kept if are_alike(looks[k], looks[other])), None)
        if repeated[k] is None:
            kept.append(k)
    return repeated


def are_alike(a: Look, b: Look) -> bool:
    """Whether nothing new is to be learned from one where there is the other."""
    bits = int((a.bits != b.bits).sum())
    if a.pose is None or b.pose is None:
        return a.pose is b.pose and bits <= SAME_PICTURE
    apart = np.hypot(*(a.pose - b.pose).T)
    known = np.isfinite(apart)
    if (np.isfinite(a.pose) != np.isfinite(b.pose)).any(1).sum() > 2 or known.sum() < 3:
        return False
    return bits <= SAME_PERSON and float(apart[known].mean()) <= SAME_POSE


def advice(looks: Sequence[Look]) -> list[str]:
    """What to know before training on these photos of one person, a line each; none for a good set."""
    if not looks:
        return []
    lines = []
    if len(looks) < ENOUGH:
        photos = "one photo is" if len(looks) == 1 else f"{len(looks)} photos are"
        lines.append(f"{photos} little to learn from: {ENOUGH} or more, from several sides and in several poses, do better")
    alike = [(a.name, b.name) for a, b in itertools.combinations(looks, 2) if are_alike(a, b)]
    if alike:
        more = f", and {len(alike) - 1} more pairs" if len(alike) > 2 else ", and another pair" if len(alike) == 2 else ""
        lines.append(f"{alike[0][0]} and {alike[0][1]} are nearly the same{more}: other poses, sides or places teach more")
    return lines + _missing(looks)


def _missing(looks: Sequence[Look]) -> list[str]:
    lines = []
    views = {look.facts["view"] for look in looks if "view" in look.facts}
    if views and VIEWS["back"] not in views:
        lines.append("no photo shows the person from behind: the back will be made up where the motion turns round")
    if views and VIEWS["side"] not in views:
        lines.append("no photo shows the person from the side: add a profile")
    faces = [look.facts["face"] for look in looks if "face" in look.facts]
    known = any(look.pose is not None for look in looks)
    if known and not faces:
        lines.append("no photo shows the face: it will be made up")
    elif faces and max(faces) < SMALL_FACE:
        lines.append(f"the face is at most {max(faces):.0f} pixels high: a closer photo makes it recognisable")
    if known and not any(look.legs for look in looks):
        lines.append("all photos show the upper body only: legs will be made up where the motion shows them")
    return lines


def _pose(points: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    body = points[BODY]
    corner, side = np.array(box[:2]), max(box[2] - box[0], box[3] - box[1], 1e-6)
    return np.where(body[:, 2:] >= VISIBLE, (body[:, :2] - corner) / side, np.nan)


def _sharpness(look: Look) -> float:
    return round(look.facts.get("face_sharpness", look.facts.get("body_sharpness", 0.0)), 2)
