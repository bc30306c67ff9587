"""The main person among those that a file of keypoints has: the largest, followed from frame to frame."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator.data.keypoints import NUM_KEYPOINTS, VISIBLE, person_box

LOST = 30  # frames after which somebody who comes is somebody else
FAR = 0.4  # mean move of the points from one frame to the next, in diagonals of the person, that is not the same person's
GROWN = 2.0  # times that nobody grows or shrinks from one frame to the next
GAP_FILLER = 0.5  # share of the main person's size that somebody has who is taken for them while they are not seen


@dataclasses.dataclass
class Track:
    """One person over time: the numbers of frames, their points (133, 3) and their boxes' areas in square pixels."""

    frames: list[int]
    points: list[np.ndarray]
    areas: list[float]


def main_person(frames: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float32 (len(frames), 133, 3): of all people, each (133, 3), the one who is largest over all frames; zeros where that
    person is not seen. Somebody of about their size who is seen only meanwhile is taken for the same person, lost and found."""
    tracks = sorted(_tracks(frames), key=lambda track: sum(track.areas), reverse=True)
    found = np.zeros((len(frames), NUM_KEYPOINTS, 3), np.float32)
    taken: set[int] = set()
    for track in tracks:
        small = np.median(track.areas) < GAP_FILLER * np.median(tracks[0].areas)
        if taken & set(track.frames) or (taken and small):
            continue
        found[track.frames] = track.points
        taken.update(track.frames)
    return found


def followed(path: Path, frames: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """As `main_person`, of the file `path`; says where there are others."""
    several = sum(len(people) > 1 for people in frames)
    if several:
        print(f"note: {path}: several people in {several} of {len(frames)} frames; the largest is followed")
    return main_person(frames)


def _tracks(frames: Sequence[Sequence[np.ndarray]]) -> list[Track]:
    tracks: list[Track] = []
    open_ones: list[Track] = []
    for number, people in enumerate(frames):
        boxes = [person_box(person, margin=0.0) for person in people]
        left = {k for k, box in enumerate(boxes) if box is not None}
        open_ones = [track for track in open_ones if track.frames[-1] >= number - LOST]
        pairs = sorted(
            (_distance(track.points[-1], people[k]), place, k) for place, track in enumerate(open_ones) for k in left
        )
        for distance, place, k in pairs:
            track = open_ones[place]
            if distance < FAR and k in left and track.frames[-1] < number:
                _add(track, number, people[k], boxes[k])
                left.remove(k)
        for k in sorted(left):
            _add(track := Track([], [], []), number, people[k], boxes[k])
            tracks.append(track)
            open_ones.append(track)
    return tracks


def _add(track: Track, number: int, person: np.ndarray, box: tuple[float, float, float, float]) -> None:
    track.frames.append(number)
    track.points.append(person)
    track.areas.append(max(1.0, box[2] - box[0]) * max(1.0, box[3] - box[1]))


def _distance(before: np.ndarray, now: np.ndarray) -> float:
    """How far the points that both show have moved on average, in diagonals of the larger person; infinite where they show none,
    or one of both is `GROWN` times as large."""
    both = (before[:, 2] >= VISIBLE) & (now[:, 2] >= VISIBLE)
    if not both.any():
        return float("inf")
    small, large = sorted(float(np.hypot(*np.ptp(points[both, :2], axis=0))) for points in (before, now))
    if large > GROWN * max(small, 1.0):
        return float("inf")
    whole = max(float(np.hypot(*np.ptp(points[points[:, 2] >= VISIBLE, :2], axis=0))) for points in (before, now))
    moved = np.linalg.norm(before[both, :2].astype(float) - now[both, :2], axis=1).mean()
    return float(moved / max(whole, 1.0))
