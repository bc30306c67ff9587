"""What people look at after a run: one sheet of pictures."""

from collections.abc import Sequence

import numpy as np

from meta_animator.media.sheets import grid


def overview(
    reference_photos: Sequence[np.ndarray],
    driving: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None = None,
    columns: int = 8,
    cell: int | None = None,
    motion: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """A sheet uint8 (h, w, 3): reference photos above; below, at the same moments, the film that the driving
    was seen in (motion), driving, generated and true frames.

    All pictures are uint8 (h, w, 3), RGB. Frames are spread evenly over the clip, first and last included.

    columns  the most pictures in a row; cell: longer side of a picture in pixels, by default its own
    """
    if len(generated) == 0:
        raise ValueError("generated: expected at least one frame")
    clips = {"motion": motion, "driving": driving, "generated": generated, "truth": truth}
    clips = {name: frames for name, frames in clips.items() if frames is not None and len(frames) > 0}
    length = min(len(frames) for frames in clips.values())
    chosen = sorted({round(i) for i in np.linspace(0, length - 1, min(columns, length))})
    photos = list(reference_photos[:columns])
    rows = ([photos] if photos else []) + [[frames[i] for i in chosen] for frames in clips.values()]
    width = max(len(row) for row in rows)
    padded = [row + [None] * (width - len(row)) for row in rows]
    return grid(padded, row_titles=(["reference"] if photos else []) + list(clips), cell=cell)
