"""SAM 2: the mask of a person, followed through the frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.annotators.base import Annotator, Detection
from meta_animator.annotators.overlap import overlaps
from meta_animator.annotators.transformers_network import load_network

AGAIN = 0.3  # where mask and box overlap less, the person is shown to the network again
PERSON = 1  # what the network calls the one thing that it follows


class Sam2(Annotator):
    """A person's mask. The box of the first frame of each stretch of frames that show the person says who is meant; the network
    follows from there, so that a mask depends on the frames of its stretch before it, and on nothing else."""

    name = "sam2"
    gives = ("mask",)

    def __init__(self, files: Mapping[str, Path], device: str = "cpu") -> None:
        """files   of sam2: a folder as transformers writes it. Raises UserError where it cannot be read."""
        from transformers import Sam2ImageProcessor, Sam2VideoModel, Sam2VideoProcessor, Sam2VideoVideoProcessor

        self.network = load_network(Sam2VideoModel, files["sam2"], device)
        sides = dict.fromkeys(("height", "width"), self.network.config.image_size)
        self.processor = Sam2VideoProcessor(
            image_processor=Sam2ImageProcessor(size=sides), video_processor=Sam2VideoVideoProcessor(size=sides)
        )

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None], known: Sequence[Mapping[str, np.ndarray]]
    ) -> list[dict[str, np.ndarray]]:
        import torch

        answers: list[dict[str, np.ndarray]] = []
        follower: _Follower | None = None
        with torch.inference_mode():
            for frame, person in zip(frames, people, strict=True):
                if person is None:
                    follower = None
                    answers.append({})
                    continue
                mask, follower = self._follow(frame, person, follower)
                answers.append({"mask": mask} if mask.any() else {})
        return answers

    def _follow(self, frame: np.ndarray, person: Detection, follower: "_Follower | None") -> tuple[np.ndarray, "_Follower"]:
        inputs = self.processor(images=frame, return_tensors="pt")
        if follower is not None and follower.size == frame.shape[:2]:
            mask = follower.next(inputs)
            if agrees(mask, person.box):
                return mask, follower
        follower = _Follower(self.network, self.processor, frame.shape[:2])
        return follower.next(inputs, person.box), follower


class _Follower:
    """The network's memory of one person in frames of `size` (h, w), given one after another."""

    def __init__(self, network: Any, processor: Any, size: tuple[int, int]) -> None:
        self.network, self.processor, self.size = network, processor, size
        self.session = processor.init_video_session(inference_device=network.device, dtype=network.dtype)
        self.count = 0

    def next(self, inputs: Any, box: np.ndarray | None = None) -> np.ndarray:
        """The mask, bool (h, w), in the next frame; `box` shows who is meant."""
        if box is not None:
            corners = [[[float(corner) for corner in box]]]
            self.processor.add_inputs_to_inference_session(
                self.session, frame_idx=self.count, obj_ids=PERSON, input_boxes=corners, original_size=self.size
            )
        pixels = inputs.pixel_values[0].to(self.network.device, self.network.dtype)
        answer = self.network(self.session, frame_idx=self.count, frame=pixels)
        self.session.processed_frames.pop(self.count - 1, None)  # or an hour's frames would be kept
        self.count += 1
        mask = self.processor.post_process_masks([answer.pred_masks], [self.size])[0]
        return mask.reshape(self.size).cpu().numpy()


def agrees(mask: np.ndarray, box: np.ndarray) -> bool:
    """Whether a mask (h, w) may be of the person in `box` (x0, y0, x1, y1)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return False
    around = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    return bool(overlaps(around, np.asarray(box, np.float64)[None])[0] >= AGAIN)
