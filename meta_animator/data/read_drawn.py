"""Films of drawn poses read back into keypoints, whichever program drew them."""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.clips import Clip
from meta_animator.data.conditions.pose import BODY_18
from meta_animator.data.drawn_body import DARKEST, GUESSED, find_strokes, half_width, likeness, limbs_are_dim, read_body
from meta_animator.data.drawn_face import FaceReader
from meta_animator.data.drawn_hands import HandsReader

BORDER = 8  # black pixels around a skeleton
LOOKS = 8  # frames by which a film's way of drawing is recognised
SLIP = 5.0  # half widths of limbs, by which a joint does not move for one frame alone
LEAST_JOINTS = 5  # of the 18, in a frame that counts as read
LIKE = 0.75  # from this `likeness` on a frame counts as read
LEAST_READ = 0.8  # share of the frames with a skeleton that are read, or the film is not


@dataclasses.dataclass(kw_only=True)
class ReadClip(Clip):
    """A clip whose keypoints (num_frames, 133, 3) were read from drawn poses."""

    points: np.ndarray = dataclasses.field(repr=False, compare=False)

    def _load_layer(self, name: str, index: int) -> np.ndarray:
        return self.points[index].copy() if name == "keypoints" else super()._load_layer(name, index)


@dataclasses.dataclass(frozen=True)
class Reading:
    """Keypoints read from a film of drawn poses.

    points   float32 (num_frames, 133, 3) in the film's pixels, score 0.8 to 1 for what was read
    drawn    number of frames that show a skeleton
    read     number of those that look the same when drawn again from the points
    """

    points: np.ndarray
    drawn: int
    read: int

    @property
    def good(self) -> bool:
        return self.drawn > 0 and self.read >= LEAST_READ * self.drawn


def read_drawn(load: Callable[[int], np.ndarray], num_frames: int) -> Reading:
    """Reads frames 0 .. num_frames - 1, uint8 (h, w, 3) in RGB order, that `load` gives."""
    some = [load(int(k)) for k in np.unique(np.linspace(0, num_frames - 1, min(LOOKS, num_frames)).round())]
    dim = limbs_are_dim(some)
    width = half_width(some, dim)
    faces, hands = FaceReader(width), HandsReader(width)
    points, drawn, read = np.zeros((num_frames, kp.NUM_KEYPOINTS, 3), np.float32), 0, 0
    for k in range(num_frames):
        frame, corner = _drawn_part(load(k))
        strokes = find_strokes(frame)
        body = read_body(strokes, dim, width)
        alike = likeness(strokes, body, dim, width)
        drawn += alike is not None
        read += alike is not None and alike >= LIKE and (body[:, 2] > 0).sum() >= LEAST_JOINTS
        points[k] = _whole_body(body, faces.read(strokes.white), hands.read(frame, body), width)
        points[k, :, :2] += corner * (points[k, :, 2:] > 0)
    _leave_out_slips(points, width)
    return Reading(points, drawn, read)


def _leave_out_slips(points: np.ndarray, width: float) -> None:
    """Joints that are far away for a single frame were misread: they get score 0."""
    before, here, after = points[:-2, kp.BODY], points[1:-1, kp.BODY], points[2:, kp.BODY]
    seen = (before[..., 2] > 0) & (here[..., 2] > 0) & (after[..., 2] > 0)
    steady = np.hypot(*np.moveaxis(after - before, -1, 0)[:2])
    away = np.hypot(*np.moveaxis(here - (before + after) / 2, -1, 0)[:2])
    here[seen & (away > np.maximum(SLIP * width, 2 * steady)), 2] = 0


def _drawn_part(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the part of a frame that is not black, with some black around, its corner x, y)."""
    red, green, blue = cv2.split(frame)
    seen = cv2.max(cv2.max(red, green), blue) >= DARKEST
    columns, rows = np.nonzero(seen.any(0))[0], np.nonzero(seen.any(1))[0]
    if not len(rows):
        return frame, np.zeros(2)
    y, x = max(0, rows[0] - BORDER), max(0, columns[0] - BORDER)
    return np.ascontiguousarray(frame[y : rows[-1] + BORDER, x : columns[-1] + BORDER]), np.array([x, y])


def read_clip(clip: Clip, load: Callable[[int], np.ndarray], num_frames: int) -> tuple[Clip, Reading]:
    """(the clip with keypoints instead of its drawn poses, how they were read); the clip as it is where that did not do.

    load        frame by number, in RGB order
    num_frames  the first so many frames are read, later ones get no points
    """
    reading = read_drawn(load, num_frames)
    if not reading.good:
        return clip, reading
    points = np.zeros((clip.num_frames, *reading.points.shape[1:]), np.float32)
    points[:num_frames] = reading.points
    facts = {field.name: getattr(clip, field.name) for field in dataclasses.fields(Clip) if field.init and field.name[0] != "_"}
    facts["conditions"] = {name: path for name, path in clip.conditions.items() if name not in ("dwpose", "pose_hamer")}
    facts["layers"] = {**clip.layers, "keypoints": clip.conditions["dwpose"]}
    return ReadClip(**facts, points=points), reading


def _whole_body(body: np.ndarray, face: np.ndarray, hands: dict[int, np.ndarray], width: float) -> np.ndarray:
    """(133, 3) of OpenPose's 18 points (18, 3), without the neck, 68 points of the face (68, 3) and the hands (21, 3) by
    wrist. Nose and eyes below white dots are taken from the face, wrists below hands from these."""
    points = np.zeros((kp.NUM_KEYPOINTS, 3), np.float32)
    for place, index in enumerate(BODY_18):
        if index is not None:
            points[index] = body[place]
    points[kp.FACE] = face
    if face[:, 2].any():
        eyes = {kp.RIGHT_EYE: face[kp.FACE_EYE_IMAGE_LEFT], kp.LEFT_EYE: face[kp.FACE_EYE_IMAGE_RIGHT]}
        own = {kp.NOSE: face[[kp.FACE_NOSE_TIP]], **eyes}
        for index, some in own.items():
            middle = some[:, :2].mean(0)
            if not points[index, 2] or np.hypot(*(points[index, :2] - middle)) > 2 * width:
                points[index] = *middle, 1
    for place, hand in hands.items():
        wrist = BODY_18[place]
        points[kp.RIGHT_HAND if wrist == kp.RIGHT_WRIST else kp.LEFT_HAND] = hand
        if points[wrist, 2] <= GUESSED:
            points[wrist, :2] = hand[0, :2]
    return points
