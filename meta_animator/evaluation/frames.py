"""How near generated frames are to the true ones: PSNR, SSIM and L1, over the frame, the person and the face."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import cv2
import numpy as np

Box: TypeAlias = tuple[float, float, float, float]
Mode: TypeAlias = Literal["standard", "disco_compat"]

PSNR_CEILING = 100.0
WINDOW = 7
LUMA = np.array([0.2125, 0.7154, 0.0721])


def frame_metrics(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | None = None,
    face_boxes: Sequence[Box | None] | None = None,
    mode: Mode = "standard",
    lpips: Callable[..., list[float]] | None = None,
) -> dict[str, float | int | None]:
    """Means over frames of per-frame values, in float64; a value that no frame has is None.

    generated, truth  uint8 (n, h, w, 3), RGB
    masks             bool (n, h, w), the person; frames without one are left out of `person_*`
    face_boxes        n boxes (left, top, right, bottom) in pixels, right and bottom excluded; None where no face
                      shows: such frames are left out of `face_*`

    psnr    dB, 10 log10(255^2 / mean squared error of the frame), at most 100 (equal frames)
    ssim    Wang et al. 2004 as scikit-image computes it by default: uniform 7 x 7 window, mean over RGB
    l1      mean absolute difference, 0 to 255
    person_psnr, person_l1, face_psnr   the same over the pixels of the mask or the box
    lpips   with `lpips` (see perceptual.py), the distance of the frame, 0 for equal ones
    frames, person_frames, face_frames  how many frames stand behind each mean

    mode "disco_compat" gives ssim, l1 and lpips in the units of the DisCo family of papers: SSIM of gray frames, l1
    divided once more by h w, LPIPS of pixels that are not brought to [-1, 1].
    """
    _check(generated, truth, masks, face_boxes, mode)
    difference = generated.astype(np.float64) - truth.astype(np.float64)
    people = [] if masks is None else [d[m] for d, m in zip(difference, masks, strict=True) if m.any()]
    faces = [_crop(d, box) for d, box in zip(difference, face_boxes or (), strict=False) if box is not None]
    faces = [face for face in faces if face.size > 0]
    pixels = difference.shape[1] * difference.shape[2]
    return {
        "psnr": _mean([psnr(d) for d in difference]),
        **({} if lpips is None else {"lpips": _mean(lpips(generated, truth, unscaled=mode == "disco_compat"))}),
        "ssim": _mean([ssim(a, b, gray=mode == "disco_compat") for a, b in zip(generated, truth, strict=True)]),
        "l1": float(np.abs(difference).mean()) / (pixels if mode == "disco_compat" else 1),
        "person_psnr": _mean([psnr(d) for d in people]),
        "person_l1": _mean([float(np.abs(d).mean()) for d in people]),
        "face_psnr": _mean([psnr(d) for d in faces]),
        "frames": len(difference),
        "person_frames": len(people),
        "face_frames": len(faces),
    }


def psnr(difference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of a difference of 8-bit values, at most 100."""
    mean_square = float(np.mean(np.square(difference, dtype=np.float64)))
    return min(10 * np.log10(255.0**2 / mean_square), PSNR_CEILING) if mean_square > 0 else PSNR_CEILING


def ssim(generated: np.ndarray, truth: np.ndarray, gray: bool = False) -> float:
    """Structural similarity of two uint8 (h, w, 3) frames, at least 7 pixels high and wide: Wang et al. 2004, eq. 13, over
    uniform windows of 7 x 7 that lie inside, with sample covariances; the mean over windows and channels.

    gray   of their luma (0.2125, 0.7154, 0.0721) instead
    """
    x, y = (frame.astype(np.float64) @ LUMA if gray else frame.astype(np.float64) for frame in (truth, generated))
    mean_x, mean_y = _window_means(x), _window_means(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x, var_y = (sample * (_window_means(v * v) - m * m) for v, m in ((x, mean_x), (y, mean_y)))
    covariance = sample * (_window_means(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means over all windows that lie inside float64 (h, w) or (h, w, c)."""
    if min(values.shape[:2]) < WINDOW:
        raise ValueError(f"expected frames of at least {WINDOW} x {WINDOW} pixels, got {values.shape[1]} x {values.shape[0]}")
    half = WINDOW // 2
    return cv2.blur(values, (WINDOW, WINDOW))[half:-half, half:-half]


def _check(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | None,
    face_boxes: Sequence[Box | None] | None,
    mode: str,
) -> None:
    for name, frames in (("generated", generated), ("truth", truth)):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
            raise ValueError(f"{name}: expected uint8 (n, h, w, 3), got {frames.dtype} {frames.shape}")
    if generated.shape != truth.shape:
        raise ValueError(f"generated and truth must have one shape, got {generated.shape} and {truth.shape}")
    if masks is not None and (masks.dtype != bool or masks.shape != truth.shape[:3]):
        raise ValueError(f"masks: expected bool {truth.shape[:3]}, got {masks.dtype} {masks.shape}")
    if face_boxes is not None and len(face_boxes) != len(truth):
        raise ValueError(f"face_boxes: expected {len(truth)}, got {len(face_boxes)}")
    if mode not in ("standard", "disco_compat"):
        raise ValueError(f"mode: expected standard or disco_compat, got {mode!r}")


def _crop(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of (h, w, 3) inside a box, which may reach over the border; empty where they do not meet."""
    left, top, right, bottom = (max(round(value), 0) for value in box)
    return image[top:bottom, left:right]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
