"""YOLOX, trained on COCO: people's boxes.

The network's conventions: BGR, 0 to 255, the picture in the upper left of a square, 114 around it; its answers are relative to
cells of 8, 16 and 32 pixels (github.com/Megvii-BaseDetection/YOLOX, Apache-2.0). Exports that end with non-maximum suppression
answer with boxes and scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from meta_animator.annotators.base import Detection, Detector
from meta_animator.annotators.onnx_network import OnnxNetwork
from meta_animator.annotators.overlap import overlaps

SIZE, STRIDES, PAD = (640, 640), (8, 16, 32), 114
PERSON = 0  # COCO's class
LEAST, OVERLAP = 0.3, 0.45  # of scores; of boxes from which on two are one person's


class Yolox(Detector):
    """People's boxes."""

    name = "yolox"

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files of yolox. Raises UserError where it is another network."""
        self.network = OnnxNetwork(files["yolox"], device)
        self.size = self.network.picture_size(SIZE)
        shape = next(iter(self.network.shapes.values()))
        if len(shape) != 4 or len(self.network.shapes) != 1:
            raise self.network.fail("YOLOX, one picture (1, 3, h, w)")

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> list[Detection]:
        pixels, scale = letterbox(frame, self.size)
        answer = self.network(pixels)[self.network.outputs[0]]
        if answer.ndim != 3 or answer.shape[-1] < 5:
            raise self.network.fail("answers (1, n, 5 or more)")
        boxes, scores = (answer[0, :, :4], answer[0, :, 4]) if answer.shape[-1] == 5 else decode(answer[0], self.size)
        boxes = np.clip(boxes / scale, 0, np.tile(frame.shape[1::-1], 2))
        seen = (scores >= LEAST) & (np.minimum(*(boxes[:, 2:] - boxes[:, :2]).T) > 0)
        boxes, scores = boxes[seen], scores[seen]
        kept = without_doubles(boxes, scores)
        return [Detection(box=boxes[k].astype(np.float64), score=min(float(scores[k]), 1.0)) for k in kept]


def letterbox(frame: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """float32 (1, 3, height, width) of a frame, RGB, as YOLOX takes it, and its scale there."""
    scale = min(size[0] / frame.shape[0], size[1] / frame.shape[1])
    height, width = (max(1, int(side * scale)) for side in frame.shape[:2])
    square = np.full((*size, 3), PAD, np.uint8)
    square[:height, :width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square[..., ::-1].transpose(2, 0, 1)[None], np.float32), scale


def decode(answers: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4), in pixels of the square, and people's scores (n,) of answers (n, 5 + classes) for each cell."""
    cells, steps = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([x, y], -1).reshape(-1, 2))
        steps.append(np.full((len(cells[-1]), 1), stride))
    grid, step = np.concatenate(cells), np.concatenate(steps)
    centres, sides = (answers[:, :2] + grid) * step, np.exp(answers[:, 2:4]) * step
    return np.concatenate([centres - sides / 2, centres + sides / 2], 1), answers[:, 4] * answers[:, 5 + PERSON]


def without_doubles(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Indices of the boxes (n, 4) that no better one overlaps, the best first."""
    kept: list[int] = []
    rest = np.argsort(-scores, kind="stable")
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        rest = rest[overlaps(boxes[best], boxes[rest]) <= OVERLAP]
    return kept
