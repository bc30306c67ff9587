"""How near generated frames are to the true ones: PSNR, SSIM and L1, over the frame, the person and the face."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

Box: TypeAlias = tuple[float, float, float, float]
Mode: TypeAlias = Literal["standard", "disco_compat"]

PSNR_CEILING = 100.0


def frame_metrics(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | None = None,
    face_boxes: Sequence[Box | None] | None = None,
    mode: Mode = "standard",
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
    frames, person_frames, face_frames  how many frames stand behind each mean

    mode "disco_compat" gives ssim and l1 in the units of the DisCo family of papers: SSIM of gray frames, and l1
    divided once more by h w.
    """
    _check(generated, truth, masks, face_boxes, mode)
    difference = generated.astype(np.float64) - truth.astype(np.float64)
    people = [] if masks is None else [d[m] for d, m in zip(difference, masks, strict=True) if m.any()]
    faces = [_crop(d, box) for d, box in zip(difference, face_boxes or (), strict=False) if box is not None]
    faces = [face for face in faces if face.size > 0]
    pixels = difference.shape[1] * difference.shape[2]
    return {
        "psnr": _mean([psnr(d) for d in difference]),
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
    """Structural similarity of two uint8 (h, w, 3) frames, at least 7 pixels high and wide."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    if gray:
        return float(structural_similarity(rgb2gray(truth) * 255, rgb2gray(generated) * 255, data_range=255))
    return float(structural_similarity(truth, generated, channel_axis=-1, data_range=255))


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
