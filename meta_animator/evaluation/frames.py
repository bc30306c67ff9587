"""How near generated frames are to the true ones: PSNR, SSIM, L1, LPIPS and flicker, over the frame, the person, the face and the
background."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import cv2
import numpy as np

Box: TypeAlias = tuple[float, float, float, float]
Mode: TypeAlias = Literal["standard", "disco_compat"]
Scores: TypeAlias = dict[str, list[float | None]]

PSNR_CEILING = 100.0
WINDOW = 7
HALF = WINDOW // 2
AT_ONCE = 16  # frames whose maps of LPIPS are held


class Perceptual(Protocol):
    """What `perceptual.Lpips` offers."""

    def __call__(self, generated: np.ndarray, truth: np.ndarray, unscaled: bool = False) -> list[float]: ...

    def maps(self, generated: np.ndarray, truth: np.ndarray) -> np.ndarray: ...


def frame_scores(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | Sequence[np.ndarray | None] | None = None,
    face_boxes: Sequence[Box | None] | None = None,
    lpips: Perceptual | None = None,
    mode: Mode = "standard",
) -> Scores:
    """{name: one value per frame}, in float64; None where a frame has no such region.

    generated, truth  uint8 (n, h, w, 3), RGB
    masks             n masks bool (h, w), the person; None where unknown
    face_boxes        n boxes (left, top, right, bottom) in pixels, right and bottom excluded; None where no face shows

    psnr     dB, 10 log10(255^2 / mean squared error), at most 100 (equal frames)
    ssim     Wang et al. 2004 as scikit-image computes it by default: uniform 7 x 7 window, mean over RGB
    l1       mean absolute difference, 0 to 255
    flicker  mean absolute difference between what changed since the frame before and what truly changed, 0 to 255: of a still
             picture, the true change; None for the first frame
    lpips    with `lpips` (see perceptual.py), the distance of the frame, 0 for equal ones

    With masks also each of them with `person_` and `background_`, the rest of the frame, and with face_boxes with `face_`: over
    the pixels of that region alone; of SSIM over the windows around them, of LPIPS over its map. `mean_scores` gives the means.

    mode "disco_compat" gives what the DisCo family of papers gives (Wangt-CN/DisCo, tool/metrics/ssim_l1_lpips_psnr.py): ssim of
    gray frames in 8 bits, l1 of the frame divided once more by h w, lpips of pixels that are not brought to [-1, 1], of the frame
    alone; and psnr_overflow, of 8-bit differences that overflow, which it was until April 2024.
    """
    _check(generated, truth, masks, face_boxes, mode)
    compat = mode == "disco_compat"
    regions = _regions(truth.shape, masks, face_boxes)
    scores = _pixel_scores(generated, truth, regions, gray=compat)
    if compat:
        scores["l1"] = [value / (truth.shape[1] * truth.shape[2]) for value in scores["l1"]]
        scores["psnr_overflow"] = [_psnr_of(float(np.mean((a - b) ** 2))) for a, b in zip(generated, truth, strict=True)]
    if lpips is None:
        return scores
    scores["lpips"] = [*lpips(generated, truth, unscaled=compat)]
    if regions and not compat:
        scores |= {f"{name}_lpips": [] for name in regions}
        for start in range(0, len(truth), AT_ONCE):  # maps are as large as frames, in float
            some = slice(start, start + AT_ONCE)
            maps = lpips.maps(generated[some], truth[some])
            for name, region in regions.items():
                means = [region_mean(values, where) for values, where in zip(maps, region[some], strict=True)]
                scores[f"{name}_lpips"] += means
    return scores


def mean_scores(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """Means of the values that there are; None where there are none."""
    return {name: _mean([value for value in values if value is not None]) for name, values in scores.items()}


def warped_flicker(generated: np.ndarray, truth: np.ndarray, flow: np.ndarray) -> list[float | None]:
    """As flicker of `frame_scores`, but along the true motion (Lai et al. 2018): mean absolute difference between what changed at
    a point since the frame before and what truly changed there, 0 to 255. One value per frame of uint8 (n, h, w, 3); None for
    the first and where no point is seen twice.

    flow   float32 (n - 1, h, w, 2): how far (x, y) away, in pixels, each pixel was in the frame before; NaN where it was not seen
    """
    _check(generated, truth, None, None)
    if flow.shape != (len(truth) - 1, *truth.shape[1:3], 2):
        raise ValueError(f"flow: expected {(len(truth) - 1, *truth.shape[1:3], 2)}, got {flow.shape}")
    rows, columns = np.mgrid[: truth.shape[1], : truth.shape[2]].astype(np.float32)
    difference = generated.astype(np.float32) - truth
    values: list[float | None] = [None]
    for k, moved in enumerate(flow):
        x, y = (np.nan_to_num(where) + grid for where, grid in zip(np.moveaxis(moved, -1, 0), (columns, rows), strict=True))
        before = cv2.remap(difference[k], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        values.append(region_mean(np.abs(difference[k + 1] - before), np.isfinite(moved[..., 0])))
    return values


def frame_metrics(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | None = None,
    face_boxes: Sequence[Box | None] | None = None,
    mode: Mode = "standard",
    lpips: Perceptual | None = None,
) -> dict[str, float | int | None]:
    """Means over frames of some of `frame_scores`, which says what is given, and what the names and the mode mean: psnr, ssim,
    l1, lpips, person_psnr, person_l1 and face_psnr; frames, person_frames and face_frames say how many frames stand behind each
    mean. A value that no frame has is None.
    """
    scores = frame_scores(generated, truth, masks, face_boxes, mode=mode)
    means = mean_scores(scores)
    return {
        "psnr": means["psnr"],
        **({} if lpips is None else {"lpips": _mean(lpips(generated, truth, unscaled=mode == "disco_compat"))}),
        **{name: means.get(name) for name in ("ssim", "l1", "person_psnr", "person_l1", "face_psnr")},
        "frames": len(truth),
        **{f"{name}_frames": sum(v is not None for v in scores.get(f"{name}_psnr", ())) for name in ("person", "face")},
    }


def _pixel_scores(
    generated: np.ndarray, truth: np.ndarray, regions: Mapping[str, Sequence[np.ndarray | None]], gray: bool = False
) -> Scores:
    """All but LPIPS of `frame_scores`."""
    whole = np.ones(truth.shape[1:3], bool)
    everywhere = {"": [whole] * len(truth)} | {f"{name}_": where for name, where in regions.items()}
    scores: Scores = {prefix + metric: [] for prefix in everywhere for metric in ("psnr", "ssim", "l1", "flicker")}
    before = None
    for k, (ours, theirs) in enumerate(zip(generated, truth, strict=True)):
        difference = ours.astype(np.float64) - theirs
        likeness = ssim_map(ours, theirs, gray)
        for prefix, masks in everywhere.items():
            inside = masks[k] if masks[k] is not None and masks[k].any() else None
            scores[prefix + "psnr"].append(None if inside is None else psnr(difference[inside]))
            scores[prefix + "ssim"].append(region_mean(likeness, None if inside is None else inside[HALF:-HALF, HALF:-HALF]))
            scores[prefix + "l1"].append(region_mean(np.abs(difference), inside))
            scores[prefix + "flicker"].append(None if before is None else region_mean(np.abs(difference - before), inside))
        before = difference
    return scores


def region_mean(values: np.ndarray, inside: np.ndarray | None) -> float | None:
    """Mean of (h, w) or (h, w, c) where the mask bool (h, w) is True; None where that is nowhere, or the mask is None."""
    return None if inside is None or not inside.any() else float(values[inside].mean())


def _regions(
    shape: tuple[int, ...], masks: np.ndarray | Sequence[np.ndarray | None] | None, face_boxes: Sequence[Box | None] | None
) -> dict[str, list[np.ndarray | None]]:
    """{"person", "background", "face": a mask bool (h, w) or None for each frame}, as far as given, of frames (n, h, w, 3)."""
    regions: dict[str, list[np.ndarray | None]] = {}
    if masks is not None:
        regions["person"] = list(masks)
        regions["background"] = [None if mask is None else ~mask for mask in masks]
    if face_boxes is not None:
        regions["face"] = [None if box is None else _inside(box, shape[1], shape[2]) for box in face_boxes]
    return regions


def _inside(box: Box, height: int, width: int) -> np.ndarray:
    """Mask bool (h, w) of a box, which may reach over the border."""
    left, top, right, bottom = (max(round(value), 0) for value in box)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def psnr(difference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of a difference of 8-bit values, at most 100."""
    return _psnr_of(float(np.mean(np.square(difference, dtype=np.float64))))


