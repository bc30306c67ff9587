"""Condition images that colour a stored map: depth, normals, body parts."""

import cv2
import numpy as np

from meta_animator.data.conditions.condition import Condition
from meta_animator.data.layers import PARTS, Layers

DEPTH_BACKGROUND = 100  # grey level
PART_COLOURS = {
    "background": (50, 50, 50), "apparel": (255, 214, 10), "face_neck": (120, 190, 255), "hair": (240, 30, 110),
    "left_foot": (170, 20, 200), "left_hand": (255, 40, 220), "left_lower_arm": (10, 150, 200),
    "left_lower_leg": (20, 240, 140), "left_shoe": (200, 20, 130), "left_sock": (160, 60, 255),
    "left_upper_arm": (255, 110, 10), "left_upper_leg": (30, 240, 240), "lower_clothing": (70, 40, 240),
    "right_foot": (130, 70, 20), "right_hand": (210, 130, 10), "right_lower_arm": (240, 30, 20),
    "right_lower_leg": (90, 240, 20), "right_shoe": (180, 200, 20), "right_sock": (190, 250, 90),
    "right_upper_arm": (110, 20, 190), "right_upper_leg": (40, 80, 200), "torso": (10, 140, 250),
    "upper_clothing": (30, 190, 20), "lower_lip": (10, 130, 80), "upper_lip": (200, 60, 30),
    "lower_teeth": (230, 205, 130), "upper_teeth": (120, 225, 120), "tongue": (155, 110, 145),
}  # fmt: skip


def draw_depth(layers: Layers) -> np.ndarray:
    """Nearness of the person in inferno colours, near bright; flat grey elsewhere: uint8 (h, w, 3) RGB."""
    level = np.rint(np.clip(layers.depth, 0, 1) * 255).astype(np.uint8)
    image = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.where(layers.mask[..., None], image, np.uint8(DEPTH_BACKGROUND))


def draw_normal(layers: Layers) -> np.ndarray:
    """(n + 1) / 2 as RGB, black where there is no surface: uint8 (h, w, 3)."""
    image = np.rint((np.clip(layers.normal, -1, 1) + 1) * 127.5).astype(np.uint8)
    return image * (np.abs(layers.normal).max(-1, keepdims=True) > 0)


def draw_seg(layers: Layers) -> np.ndarray:
    """Every body part in its colour of PART_COLOURS: uint8 (h, w, 3) RGB."""
    palette = np.array([PART_COLOURS[part] for part in PARTS], np.uint8)
    return palette[layers.parts]


DEPTH = Condition("depth", "foreground", ("depth", "mask"), draw_depth)
NORMAL = Condition("normal", "foreground", ("normal",), draw_normal, sided=True)
SEG = Condition("seg", "foreground", ("parts",), draw_seg, sided=True)
