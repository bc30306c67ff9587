"""Overlapping temporal windows: a clip of any length through a network that sees a few frames at a time."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from meta_animator.errors import UserError
from meta_animator.sampling.sharing import Shares


def temporal_windows(num_frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open frame ranges that cover the clip, neighbours sharing at least `overlap` frames; all of equal length.

    One range where the clip fits into a window. The last one is moved back rather than cut short.
    Raises UserError unless 0 <= overlap < window.
    """
    if not 0 <= overlap < window:
        raise UserError(f"sample.overlap: {overlap} must be at least 0 and less than sample.window ({window})")
    if num_frames <= window:
        return [(0, num_frames)]
    starts = [*range(0, num_frames - window, window - overlap), num_frames - window]
    return [(start, start + window) for start in starts]


def window_weights(num_frames: int, windows: list[tuple[int, int]], overlap: int) -> Tensor:
    """(windows, num_frames), non-negative; every column sums to 1. A window fades in and out over `overlap` frames."""
    weights = torch.zeros(len(windows), num_frames, dtype=torch.float64)
    for row, (start, stop) in zip(weights, windows, strict=True):
        place = torch.arange(stop - start, dtype=torch.float64)
        rise = (place + 1) if start > 0 else torch.full_like(place, torch.inf)
        fall = (stop - start - place) if stop < num_frames else torch.full_like(place, torch.inf)
        row[start:stop] = torch.minimum(rise, fall).clamp(max=overlap + 1)
    return weights / weights.sum(0)


def predict_in_windows(
    predict: Callable[[Tensor, slice | Tensor], Tensor], x_t: Tensor, windows: list[tuple[int, int]], weights: Tensor,
    references: int = 0, shares: Shares | None = None,
) -> Tensor:  # fmt: skip
    """Blend `predict(x_t[:, places], places)` over the windows; x_t and the result are (b r+f c h w).

    With one window the result is that window's prediction, exactly.

    references   r, so many frames before the clip's f, to which `windows` and `weights` do not count: every window sees them, and
                 what is predicted of them is the mean over windows
    shares       of several processes, which each predict some of the windows; where there is one window, all predict it
    """
    if len(windows) == 1:
        return predict(x_t, slice(0, x_t.shape[1]))
    total, weights = torch.zeros_like(x_t), weights.to(x_t)
    for number in range(len(windows)) if shares is None else shares.own(len(windows)):
        (start, stop), row = windows[number], weights[number]
        places, part = slice(start, stop), row[start:stop]
        if references:
            places = torch.tensor([*range(references), *range(references + start, references + stop)], device=x_t.device)
            part = torch.cat([row.new_full((references,), 1 / len(windows)), part])
        total[:, places] += rearrange(part, "f -> 1 f 1 1 1") * predict(x_t[:, places], places)
    return total if shares is None else shares.total(total)
