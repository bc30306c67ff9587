"""Somebody who dances, and films of drawn poses as other programs make them."""

import colorsys
import io
import math

import av
import cv2
import numpy as np

from meta_animator.data import keypoints as kp
from meta_animator.data.conditions.pose import LIMBS, body_points, openpose_colour
from tests.data.people import standing_person

ARMS = (
    (kp.LEFT_SHOULDER, kp.LEFT_ELBOW, kp.LEFT_WRIST, kp.LEFT_HAND),
    (kp.RIGHT_SHOULDER, kp.RIGHT_ELBOW, kp.RIGHT_WRIST, kp.RIGHT_HAND),
)
LEGS = (
    (kp.LEFT_HIP, kp.LEFT_KNEE, kp.LEFT_ANKLE, slice(17, 20)),
    (kp.RIGHT_HIP, kp.RIGHT_KNEE, kp.RIGHT_ANKLE, slice(20, 23)),
)
HEAD = [*range(5), *range(23, 91)]


def dance(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Keypoints (frames, 133, 3) of someone who swings arms and legs and moves their head; whole pixels, feet not seen."""
    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 2 * np.pi, 10), rng.uniform(0.2, 0.5, 10)
    film = []
    for k in range(frames):
        points = standing_person(height, width).astype(np.float64)
        aside = width / 2 + 0.05 * width * np.sin(speed[8] * k + phase[8])
        points[:, :2] = (points[:, :2] - [width / 2, 0]) * 0.92 + [aside, height * 0.05]
        swing = np.sin(speed * k + phase)
        for side, (start, middle, end, rest) in enumerate(ARMS):
            _turn(points, start, [middle, end, rest], (1 - 2 * side) * (0.5 + 0.9 * swing[side]))
            _turn(points, middle, [end, rest], (1 - 2 * side) * 1.2 * swing[2 + side])
        for side, (start, middle, end, rest) in enumerate(LEGS):
            _turn(points, start, [middle, end, rest], 0.35 * swing[4 + side])
            _turn(points, middle, [end, rest], 0.3 * swing[6 + side])
        _turn(points, kp.NOSE, [HEAD], 0.3 * swing[9])
        film.append(points)
    film = np.stack(film)
    film[..., :2] = np.trunc(film[..., :2])
    film[:, kp.FEET, 2] = 0
    return film


def _turn(points: np.ndarray, about: int, which: list, angle: float) -> None:
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    for some in which:
        points[some, :2] = (points[some, :2] - points[about, :2]) @ turn.T + points[about, :2]


def draw_pose(
    points: np.ndarray, height: int, width: int, *, shade: float = 0.6, stroke: int = 4, dot: int = 4, head: str = "dots",
    hands: bool = True, blended: bool = False, swap: bool = False,
) -> np.ndarray:  # fmt: skip
    """A pose (133, 3) as published films show it: uint8 (height, width, 3).

    shade, stroke, dot   brightness of limbs, half their width, radius of the joints
    head                 dots: 68 of the face; ears: eyes and ears alone; nose: the nose alone
    blended              limbs are laid half transparent over the joints, as by OpenPose's first drawings
    """
    image = np.zeros((height, width, 3), np.uint8)
    body = body_points(points)
    body[14 if head == "nose" else 18 :, 2] = 0
    if blended:
        _joints(image, body, dot)
    for k, (a, b) in enumerate(LIMBS):
        if min(body[a, 2], body[b, 2]) < kp.VISIBLE:
            continue
        middle, along = (body[a, :2] + body[b, :2]) / 2, body[a, :2] - body[b, :2]
        angle = int(math.degrees(math.atan2(along[1], along[0])))
        outline = cv2.ellipse2Poly(_whole(middle), (int(np.hypot(*along) / 2), stroke), angle, 0, 360, 1)
        over = image.copy()
        cv2.fillConvexPoly(over, outline, openpose_colour(k))
        image = cv2.addWeighted(image, 0.4, over, 0.6, 0) if blended else over
    if not blended:
        image = (image * shade).astype(np.uint8)
        _joints(image, body, dot)
    for hand in (kp.LEFT_HAND, kp.RIGHT_HAND) if hands else ():
        for k, (a, b) in enumerate(kp.HAND_BONES):
            colour = tuple(round(255 * value) for value in colorsys.hsv_to_rgb(k / 20, 1, 1))
            cv2.line(image, _whole(points[hand][a]), _whole(points[hand][b]), colour, 2)
        for point in points[hand]:
            cv2.circle(image, _whole(point), dot, (0, 0, 255), -1)
    for point in points[kp.FACE] if head == "dots" else ():
        cv2.circle(image, _whole(point), 3, (255, 255, 255), -1)
    return np.ascontiguousarray(image[..., ::-1]) if swap else image


def _joints(image: np.ndarray, body: np.ndarray, radius: int) -> None:
    for k, point in enumerate(body):
        if point[2] >= kp.VISIBLE:
            cv2.circle(image, _whole(point), radius, openpose_colour(k), -1)


def _whole(point: np.ndarray) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def compressed(frames: list[np.ndarray]) -> list[np.ndarray]:
    """The frames after H.264 at its usual quality."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.options = {"crf": "23"}
        for frame in [*map(av.VideoFrame.from_ndarray, frames), None]:
            film.mux(stream.encode(frame))
    file.seek(0)
    with av.open(file) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
