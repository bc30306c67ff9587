"""How long each part of preparation takes a frame, on one core."""

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from meta_animator.annotators.blaze.annotator import Blaze
from meta_animator.annotators.blaze.face import find_face
from meta_animator.annotators.blaze.hands import find_hands
from meta_animator.annotators.blaze.mask import find_mask
from meta_animator.annotators.blaze.pose import look_for, region_of
from meta_animator.annotators.blaze.wholebody import whole_body
from meta_animator.annotators.sets import AnnotatorSet
from meta_animator.data.conditions import CONDITIONS, draw_condition
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize, crop_box
from meta_animator.errors import UserError
from meta_animator.media.video import VideoSource

DRAWN = tuple(task for task in CONDITIONS if {"keypoints", "mask", "frame"} >= set(CONDITIONS[task].needs))


class Clock:
    """Adds up the time that a process spends on its parts, whatever else runs on the machine."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[part] += time.process_time() - start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """frames   how many were measured
    size        (height, width) of the film
    without     {part: milliseconds a frame} without networks: decode, crop, and the drawing of each task
    networks    {part: milliseconds a frame} of annotation; empty without annotators
    """

    frames: int
    size: tuple[int, int]
    without: dict[str, float]
    networks: dict[str, float]


def measure(film: Path, side: int, count: int, annotators: AnnotatorSet | None, truth: Layers | None = None) -> Timing:
    """The first `count` frames of a film: each decoded once, annotated, cropped to side x side, and all tasks drawn that
    keypoints and mask suffice for.

    truth   the layers of every frame, where there are no annotators; otherwise a frame in which they see nobody is not
            cropped and drawn

    Raises UserError where nobody is seen at all.
    """
    cv2.setNumThreads(1)
    source, clock, drawn, read = VideoSource(film, verify=False), Clock(), 0, 0
    for index in range(min(count, source.num_frames)):
        with clock("decode"):
            frame = source.read([index])[0]
        read += 1
        layers = truth if annotators is None else _annotate(annotators, frame, clock)
        if layers is not None:
            _draw(dataclasses.replace(layers, frame=frame), side, clock)
            drawn += 1
    if not drawn:
        raise UserError(f"{film}: nobody is seen in its first {read} frames; measure a film of a person")
    without = {"decode": clock.seconds["decode"] / read} | {
        part: clock.seconds[part] / drawn for part in ("crop", *(f"draw {task}" for task in DRAWN))
    }
    networks = {part: spent / read for part, spent in clock.seconds.items() if part not in without}
    return Timing(
        frames=read,
        size=(source.height, source.width),
        without={part: 1e3 * spent for part, spent in without.items()},
        networks={part: 1e3 * spent for part, spent in networks.items()},
    )


def _draw(layers: Layers, side: int, clock: Clock) -> None:
    with clock("crop"):
        rows, columns = np.nonzero(layers.mask)
        middle = (float(columns.mean()), float(rows.mean())) if len(rows) else None
        cut = crop_and_resize(layers, crop_box(layers.size[1], layers.size[0], side, side, middle), (side, side))
    for task in DRAWN:
        with clock(f"draw {task}"):
            draw_condition(task, cut)


def _annotate(annotators: AnnotatorSet, frame: np.ndarray, clock: Clock) -> Layers | None:
    detector, *others = annotators.names
    with clock(detector):
        (people,) = annotators.one(detector).detect([frame])
    if not people:
        return None
    known: dict[str, np.ndarray] = {}
    for name in others:
        annotator = annotators.one(name)
        if isinstance(annotator, Blaze):
            known |= _light_parts(annotator, frame, people, clock)
            continue
        with clock(name):
            (answer,) = annotator.annotate([frame], people[:1], [known])
        known |= answer
    return Layers(frame=frame, **known) if {"keypoints", "mask"} <= set(known) else None


def _light_parts(blaze: Blaze, frame: np.ndarray, people: Sequence, clock: Clock) -> dict[str, np.ndarray]:
    """What `Blaze.annotate` does, part by part."""
    size = frame.shape[:2]
    with clock("blaze: pose"):
        pose = look_for(blaze.pose, frame, region_of(people[0]))
    if pose is None:
        return {}
    with clock("blaze: face"):
        face = find_face(blaze.face, frame, pose)
    with clock("blaze: hands"):
        hands = find_hands(blaze.hands, frame, pose)
    with clock("blaze: mask"):
        mask = find_mask(pose, size, hands)
    return {"keypoints": whole_body(pose, face, hands, size), "mask": mask}
