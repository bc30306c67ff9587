"""Depth Anything V2: how near the parts of a person are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.transformers_network import load_network

FLOOR = 0.1  # nearness of the farthest point of a person
ENDS = (1, 99)  # percentiles that count as the farthest and the nearest: edges bleed into the background
AT_ONCE = 4


class DepthAnything(Annotator):
    """Relative nearness of a person whose mask is known, frame by frame: from FLOOR, the farthest that is seen of the person, to
    1. What the network itself says is in a scale of each frame's own."""

    name = "depth-anything"
    gives = ("depth",)

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files   of depth_anything: a folder as transformers writes it. Raises UserError where it cannot be read."""
        from transformers import DepthAnythingForDepthEstimation, DPTImageProcessor

        self.network = load_network(DepthAnythingForDepthEstimation, files["depth_anything"], device)
        backbone = self.network.config.backbone_config
        side = backbone.image_size
        self.processor = DPTImageProcessor(
            size={"height": side, "width": side}, keep_aspect_ratio=True, ensure_multiple_of=backbone.patch_size,
            resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
        )  # fmt: skip

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        seen = [k for k, person in enumerate(people) if person is not None and known[k].get("mask", np.zeros(1)).any()]
        values: dict[int, np.ndarray] = {}
        for start in range(0, len(seen), AT_ONCE):
            group = seen[start : start + AT_ONCE]
            same = len({frames[k].shape for k in group}) == 1
            for together in [group] if same else [[k] for k in group]:
                values |= dict(zip(together, self._run([frames[k] for k in together]), strict=True))
        return [{"depth": to_nearness(values[k], known[k]["mask"])} if k in values else {} for k in range(len(frames))]

    def _run(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        """The network's nearness (h, w), in a scale of its own: larger is nearer."""
        import torch

        pixels = self.processor(images=frames, return_tensors="pt").pixel_values.to(self.network.device)
        with torch.inference_mode():
            answer = self.network(pixels)
        sizes = [frame.shape[:2] for frame in frames]
        found = self.processor.post_process_depth_estimation(answer, target_sizes=sizes)
        return [one["predicted_depth"].float().cpu().numpy() for one in found]


def to_nearness(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The layer `depth`, float32 (h, w), of values (h, w) that grow with nearness; 0 off the mask (h, w)."""
    far, near = np.percentile(values[mask], ENDS)
    scaled = FLOOR + (1 - FLOOR) * np.clip((values - far) / max(float(near - far), 1e-9), 0, 1)
    return np.where(mask, scaled, 0).astype(np.float32)
