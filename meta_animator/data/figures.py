"""Where a clip shows its person: boxes around faces, heads and body, from keypoints, masks or drawn poses.

Boxes are (x0, y0, x1, y1) in pixel edges, as in `transforms`.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from meta_animator.data.clips import Clip
from meta_animator.data.keypoints import BODY, FACE, VISIBLE, face_box, five_points, person_box
from meta_animator.data.layers import Layers
from meta_animator.data.retarget import drawn_box
from meta_animator.data.transforms import move_keypoints

LOOKS = 24  # frames whose masks or drawn poses are looked at, where there are no keypoints
USED_BY_EMBEDDERS = [FACE.start + k for k in (*range(36, 48), 30, 48, 54)]  # what `five_points` reads
HEAD_POINTS = slice(BODY.start, BODY.start + 5)
OUTLYING = 0.05  # share of the frames, at either end, that the person's box leaves out
HEAD_SHARE = 1 / 7  # of a standing person's height
FOREHEAD = 0.5  # above drawn brows, in heights of the drawn face
HAIR = 0.15  # above the forehead, in heights of the face's box
WHITE = 160  # from which brightness of its darkest colour on a pixel is a drawn face point, after compression
SLIP = 3.0  # widths of a head that none moves from one frame to the next and back


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """Where a clip shows its person.

    faces  (n, 4) boxes around the points by which faces are recognised, of the frames whose face is usable
    heads  (m, 4) boxes around whole heads, of the frames that show one
    body   (4,) box that the person stays inside of in nearly all frames
    """

    faces: np.ndarray
    heads: np.ndarray
    body: np.ndarray


def figure_of_clip(clip: Clip) -> Figure | None:
    """`find_figure`, once per process."""
    return clip.remember("figure", lambda: find_figure(clip))


def find_figure(clip: Clip) -> Figure | None:
    """Where a clip shows its person: by its keypoints, else by its masks, else by a drawn pose; None where nothing tells."""
    if "keypoints" in clip.layers:
        points = np.stack([clip.load_keypoints(k) for k in range(clip.num_frames)])
        return figure_of_points(points, (clip.height, clip.width))
    some = sorted({round(k) for k in np.linspace(0, clip.num_frames - 1, min(LOOKS, clip.num_frames))})
    if "mask" in clip.layers:
        return figure_of_masks([clip.load(k, ("mask",)).mask for k in some])
    for task in ("dwpose", "pose_hamer"):
        if task in clip.conditions:
            return figure_of_drawn([clip.load_condition(task, k) for k in some])
    return None


def figure_of_frame(layers: Layers) -> Figure | None:
    """Where a single picture shows its person."""
    if layers.keypoints is not None:
        return figure_of_points(layers.keypoints[None], layers.size)
    return figure_of_masks([layers.mask]) if layers.mask is not None else None


def figure_of_points(keypoints: np.ndarray, have: tuple[int, int]) -> Figure | None:
    """By keypoints (frames, 133, 3) in pictures of size `have` (height, width); None where no frame shows a person."""
    height, width = have
    points = move_keypoints(keypoints, (0.0, 0.0, float(width), float(height)), have)
    limits = np.array([0, 0, width, height])

    def inside(boxes: list) -> np.ndarray:
        rows = np.array(boxes, np.float64).reshape(-1, 4)
        return np.concatenate([np.maximum(rows[:, :2], limits[:2]), np.minimum(rows[:, 2:], limits[2:])], axis=1)

    heads = [_head_box(one) for one in points]
    slipped = _slips(heads)
    bodies = inside([box for one, slip in zip(points, slipped, strict=True) if not slip and (box := person_box(one)) is not None])
    if not len(bodies):
        return None
    usable = [five_points(one) is not None and not slip for one, slip in zip(points, slipped, strict=True)]
    faces = [_box_of_seen(one[USED_BY_EMBEDDERS], 1.0) for one, use in zip(points, usable, strict=True) if use]
    whole = [head for head, slip in zip(heads, slipped, strict=True) if head is not None and not slip]
    return Figure(faces=inside(faces), heads=inside(whole), body=_robust(bodies))


def figure_of_masks(masks: Sequence[np.ndarray]) -> Figure | None:
    """By masks bool (h, w); what is highest of the person is taken for the head. None where all are empty."""
    bodies = [box for box in map(mask_box, masks) if box is not None]
    heads = []
    for mask, body in zip([mask for mask in masks if mask.any()], bodies, strict=True):
        top = int(body[1])
        box = mask_box(mask[top : top + max(1, round((body[3] - body[1]) * HEAD_SHARE))])
        heads.append((box[0], body[1], box[2], top + box[3]))
    return _figure(bodies, heads)


def figure_of_drawn(images: Sequence[np.ndarray]) -> Figure | None:
    """By drawn poses uint8 (h, w, 3), in which nothing but face points is white. None where all are black."""
    bodies = [box for box in map(drawn_box, images) if box is not None]
    faces = [box for image in images if (box := _drawn_face(image)) is not None]
    heads = [(x0, max(0.0, y0 - FOREHEAD * (y1 - y0)), x1, y1) for x0, y0, x1, y1 in faces]
    return _figure(bodies, heads)


def _drawn_face(image: np.ndarray) -> tuple[float, float, float, float] | None:
    """Around the largest cluster of white dots; None where there is none. (Compression leaves white specks in hands.)"""
    white = (image.min(-1) >= WHITE).astype(np.uint8)
    reach = max(3, min(white.shape) // 20)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(cv2.dilate(white, np.ones((reach, reach), np.uint8)))
    sizes = np.bincount(labels[white > 0], minlength=len(facts))
    return mask_box((labels == sizes.argmax()) & (white > 0)) if sizes.max() >= 20 else None


def _figure(bodies: list[tuple], heads: list[tuple]) -> Figure | None:
    if not bodies:
        return None
    return Figure(faces=np.zeros((0, 4)), heads=np.array(heads, np.float64).reshape(-1, 4), body=_robust(np.array(bodies)))


def mask_box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Around the True pixels of a mask (h, w); None where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0) if len(rows) else None


def _robust(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.quantile(boxes[:, :2], OUTLYING, axis=0), np.quantile(boxes[:, 2:], 1 - OUTLYING, axis=0)])


def _head_box(points: np.ndarray) -> tuple[float, float, float, float] | None:
    """Around a face with forehead and hair; of a head without one, around what is seen of eyes, ears and nose."""
    box = face_box(points)
    if box is not None:
        return (box[0], box[1] - HAIR * (box[3] - box[1]), *box[2:])
    if (points[HEAD_POINTS, 2] >= VISIBLE).sum() >= 2:
        x0, y0, x1, y1 = _box_of_seen(points[HEAD_POINTS], 0.0)
        reach = max(x1 - x0, y1 - y0) / 2
        box = (x0 - reach / 2, y0 - 2 * reach, x1 + reach / 2, y1 + 2 * reach)
    return box


def _box_of_seen(points: np.ndarray, border: float) -> tuple[float, float, float, float]:
    seen = points[points[:, 2] >= VISIBLE, :2] + 0.5  # pixel edges
    return (*(seen.min(0) - border), *(seen.max(0) + border))


def _slips(heads: Sequence[tuple | None]) -> list[bool]:
    """Which frames' heads are the estimator's slips: far away from the heads before and after."""
    known = [k for k, head in enumerate(heads) if head is not None]
    slipped = [False] * len(heads)
    if len(known) < 5:
        return slipped
    boxes = np.array([heads[k] for k in known])
    centres, width = (boxes[:, :2] + boxes[:, 2:]) / 2, np.median(boxes[:, 2] - boxes[:, 0])
    around = np.lib.stride_tricks.sliding_window_view(np.pad(centres, ((2, 2), (0, 0)), "edge"), 5, axis=0)
    for k, off in zip(known, np.abs(centres - np.median(around, axis=-1)).max(1) > SLIP * width, strict=True):
        slipped[k] = bool(off)
    return slipped
