"""The drawn pose: body, hands and face points on black, as in published DWPose videos (RGB, OpenPose colours)."""

import colorsys
import math

import cv2
import numpy as np

from meta_animator.data.conditions.condition import Condition
from meta_animator.data.conditions.hands import shade_hand
from meta_animator.data.keypoints import FACE, HAND_BONES, LEFT_HAND, LEFT_SHOULDER, RIGHT_HAND, RIGHT_SHOULDER, VISIBLE
from meta_animator.data.layers import Layers

# OpenPose's 18 body points as COCO indices, in its order; None is the neck, between the shoulders.
BODY_18 = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
NECK = 1
# Pairs of those: shoulders, right arm, left arm, right torso and leg, left torso and leg, head.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
LIMB_SHADE = 0.6

# Sizes in pixels where the shorter side of the picture is 512 pixels.
LIMB_HALF_WIDTH, JOINT_RADIUS, HAND_LINE_WIDTH, HAND_POINT_RADIUS, FACE_POINT_RADIUS = 4.0, 4.0, 2.0, 4.0, 3.0
HAND_POINT_COLOUR, FACE_POINT_COLOUR = (0, 0, 255), (255, 255, 255)
SMALLEST_UNIT = 0.3  # below 154 pixels the strokes no longer shrink
FRACTION_BITS = 4  # OpenCV's fixed-point coordinates


def openpose_colour(index: int) -> tuple[int, int, int]:
    """RGB colour of body point or limb `index` in 0..17: the hue circle in steps of 20 degrees, as OpenPose has it."""
    hue = 20 * index
    sector, rest = divmod(hue, 60)
    up, down = round(rest / 60 * 255), round((60 - rest) / 60 * 255)
    return [(255, up, 0), (down, 255, 0), (0, 255, up), (0, down, 255), (up, 0, 255), (255, 0, down)][sector]


def draw_dwpose(layers: Layers) -> np.ndarray:
    """Body skeleton, 2 x 21 hand points, 68 face points: uint8 (h, w, 3) RGB. Points scored under 0.3 are left out."""
    canvas = _Canvas(layers.size)
    canvas.body(layers.keypoints)
    for hand in (LEFT_HAND, RIGHT_HAND):
        canvas.hand(layers.keypoints[hand])
    canvas.face(layers.keypoints[FACE])
    return canvas.finish()


def draw_pose_hamer(layers: Layers) -> np.ndarray:
    """The same body and face, each hand a shaded solid built from its 21 points: uint8 (h, w, 3) RGB."""
    canvas = _Canvas(layers.size)
    canvas.body(layers.keypoints)
    canvas.face(layers.keypoints[FACE])
    image = canvas.finish()
    for hand in (LEFT_HAND, RIGHT_HAND):
        shade_hand(image, layers.keypoints[hand], VISIBLE)
    return image


def body_points(keypoints: np.ndarray) -> np.ndarray:
    """OpenPose's 18 points (18, 3) from the 133: x, y, score; the neck is the middle of both shoulders."""
    points = np.stack([np.zeros(3) if index is None else keypoints[index] for index in BODY_18])
    shoulders = keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    points[NECK] = [*shoulders[:, :2].mean(0), shoulders[:, 2].min()]
    return points


class _Canvas:
    """Draws larger than asked for where the strokes would be thinner than a pixel or two, then averages down."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        unit = max(min(size) / 512, SMALLEST_UNIT)
        self.zoom = max(1, min(4, math.ceil(1 / unit)))
        self.unit = unit * self.zoom
        self.image = np.zeros((size[0] * self.zoom, size[1] * self.zoom, 3), np.uint8)

    def body(self, keypoints: np.ndarray) -> None:
        points = self._place(body_points(keypoints))
        for index, (a, b) in enumerate(LIMBS):
            if min(points[a, 2], points[b, 2]) >= VISIBLE:
                colour = tuple(int(LIMB_SHADE * value) for value in openpose_colour(index))
                outline = _ellipse(points[a, :2], points[b, :2], LIMB_HALF_WIDTH * self.unit)
                cv2.fillConvexPoly(self.image, _fixed(outline), colour, cv2.LINE_8, FRACTION_BITS)
        for index, point in enumerate(points):
            self._dot(point, JOINT_RADIUS, openpose_colour(index))

    def hand(self, hand: np.ndarray) -> None:
        points = self._place(hand)
        width = max(1, round(HAND_LINE_WIDTH * self.unit))
        for index, (a, b) in enumerate(HAND_BONES):
            if min(points[a, 2], points[b, 2]) >= VISIBLE:
                colour = tuple(round(255 * value) for value in colorsys.hsv_to_rgb(index / len(HAND_BONES), 1, 1))
                ends = _fixed(points[[a, b], :2])
                cv2.line(self.image, ends[0].tolist(), ends[1].tolist(), colour, width, cv2.LINE_8, FRACTION_BITS)
        for point in points:
            self._dot(point, HAND_POINT_RADIUS, HAND_POINT_COLOUR)

    def face(self, face: np.ndarray) -> None:
        for point in self._place(face):
            self._dot(point, FACE_POINT_RADIUS, FACE_POINT_COLOUR)

    def finish(self) -> np.ndarray:
        if self.zoom == 1:
            return self.image
        return cv2.resize(self.image, self.size[::-1], interpolation=cv2.INTER_AREA)

    def _place(self, points: np.ndarray) -> np.ndarray:
        placed = np.array(points, np.float64)
        placed[:, :2] = (placed[:, :2] + 0.5) * self.zoom - 0.5
        far = np.abs(placed[:, :2]).max(1) > 8 * max(self.image.shape)  # would overflow OpenCV's fixed point
        placed[far | ~np.isfinite(placed).all(1)] = 0
        return placed

    def _dot(self, point: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        if point[2] < VISIBLE:
            return
        size = round(radius * self.unit * 2**FRACTION_BITS)
        cv2.circle(self.image, _fixed(point[:2]).tolist(), size, colour, -1, cv2.LINE_8, FRACTION_BITS)


def _ellipse(a: np.ndarray, b: np.ndarray, half_width: float) -> np.ndarray:
    """Outline (72, 2) of the ellipse whose long axis runs from a to b."""
    middle, along = (a + b) / 2, (b - a) / 2
    length = max(float(np.hypot(*along)), 1e-6)
    across = np.array([-along[1], along[0]]) / length * half_width
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)[:, None]
    return middle + np.cos(turn) * along + np.sin(turn) * across


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(points) * 2**FRACTION_BITS).astype(np.int32)


DWPOSE = Condition("dwpose", "foreground", ("keypoints",), draw_dwpose, sided=True)
POSE_HAMER = Condition("pose_hamer", "foreground", ("keypoints",), draw_pose_hamer, sided=True)