def _psnr_of(mean_square: float) -> float:
    return min(10 * np.log10(255.0**2 / mean_square), PSNR_CEILING) if mean_square > 0 else PSNR_CEILING


def ssim(generated: np.ndarray, truth: np.ndarray, gray: bool = False) -> float:
    """Mean of `ssim_map` over windows and channels."""
    return float(ssim_map(generated, truth, gray).mean())


def ssim_map(generated: np.ndarray, truth: np.ndarray, gray: bool = False) -> np.ndarray:
    """Structural similarity of two uint8 (h, w, 3) frames, at least 7 pixels high and wide: Wang et al. 2004, eq. 13, over
    uniform windows of 7 x 7 that lie inside, with sample covariances: float64 (h - 6, w - 6, 3), of each window's middle pixel.

    gray   of their luma in 8 bits instead (BT.601, as OpenCV has it): (h - 6, w - 6)
    """
    x, y = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if gray else frame for frame in (truth, generated))
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _window_means(x), _window_means(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x, var_y = (sample * (_window_means(v * v) - m * m) for v, m in ((x, mean_x), (y, mean_y)))
    covariance = sample * (_window_means(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means over all windows that lie inside float64 (h, w) or (h, w, c)."""
    if min(values.shape[:2]) < WINDOW:
        raise ValueError(f"expected frames of at least {WINDOW} x {WINDOW} pixels, got {values.shape[1]} x {values.shape[0]}")
    return cv2.blur(values, (WINDOW, WINDOW))[HALF:-HALF, HALF:-HALF]


def _check(
    generated: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray | Sequence[np.ndarray | None] | None,
    face_boxes: Sequence[Box | None] | None,
    mode: str = "standard",
) -> None:
    for name, frames in (("generated", generated), ("truth", truth)):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
            raise ValueError(f"{name}: expected uint8 (n, h, w, 3), got {frames.dtype} {frames.shape}")
    if generated.shape != truth.shape:
        raise ValueError(f"generated and truth must have one shape, got {generated.shape} and {truth.shape}")
    for name, given in (("masks", masks), ("face_boxes", face_boxes)):
        if given is not None and len(given) != len(truth):
            raise ValueError(f"{name}: expected {len(truth)}, got {len(given)}")
    for mask in () if masks is None else masks:
        if mask is not None and (mask.dtype != bool or mask.shape != truth.shape[1:3]):
            raise ValueError(f"masks: expected bool {truth.shape[1:3]}, got {mask.dtype} {mask.shape}")
    if mode not in ("standard", "disco_compat"):
        raise ValueError(f"mode: expected standard or disco_compat, got {mode!r}")


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
