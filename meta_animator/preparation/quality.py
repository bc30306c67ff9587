"""How good a frame is to learn from: what is measured of it, and which measures reject it, with the reason."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import cv2
import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.data.figures import mask_box
from meta_animator.data.keypoints import BODY, face_box, person_box
from meta_animator.data.transforms import Box
from meta_animator.errors import UserError
from meta_animator.preparation.views import inside, shows_head, view_of
from meta_animator.settings import setting
from meta_animator.values import from_argument

NO_PERSON = "no person is found"
SMALL = "the person is too small"
OUTSIDE = "most of the person is outside of the picture or hidden"
NO_HEAD = "the head is not in the picture"
NO_FACE = "no face is seen"
SMALL_FACE = "the face is too small"
BLURRED = "the person is blurred"

EDGES = ("left", "top", "right", "bottom")
VIEWS = {"front": 1.0, "side": 0.0, "back": -1.0}
FACE_SIDE, BODY_SIDE = 64, 256  # pixels that face and body are scaled down to before their sharpness is measured
REACH = 7  # pixels of the blur that sharpness is measured by
LEAST_FACE = 32  # pixels of a face's height, from which on its sharpness says more than the body's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a frame needs to be kept."""

    min_height: int = setting(96, "least height of the person in pixels, as far as it is in the picture", low=0)
    min_share: float = setting(0.1, "least height of the person, as a share of the picture's", low=0.0, high=1.0)
    min_seen: float = setting(0.35, "least share of the 17 body points that is seen in the picture", low=0.0, high=1.0)
    need_head: bool = setting(True, "reject frames that cut the head off")
    need_face: bool = setting(False, "reject frames without a face, as from behind")
    min_face: int = setting(0, "least height in pixels of a face that is seen; 0: any", low=0)
    min_sharpness: float = setting(0.36, "least sharpness of the face, or else of the body; 0.5 to 0.7: sharp", low=0.0, high=1.0)
    blur_ratio: float = setting(0.5, "least sharpness as a share of what the film usually has; 0: any", low=0.0, high=1.0)


RULES = {  # reason: (limits that decide, facts that they are compared with)
    SMALL: (("min_height", "min_share"), ("height", "share")),
    OUTSIDE: (("min_seen",), ("seen",)),
    NO_HEAD: (("need_head",), ()),
    NO_FACE: (("need_face",), ()),
    SMALL_FACE: (("min_face",), ("face",)),
    BLURRED: (("min_sharpness", "blur_ratio"), ("face_sharpness", "body_sharpness")),
}


def parse_limits(texts: Sequence[str]) -> Limits:
    """Limits as name=value, such as min_height=60; others have their defaults. Raises UserError for what is none."""
    fields = {field.name: field for field in dataclasses.fields(Limits)}
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if name not in fields or not equals:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near and name not in fields else ""
            raise UserError(f"limit {text!r}: expected NAME=VALUE.{hint} Names: {', '.join(fields)}")
        try:
            values[name] = from_argument(value, get_type_hints(Limits)[name])
        except UserError as error:
            raise UserError(f"limit {name}: {error}") from None
        low, high = (fields[name].metadata[bound] for bound in ("low", "high"))
        if (low is not None and values[name] < low) or (high is not None and values[name] > high):
            bounds = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise UserError(f"limit {name}: expected {bounds}, got {value}")
    return Limits(**values)


def measure(frame: np.ndarray, layers: Mapping[str, np.ndarray], person: Detection | None = None) -> dict[str, float]:
    """Facts of a frame uint8 (h, w, 3) and its layers; those that cannot be told are left out, all where nobody is found.

    left, top, right, bottom   edges of the box around the person, as far as it is in the picture, in pixels
    height, share    of that box: pixels, and share of the picture's height
    seen             share of the 17 body points that is seen in the picture
    head             1 where the head is in the picture, else 0
    face             height of the face in pixels, brows and forehead included
    view             1 from the front, 0 from the side, -1 from behind
    face_sharpness, body_sharpness   as `sharpness` tells
    """
    points, mask = layers.get("keypoints"), layers.get("mask")
    size = frame.shape[:2]
    box = _box(points, mask, person, size)
    if box is None:
        return {}
    facts = dict(zip(EDGES, box, strict=True)) | {"height": box[3] - box[1], "share": (box[3] - box[1]) / size[0]}
    face = None
    if points is not None:
        facts["seen"] = float(inside(points, size)[BODY].mean())
        facts["head"] = float(shows_head(points, mask, size))
        if view := view_of(points):
            facts["view"] = VIEWS[view]
        face = _within(face_box(points), size)
    if face is not None:
        facts["face"] = face[3] - face[1]
        facts["face_sharpness"] = sharpness(_cut(frame, face), FACE_SIDE)
    where = None if mask is None or not mask.any() else _cut(mask, box)
    facts["body_sharpness"] = sharpness(_cut(frame, box), BODY_SIDE, where)
    return facts


