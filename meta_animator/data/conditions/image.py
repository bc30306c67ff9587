"""Condition images taken from the frame itself: person or scene left out, edges, blur."""

import cv2
import numpy as np

from meta_animator.data.conditions.condition import Condition
from meta_animator.data.layers import Layers

CANNY_THRESHOLDS = (100, 200)
BLUR_SIGMA = 0.03  # as a share of the picture's shorter side: 15 pixels of 512


def draw_fg_inpainting(layers: Layers) -> np.ndarray:
    """The person cut out on black; the scene is to be filled in: uint8 (h, w, 3) RGB."""
    return layers.frame * layers.mask[..., None]


def draw_bg_outpainting(layers: Layers) -> np.ndarray:
    """The scene with the person blacked out; the person is to be filled in: uint8 (h, w, 3) RGB."""
    return layers.frame * ~layers.mask[..., None]


def draw_canny(layers: Layers) -> np.ndarray:
    """Canny edges of the whole frame, white on black: uint8 (h, w, 3)."""
    edges = cv2.Canny(np.ascontiguousarray(layers.frame), *CANNY_THRESHOLDS)
    return np.repeat(edges[..., None], 3, axis=2)


def draw_blurred(layers: Layers) -> np.ndarray:
    """The frame under a Gaussian blur that keeps colours and layout only: uint8 (h, w, 3) RGB."""
    sigma = BLUR_SIGMA * min(layers.size)
    kernel = cv2.getGaussianKernel(round(6 * sigma + 1) | 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(np.ascontiguousarray(layers.frame), -1, kernel, kernel)  # cv2.GaussianBlur takes three times as long


FG_INPAINTING = Condition("fg_inpainting", "foreground", ("frame", "mask"), draw_fg_inpainting)
BG_OUTPAINTING = Condition("bg_outpainting", "background", ("frame", "mask"), draw_bg_outpainting)
CANNY = Condition("canny", "global", ("frame",), draw_canny)
BLURRED = Condition("blurred", "global", ("frame",), draw_blurred)
