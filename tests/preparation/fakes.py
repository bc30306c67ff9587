"""Annotators without networks: whatever is red is a person. What they say is a function of the frame and the person alone."""

import numpy as np

from meta_animator.annotators.base import Detection
from meta_animator.media.video import write_video
from tests.data.people import standing_person

HEIGHT, WIDTH = 96, 128
TALL = 80  # pixels of the red person
RED = (200, 60, 40)


class FakeAnnotators:
    """As `AnnotatorSet`; keeps how many frames each call had. `says`: {name: version}."""

    layers = ("keypoints", "mask")

    def __init__(self, **says: str):
        self.made_by = {"keypoints": "points", "mask": "redness"}
        self.versions = {"people": "reds 1", "keypoints": "points 1", "mask": "redness 1"} | says
        self.detected: list[int] = []
        self.annotated: list[int] = []
        self.only: list[set[str]] = []

    def detect(self, frames):
        self.detected.append(len(frames))
        return [[Detection(box=box, score=0.9)] if (box := red_box(frame)) is not None else [] for frame in frames]

    def annotate(self, frames, people, known=None, only=None):
        self.annotated.append(len(frames))
        self.only.append(set(only or self.layers))
        answers = []
        for frame, person in zip(frames, people, strict=True):
            if person is None:
                answers.append({})
                continue
            x0, y0, x1, y1 = person.box
            points = standing_person(round(y1 - y0), round(x1 - x0)) + np.array([x0, y0, 0], np.float32)
            mask = is_red(frame)
            mask[:12] &= self.versions["mask"] == "redness 1"
            answers.append({"keypoints": points, "mask": mask})
        return answers


def is_red(frame: np.ndarray) -> np.ndarray:
    near = np.abs(frame.astype(int) - RED).max(-1) < 60
    return near & (frame[..., 0] > 140)


def red_box(frame: np.ndarray) -> np.ndarray | None:
    red = is_red(frame)
    if red.sum() < 30:
        return None
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + 1 / 3


def picture(x: int = 40, shade: int = 90, person: bool = True, seed: int = 0) -> np.ndarray:
    """A red person, TALL pixels high, from column x on, before a grey scene of its own."""
    rng = np.random.default_rng(seed)
    frame = np.repeat(np.repeat(rng.integers(shade - 30, shade + 30, (HEIGHT // 8, WIDTH // 8)), 8, 0), 8, 1)
    frame = np.repeat(frame[..., None], 3, 2).astype(np.uint8)
    if person:
        frame[8 : 8 + TALL, x : x + 30] = RED
    return frame


def film(path, count=12, fps=10, hidden=(), cuts=()):
    """A film of a person who walks to the right; nobody is there in the `hidden` frames, a new scene begins at each of `cuts`."""
    frames = []
    for index in range(count):
        scene = sum(index >= cut for cut in cuts)
        frames.append(picture(20 + index % 60, 60 + 70 * scene, index not in hidden, seed=scene))
    return write_video(path, frames, fps=fps)
