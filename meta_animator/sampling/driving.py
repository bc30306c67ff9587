"""The motion that drives an animation: condition images of every frame."""

import dataclasses

import numpy as np

from meta_animator.data import retarget
from meta_animator.data.clips import Clip
from meta_animator.data.conditions import draw_condition, find_condition
from meta_animator.data.crops import person_crop
from meta_animator.data.layers import Layers
from meta_animator.data.transforms import Box, crop_and_resize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Driving:
    """The motion: condition images (h w 3) of any frame, at the output's size.

    clip        where it comes from
    size        (height, width) of the output
    margin      share of the person's size around them that the crop shows, see `person_crop`
    order       frame numbers of the clip in the order in which they drive
    fps         frames per second at which the driving frames, `order`, are shown
    shown       frame numbers of the clip that belong to the frames' times; `order` but for shuffling
    keypoints   (num_frames, 133, 3) in output pixels, fitted to the reference person; None: the clip's own layers
    drawn_fit   (scale, shift) of a drawn pose video, fitted to the reference person; None: cropped like the rest
    swap_colours   the drawn pose video has red and blue swapped
    """

    clip: Clip
    size: tuple[int, int]
    order: list[int]
    fps: float
    shown: list[int]
    margin: float = 0.0
    keypoints: np.ndarray | None = None
    drawn_fit: tuple[float, tuple[float, float]] | None = None
    swap_colours: bool = False

    def __len__(self) -> int:
        return len(self.order)

    @property
    def box(self) -> Box:
        return person_crop(self.clip, self.size, self.margin)

    def condition(self, task: str, place: int) -> np.ndarray:
        """The condition image of the `place`-th output frame: uint8 (h, w, 3)."""
        index = self.order[place]
        needs = find_condition(task).needs
        redraw = self.keypoints is not None and needs == ("keypoints",)
        if task not in self.clip.conditions or redraw:
            layers = crop_and_resize(self.clip.load(index, needs), self.box, self.size)
            if self.keypoints is not None:
                layers = dataclasses.replace(layers, keypoints=self.keypoints[index])
            return draw_condition(task, layers)
        image = self.drawn(task, index)
        if self.drawn_fit is not None:
            return retarget.warp_drawn(image, *self.drawn_fit, self.size)
        return crop_and_resize(Layers(frame=image), self.box, self.size).frame

    def points(self) -> np.ndarray | None:
        """The clip's own keypoints, (num_frames, 133, 3) in its pixels; None where it has none."""
        if "keypoints" not in self.clip.layers:
            return None
        return np.stack([self.clip.load_keypoints(k) for k in range(self.clip.num_frames)])

    def drawn(self, task: str, index: int) -> np.ndarray:
        """Condition `index` of the clip as it is, drawn videos with their colours put right: uint8 (H, W, 3)."""
        image = self.clip.load_condition(task, index)
        return np.ascontiguousarray(image[..., ::-1]) if self.swap_colours else image

    def layers(self, place: int) -> Layers:
        """The driving clip's own frame and layers at the output's size (the truth, where it shows the same person)."""
        return crop_and_resize(self.clip.load(self.order[place]), self.box, self.size)
