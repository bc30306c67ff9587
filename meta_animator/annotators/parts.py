"""Body parts, from networks whose licences are not permissive: only where they are asked for by name.

SegFormer tells clothes, hair, face and each whole arm and leg; where the person's points are known, arms and legs are divided
at their joints. Sapiens2 tells the layer's parts itself, and glasses.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.transformers_network import load_network
from meta_animator.data import keypoints as kp
from meta_animator.data.layers import PARTS

MARGIN = 0.1  # of the person's box, on each side, that is shown
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What SegFormer's labels are here; those of "Left-arm" and the like by the sides that it names, until joints say better.
CLOTHES = (
    "background", "apparel", "hair", "apparel", "upper_clothing", "lower_clothing", "lower_clothing", "upper_clothing",
    "lower_clothing", "left_shoe", "right_shoe", "face_neck", "left_lower_leg", "right_lower_leg", "left_lower_arm",
    "right_lower_arm", "apparel", "apparel",
)  # fmt: skip
SAPIENS2_SIZE = (1024, 768)
SAPIENS2 = ("background", "apparel", "apparel", *PARTS[2:])  # it has glasses as its third

BONES = {  # part: (point, point), for each kind of limb
    "arm": {
        "left_upper_arm": (kp.LEFT_SHOULDER, kp.LEFT_ELBOW), "left_lower_arm": (kp.LEFT_ELBOW, kp.LEFT_WRIST),
        "left_hand": (kp.LEFT_WRIST, kp.LEFT_HAND.start + 12),
        "right_upper_arm": (kp.RIGHT_SHOULDER, kp.RIGHT_ELBOW), "right_lower_arm": (kp.RIGHT_ELBOW, kp.RIGHT_WRIST),
        "right_hand": (kp.RIGHT_WRIST, kp.RIGHT_HAND.start + 12),
    },
    "leg": {
        "left_upper_leg": (kp.LEFT_HIP, kp.LEFT_KNEE), "left_lower_leg": (kp.LEFT_KNEE, kp.LEFT_ANKLE),
        "left_foot": (kp.LEFT_HEEL, kp.LEFT_BIG_TOE),
        "right_upper_leg": (kp.RIGHT_HIP, kp.RIGHT_KNEE), "right_lower_leg": (kp.RIGHT_KNEE, kp.RIGHT_ANKLE),
        "right_foot": (kp.RIGHT_HEEL, kp.RIGHT_BIG_TOE),
    },
    "shoe": {"left_shoe": (kp.LEFT_ANKLE, kp.LEFT_BIG_TOE), "right_shoe": (kp.RIGHT_ANKLE, kp.RIGHT_BIG_TOE)},
}  # fmt: skip
LIMBS = {"arm": ("left_lower_arm", "right_lower_arm"), "leg": ("left_lower_leg", "right_lower_leg"),
         "shoe": ("left_shoe", "right_shoe")}  # fmt: skip


class _Parts(Annotator):
    """Parts of the person in a box, off whose mask, where it is known, all is background."""

    gives = ("parts",)
    labels: ClassVar[tuple[str, ...]]
    size: tuple[int, int]  # height, width

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        return [
            {} if person is None else {"parts": self._of_person(frame, person, layers)}
            for frame, person, layers in zip(frames, people, known, strict=True)
        ]

    def _of_person(self, frame: np.ndarray, person: Detection, layers: Mapping[str, np.ndarray]) -> np.ndarray:
        rows, columns = window(person.box, frame.shape[:2])
        parts = np.zeros(frame.shape[:2], np.uint8)
        parts[rows, columns] = index_of(self.labels)[self._run(frame[rows, columns])]
        if layers.get("mask") is not None:
            parts[~layers["mask"]] = 0
        return parts

    def _run(self, picture: np.ndarray) -> np.ndarray:
        """Labels (h, w) of a picture."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].to(self.network.device).float() / 255
        pixels = _resize(pixels, self.size)
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (MEAN, STD))
        with torch.inference_mode():
            logits = self.network(pixel_values=(pixels - mean) / std).logits
        return _resize(logits.float(), picture.shape[:2])[0].argmax(0).cpu().numpy()

    def _load(self, kind: type, folder: Path, device: str) -> None:
        from meta_animator.errors import UserError

        self.network = load_network(kind, folder, device)
        if (count := self.network.config.num_labels) != len(self.labels):
            raise UserError(f"weights {folder}: expected {len(self.labels)} labels, it has {count}")


class SegFormer(_Parts):
    """Clothes, hair, face, arms and legs (mattmdjaga/segformer_b2_clothes)."""

    name = "segformer"
    labels, size = CLOTHES, (512, 512)

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files   of segformer: a folder as transformers writes it. Raises UserError where it cannot be read."""
        from transformers import SegformerForSemanticSegmentation

        self._load(SegformerForSemanticSegmentation, files["segformer"], device)

    def _of_person(self, frame: np.ndarray, person: Detection, layers: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = super()._of_person(frame, person, layers)
        return parts if layers.get("keypoints") is None else divide_limbs(parts, layers["keypoints"])


class Sapiens2(_Parts):
    """All 28 parts (facebook/sapiens2-seg)."""

    name = "sapiens2"
    labels = SAPIENS2

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files   of sapiens2: a folder as transformers writes it. Raises UserError where it cannot be read."""
        from transformers import Sapiens2ForSemanticSegmentation

        self._load(Sapiens2ForSemanticSegmentation, files["sapiens2"], device)
        sides = self.network.config.image_size
        self.size = tuple(sides) if isinstance(sides, list | tuple) else SAPIENS2_SIZE


def index_of(labels: Sequence[str]) -> np.ndarray:
    """{their label: index into PARTS}, as an array."""
    return np.array([PARTS.index(label) for label in labels], np.uint8)


def window(box: np.ndarray, picture: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a picture (h, w) around a box (x0, y0, x1, y1), at least one pixel each."""
    width, height = box[2:] - box[:2]
    x0, y0 = box[0] - MARGIN * width, box[1] - MARGIN * height
    x1, y1 = box[2] + MARGIN * width, box[3] + MARGIN * height
    left, top = min(max(int(x0), 0), picture[1] - 1), min(max(int(y0), 0), picture[0] - 1)
    right, bottom = max(min(int(np.ceil(x1)), picture[1]), left + 1), max(min(int(np.ceil(y1)), picture[0]), top + 1)
    return slice(top, bottom), slice(left, right)


def divide_limbs(parts: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Parts (h, w) with each pixel of an arm, a leg or a shoe given to the bone of that kind that is nearest, among those whose
    points (133, 3) are seen. Where none is seen it stays."""
    divided = parts.copy()
    for limb, names in LIMBS.items():
        pixels = np.isin(parts, [PARTS.index(name) for name in names])
        seen = {name: bone for name, bone in BONES[limb].items() if (keypoints[list(bone), 2] >= kp.VISIBLE).all()}
        if not seen or not pixels.any():
            continue
        y, x = np.nonzero(pixels)
        points = np.stack([x, y], -1).astype(np.float32)
        distances = np.stack([_distance(points, *(keypoints[point, :2] for point in bone)) for bone in seen.values()])
        divided[pixels] = index_of(list(seen))[distances.argmin(0)]
    return divided


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Of points (n, 2) from the line between two points."""
    along = end - start
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-9), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)


def _resize(values, size: tuple[int, int]):
    from torch.nn.functional import interpolate

    return interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=values.shape[1] == 3)
