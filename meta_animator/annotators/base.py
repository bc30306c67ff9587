"""What annotators are: networks that see people in pictures, each behind the same two calls.

A detector finds people; an annotator gives layers (see `data.layers`) of one person. What either says of a frame depends on
that frame and the given person, not on what it was asked before, so that a frame annotated anew gets the same answer.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from meta_animator.data import keypoints as kp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
    """One person in one picture.

    box    float (4,): x0, y0, x1, y1 in pixel edges
    score  in [0, 1]
    axis   float (2, 2): x, y of the middle of the hips, and of a point straight above it in the person's own sense, as far away
           as the circle around the whole person reaches; None where the detector does not tell
    """

    box: np.ndarray
    score: float
    axis: np.ndarray | None = None


def detection_of(keypoints: np.ndarray, score: float = 1.0) -> Detection | None:
    """The person of known keypoints (133, 3), to be looked for in a frame nearby in which the detector saw nobody; None where
    the keypoints show nobody."""
    box = kp.person_box(keypoints, margin=0.0)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return Detection(box=np.array([x0, y0, x1 + 1, y1 + 1]), score=score, axis=_axis(keypoints))


def _axis(keypoints: np.ndarray) -> np.ndarray | None:
    sides = keypoints[[kp.LEFT_HIP, kp.RIGHT_HIP]], keypoints[[kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER]]
    if any((side[:, 2] < kp.VISIBLE).any() for side in sides):
        return None
    hips, shoulders = (side[:, :2].mean(0) for side in sides)
    up = shoulders - hips
    length = float(np.hypot(*up))
    if length == 0:
        return None
    seen = keypoints[keypoints[:, 2] >= kp.VISIBLE, :2]
    return np.stack([hips, hips + up / length * np.hypot(*(seen - hips).T).max()])


class Detector(abc.ABC):
    """Finds people."""

    name: ClassVar[str]

    @abc.abstractmethod
    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        """All people in each of the frames, uint8 (h, w, 3) RGB, the most certain first; an empty list where nobody is seen."""


class Annotator(abc.ABC):
    """Gives layers of one person."""

    name: ClassVar[str]
    gives: ClassVar[tuple[str, ...]]  # names of layers

    @abc.abstractmethod
    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        """The layers that this annotator gives of the person `people[i]` in `frames[i]`, uint8 (h, w, 3) RGB, consecutive frames
        of one clip. `known` are the layers that earlier annotators gave. Where `people[i]` is None nobody is there, and the
        answer is empty; a layer that cannot be told in a frame is left out of its answer.
        """
