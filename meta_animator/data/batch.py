"""What the loader hands to a stage."""

import dataclasses

import torch
from torch import Tensor

from meta_animator.devices import send

ON_HOST = ("draws", "landmarks", "face_visible", "pixel_rows")  # of a batch, what no device needs to hold


@dataclasses.dataclass(kw_only=True)
class Batch:
    """One batch: every sample has the same task.

    Clips of f frames, images being clips of one: pixels `b f 3 H W` in [-1, 1], latents `b f' c h w`.

    task            a Meta-Task, the same on all samples
    draws           (b,) int64: the global number of each draw, from which its noise and timestep follow
    pixels          the frames; None where only latents are read
    pixel_rows      (p,) int64: `pixels` are (p f 3 H W), those of these samples alone; None: of all
    control_pixels  the condition images; None where control_latents are given
    latents, control_latents   cached latents, scaled; None where they are not cached
    prompts         b texts, "" where the prompt was dropped
    identities      b names
    landmarks       (b, f, 5, 2) pixels: eyes, nose, mouth corners
    face_visible    (b, f) bool
    person_boxes    (b, f, 4) pixels: x0, y0, x1, y1 around the points of a person; x1 < x0 where none is seen
    """

    task: str
    draws: Tensor
    prompts: list[str]
    identities: list[str]
    pixels: Tensor | None = None
    pixel_rows: Tensor | None = None
    control_pixels: Tensor | None = None
    latents: Tensor | None = None
    control_latents: Tensor | None = None
    landmarks: Tensor | None = None
    face_visible: Tensor | None = None
    person_boxes: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """What is computed with is moved; what decides who takes part stays in main memory, where nobody waits for it."""
        moved = {
            field.name: send(value, device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor) and field.name not in ON_HOST
        }
        return dataclasses.replace(self, **moved)


def collate(samples: list[dict]) -> Batch:
    """Stack samples of one task; a key that is missing from them stays None, and pixels that are None are left out."""
    values = {}
    for key in samples[0]:
        column = [sample[key] for sample in samples]
        if key == "pixels" and any(pixels is None for pixels in column):
            rows = [k for k, pixels in enumerate(column) if pixels is not None]
            values["pixel_rows"] = torch.tensor(rows, dtype=torch.int64)
            nothing = torch.empty(0, len(samples[0]["face_visible"]), 3, 0, 0)
            values[key] = torch.stack([column[k] for k in rows]) if rows else nothing
        else:
            values[key] = torch.stack(column) if isinstance(column[0], Tensor) else column
    values["task"] = values["task"][0]
    values["draws"] = torch.tensor(values["draws"])
    return Batch(**values)