def judge(facts: Sequence[Mapping[str, float]], limits: Limits) -> list[str]:
    """Why each of the frames of one film (or each of some photos) is rejected, or "". facts: what `measure` says of each.

    Sharpness is compared with what the film usually has, too.
    """
    known = {name: [one[name] for one in facts if name in one] for name in ("face_sharpness", "body_sharpness")}
    usual = {name: float(np.median(values or [0.0])) for name, values in known.items()}
    return [_reason(one, limits, usual) for one in facts]


def sharpness(picture: np.ndarray, side: int, where: np.ndarray | None = None) -> float:
    """How sharp a picture uint8 (h, w, 3) is in its blurriest direction, once its longer side is `side` pixels or less: 0 flat or
    very blurred, 0.5 to 0.7 sharp. where: bool (h, w), the part that counts.

    The share of the differences between neighbours that another blur takes away (after Crete et al. 2007): blurring what is
    blurred changes little. It does not depend on contrast, and motion along one direction shows in that direction.
    """
    light = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    scale = side / max(light.shape)
    if scale < 1:
        size = (max(1, round(light.shape[1] * scale)), max(1, round(light.shape[0] * scale)))
        light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    if where is not None:
        where = cv2.resize(where.astype(np.uint8), light.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    light = light.astype(np.float32)
    return min(_lost(a, b) for a, b in ((light, where), (light.T, None if where is None else where.T)))


def _lost(light: np.ndarray, where: np.ndarray | None) -> float:
    """Along rows."""
    if light.shape[1] < 2:
        return 0.0
    steps = np.abs(np.diff(light, axis=1))
    less = steps - np.abs(np.diff(cv2.blur(np.ascontiguousarray(light), (REACH, 1)), axis=1))
    if where is not None:
        steps, less = steps[where[:, 1:]], less[where[:, 1:]]
    return float(np.maximum(less, 0).sum() / max(float(steps.sum()), 1e-6))


def _reason(facts: Mapping[str, float], limits: Limits, usual: Mapping[str, float]) -> str:
    if not facts:
        return NO_PERSON
    if facts["height"] < limits.min_height or facts["share"] < limits.min_share:
        return SMALL
    if limits.need_head and facts.get("head", 1.0) < 1:
        return NO_HEAD
    if facts.get("seen", 1.0) < limits.min_seen:
        return OUTSIDE
    if "face" not in facts:
        if limits.need_face:
            return NO_FACE
    elif facts["face"] < limits.min_face:
        return SMALL_FACE
    kind = "face_sharpness" if facts.get("face", 0) >= LEAST_FACE else "body_sharpness"
    return BLURRED if facts[kind] < max(limits.min_sharpness, limits.blur_ratio * usual[kind]) else ""


def _box(
    points: np.ndarray | None, mask: np.ndarray | None, person: Detection | None, size: tuple[int, int]
) -> Box | None:
    """Around the person in the picture, by the mask, or the points, or the detector."""
    boxes = [mask_box(mask) if mask is not None else None]
    boxes += [person_box(points, margin=0.0) if points is not None else None]
    boxes += [tuple(float(value) for value in person.box) if person is not None and points is None else None]
    return next((inner for box in boxes if (inner := _within(box, size)) is not None), None)


def _within(box: Box | None, size: tuple[int, int]) -> Box | None:
    """The part of a box that lies in the picture; None where that is less than two pixels wide or high."""
    if box is None:
        return None
    x0, y0, x1, y1 = (float(value) for value in (max(box[0], 0), max(box[1], 0), min(box[2], size[1]), min(box[3], size[0])))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


def _cut(array: np.ndarray, box: Box) -> np.ndarray:
    x0, y0, x1, y1 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    return array[y0:y1, x0:x1]
