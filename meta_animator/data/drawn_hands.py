"""The 21 points of a drawn hand: its blue dots are laid out along five fingers, which the hues of the lines tell apart."""

import dataclasses

import cv2
import numpy as np
from scipy.spatial import cKDTree

from meta_animator.data.conditions.pose import LIMBS
from meta_animator.data.keypoints import HAND_BONES, HAND_FINGERS

POINTS = 21
BLUE = (228, 252)  # degrees of the hues of dots
LINE_BRIGHTNESS, LINE_SATURATION = 100, 110  # of 255, at least
TRY_STEPS, FIRST_STEPS, STEPS = 4, 10, 7  # of the fits to a first hand, of the best two, of one after another
CLOSE = 2.5  # half widths of limbs, half the widest gap between dots of one hand
NEAR = 9.0  # half widths of limbs from a wrist to the nearest dot of its hand
SMALLEST = 7.0  # radii of a dot: hands that are not so long are one blot
WELL = 0.6  # radii of a dot, by which dots and lines are off at most on average
LEAST_COVERED = 0.8  # share of the blue that points explain
HEADS, TAILS = np.array(HAND_BONES).T  # points of the 20 bones, four to a finger


def _flat_hand() -> np.ndarray:
    """(21, 2) of an open hand whose length is 1: the wrist at 0, fingers along x, the thumb on the side of -y."""
    points = np.zeros((POINTS, 2))
    roots = ((0.12, -0.12), (0.47, -0.13), (0.48, -0.02), (0.46, 0.08), (0.42, 0.17))
    lengths = ((0.17, 0.15, 0.12), (0.2, 0.12, 0.1), (0.22, 0.14, 0.11), (0.2, 0.13, 0.1), (0.15, 0.1, 0.09))
    for finger, root, steps, angle in zip(HAND_FINGERS, roots, lengths, (-0.7, -0.12, 0.0, 0.1, 0.22), strict=True):
        reach = np.concatenate([[0], np.cumsum(steps)])
        points[list(finger)] = np.array(root) + reach[:, None] * [np.cos(angle), np.sin(angle)]
    return points


FLAT = _flat_hand()


@dataclasses.dataclass
class Marks:
    """What is seen of a hand: pixels (n, 2) inside of its dots, the pixels (m, 2) of its lines with the finger of each, and the
    radius of a dot."""

    cores: np.ndarray
    lines: np.ndarray
    fingers: np.ndarray
    radius: float


