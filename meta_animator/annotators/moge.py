"""MoGe-2: surface normals.

Its frame is OpenCV's: x right, y down, z away from the camera, so that a surface that faces the camera has a normal with
negative z. Ours, the layer's, has y up and z towards the camera. Inputs and outputs as github.com/microsoft/MoGe, docs/onnx.md,
has them (MIT): image in [0, 1], num_tokens; points, normal, mask, metric_scale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.onnx_network import OnnxNetwork

TOKENS = 2500  # how finely it looks; 1200 to 3600 are usual
LONGEST = 1024  # longer sides are shown smaller
TO_OURS = np.array([1, -1, -1], np.float32)
VALID = 0.5


class MoGe(Annotator):
    """Normals of a person whose mask is known, frame by frame; where the network sees no surface they stay zero."""

    name = "moge"
    gives = ("normal",)

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files of one network. Raises UserError where it gives no normals."""
        self.network = OnnxNetwork(next(iter(files.values())), device)
        if "normal" not in self.network.outputs or "image" not in self.network.shapes:
            raise self.network.fail("MoGe-2 with normals, 'image' in, 'normal' out")

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        masks = [None if person is None else layers.get("mask") for person, layers in zip(people, known, strict=True)]
        return [
            {"normal": self._normals(frame, mask)} if mask is not None and mask.any() else {}
            for frame, mask in zip(frames, masks, strict=True)
        ]

    def _normals(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = min(1, LONGEST / max(height, width))
        size = self.network.picture_size((round(height * scale), round(width * scale)))
        shown = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        inputs = {"image": np.ascontiguousarray(shown.transpose(2, 0, 1)[None], np.float32) / 255}
        if "num_tokens" in self.network.shapes:
            inputs["num_tokens"] = np.array(TOKENS, np.int64)
        answer = self.network(inputs)
        normal = np.nan_to_num(answer["normal"][0]) * TO_OURS
        if "mask" in answer:
            normal[answer["mask"][0] <= VALID] = 0
        normal = cv2.resize(normal, (width, height), interpolation=cv2.INTER_LINEAR)
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return np.where(mask[..., None] & (length > 0.1), normal / np.maximum(length, 1e-6), 0).astype(np.float32)
