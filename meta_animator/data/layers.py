"""What is stored of a frame. Every condition image is a function of these layers."""

import dataclasses

import numpy as np

LAYER_NAMES = ("frame", "mask", "keypoints", "depth", "normal", "parts")

# Body-part labels follow the 28 classes of Sapiens (Goliath); 0 is the background.
PARTS = (
    "background", "apparel", "face_neck", "hair", "left_foot", "left_hand", "left_lower_arm", "left_lower_leg",
    "left_shoe", "left_sock", "left_upper_arm", "left_upper_leg", "lower_clothing", "right_foot", "right_hand",
    "right_lower_arm", "right_lower_leg", "right_shoe", "right_sock", "right_upper_arm", "right_upper_leg", "torso",
    "upper_clothing", "lower_lip", "upper_lip", "lower_teeth", "upper_teeth", "tongue",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
    """One frame and its ground truth (or estimates); a layer that is not known is None.

    frame      uint8 (h, w, 3), RGB
    mask       bool (h, w), True on the person
    keypoints  float32 (133, 3), COCO-WholeBody order: x, y in pixels (pixel centres at integers), score in [0, 1];
               score 0 means hidden or unknown
    depth      float32 (h, w), relative nearness of the person in [0, 1], 1 nearest; 0 on the background
    normal     float32 (h, w, 3), unit vectors in the camera frame (x right, y up, z towards the camera);
               zero on the background
    parts      uint8 (h, w), an index into PARTS
    """

    frame: np.ndarray
    mask: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    depth: np.ndarray | None = None
    normal: np.ndarray | None = None
    parts: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frame.shape[0], self.frame.shape[1]