class HandsReader:
    """Reads the hands of a film whose limbs have half the `width` in pixels, one frame after another."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.before: dict[int, np.ndarray] = {}  # by wrist, seen from it

    def read(self, frame: np.ndarray, body: np.ndarray) -> dict[int, np.ndarray]:
        """{body point of the wrist: points (21, 3)} of the hands that were read, in a frame uint8 (h, w, 3) RGB.

        body   OpenPose's 18 points (18, 3)
        """
        wrists = [wrist for wrist in (4, 7) if body[wrist, 2]]
        found = _find_marks(frame, body, wrists, self.width) if wrists else {}
        hands = {}
        for wrist in (4, 7):
            points = self._read_one(found[wrist], body, wrist) if wrist in found else None
            if points is None:
                self.before.pop(wrist, None)
            else:
                self.before[wrist] = points - body[wrist, :2]
                hands[wrist] = np.concatenate([points, np.ones((POINTS, 1))], 1)
        return hands

    def _read_one(self, marks: Marks, body: np.ndarray, wrist: int) -> np.ndarray | None:
        place = body[wrist, :2]
        reach = np.hypot(*(marks.cores - place).T).max()
        if reach < SMALLEST * marks.radius:
            return None
        fits = [_fit(self.before[wrist] + place, marks, STEPS)] if wrist in self.before else []
        if not fits or fits[0][1] > WELL * marks.radius:
            tries = sorted((_fit(start, marks, TRY_STEPS) for start in _starts(marks, place)), key=lambda fit: fit[1])
            fits += [_fit(begun, marks, FIRST_STEPS) for begun, _ in tries[:2]]
        points, off = min(fits, key=lambda fit: fit[1])
        covered = (cKDTree(points).query(marks.cores)[0] < marks.radius + 1).mean()
        return points if off < 2 * WELL * marks.radius and covered > LEAST_COVERED else None


def _find_marks(frame: np.ndarray, body: np.ndarray, wrists: list[int], width: float) -> dict[int, Marks]:
    """{wrist: marks of its hand}; no hand where two cannot be told apart."""
    hue, saturation, value = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    blue = ((hue >= BLUE[0] // 2) & (hue <= BLUE[1] // 2) & (saturation > 170) & (value > 170)).astype(np.uint8)
    depth = cv2.distanceTransform(blue, cv2.DIST_L2, 3)
    radius = width if not blue.any() else float(min(np.percentile(depth[blue > 0], 95), width + 0.5))
    cores = (depth > 0.7 * radius).astype(np.uint8)
    colourful = (saturation > LINE_SATURATION) & (value > LINE_BRIGHTNESS) & (blue == 0)
    lines = colourful & (_limbs(body, frame.shape, width) == 0)
    reach = 2 * int(CLOSE * width) + 1
    _, groups = cv2.connectedComponents(cv2.dilate(cores | lines, np.ones((reach, reach), np.uint8)))
    rows, columns = np.nonzero(cores)
    places, which = np.stack([columns, rows], -1).astype(np.float64), groups[rows, columns]
    owners: dict[int, list[int]] = {}
    for wrist in wrists:
        far = np.hypot(*(places - body[wrist, :2]).T) if len(places) else np.zeros(0)
        if len(far) and far.min() < NEAR * width:
            owners.setdefault(int(which[far.argmin()]), []).append(wrist)
    found = {}
    for group, claimed in owners.items():
        if len(claimed) == 1 and (which == group).sum() > 15:
            y, x = np.nonzero(lines & (groups == group))
            degrees = 2.0 * hue[y, x]
            clear = (degrees < BLUE[0] - 6) | (degrees > BLUE[1] + 6)
            fingers = ((degrees + 9) % 360 // 72).astype(int)
            found[claimed[0]] = Marks(places[which == group], np.stack([x, y], -1)[clear].astype(float), fingers[clear], radius)
    return found


def _limbs(body: np.ndarray, shape: tuple[int, ...], width: float) -> np.ndarray:
    """Where limbs are drawn."""
    image = np.zeros(shape[:2], np.uint8)
    for a, b in LIMBS:
        if body[a, 2] and body[b, 2]:
            ends = [tuple(int(value) for value in np.rint(body[end, :2])) for end in (a, b)]
            cv2.line(image, *ends, 1, 2 * int(np.ceil(width)) + 3)
    return image


def _starts(marks: Marks, wrist: np.ndarray) -> list[np.ndarray]:
    """Open and half closed hands of both sides, along the dots as seen from the wrist."""
    along = marks.cores.mean(0) - wrist
    size = float(np.percentile(np.hypot(*(marks.cores - wrist).T), 97))
    root = marks.cores[np.hypot(*(marks.cores - wrist).T).argmin()]
    starts = []
    for turn in (0.0, 0.4, -0.4):
        angle = np.arctan2(along[1], along[0]) + turn
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        starts += [root + size * (FLAT * [1, side * broad]) @ rotation for side in (1, -1) for broad in (1.0, 0.5)]
    return starts


def _fit(points: np.ndarray, marks: Marks, steps: int) -> tuple[np.ndarray, float]:
    """(points (21, 2) that lie closest to dots and lines, how far they are off in pixels). Every step is a linear least-squares
    problem: dots pull the nearest point, lines the nearest bone of their finger, and fingers bend evenly."""
    start, off = points, np.inf
    some = marks.cores[:: max(1, len(marks.cores) // 200)]
    line = slice(None, None, max(1, len(marks.lines) // 120))
    lines, fingers = marks.lines[line], marks.fingers[line]
    tree = cKDTree(marks.cores)
    for step in range(steps):
        matrix, right = np.zeros((POINTS, POINTS)), np.zeros((POINTS, 2))
        far, nearest = tree.query(points)
        np.fill_diagonal(matrix, 0.6)
        right += 0.6 * marks.cores[nearest]
        back, owner = cKDTree(points).query(some)
        weight = POINTS / len(some)
        matrix[np.diag_indices(POINTS)] += weight * np.bincount(owner, minlength=POINTS)
        right += weight * np.stack([np.bincount(owner, some[:, axis], POINTS) for axis in (0, 1)], -1)
        aside = _pull_lines(points, lines, fingers, matrix, right)
        matrix += BENDS
        hold = 0.15 / (1 + step)
        matrix[np.diag_indices(POINTS)] += hold
        right += hold * (start + (points - start).mean(0))
        points = np.linalg.solve(matrix, right)
        off = float((far.mean() + back.mean() + aside) / 2)
    return points, off


def _pull_lines(points: np.ndarray, lines: np.ndarray, fingers: np.ndarray, matrix: np.ndarray, right: np.ndarray) -> float:
    """Adds what the pixels of lines ask of the bones of their fingers; returns how far they are off, in pixels."""
    if not len(lines):
        return 0.0
    a, b = points[HEADS], points[TAILS]
    along = b - a
    t = np.clip(((lines[:, None] - a) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-6), 0, 1)
    far = np.hypot(*(a + t[..., None] * along - lines[:, None]).transpose(2, 0, 1))
    far[fingers[:, None] != np.arange(len(HEADS)) // 4] = np.inf
    rows, best = np.arange(len(lines)), far.argmin(1)
    t, far = t[rows, best], far[rows, best]
    shares = np.zeros((len(lines), POINTS))
    shares[rows, HEADS[best]], shares[rows, TAILS[best]] = 1 - t, t
    trust = (1.5 * POINTS / len(lines) / (1 + (far / 12) ** 2))[:, None]
    matrix += shares.T @ (trust * shares)
    right += shares.T @ (trust * lines)
    return float(np.minimum(far, 20).mean())


def _bends() -> np.ndarray:
    """(21, 21): what it asks of the points that fingers bend evenly."""
    matrix = np.zeros((POINTS, POINTS))
    for chain in HAND_FINGERS:
        for k in range(1, 3):
            row = np.zeros(POINTS)
            row[list(chain[k - 1 : k + 2])] = 0.45, -1.0, 0.55
            matrix += 0.35 * np.outer(row, row)
    return matrix


BENDS = _bends()
