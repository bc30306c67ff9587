"""What the diffusers pipeline is called with, brought into one form. Raises ValueError: what, where, what would be right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def condition_images(conditions: Any, tasks: Sequence[str], factor: int) -> dict[str, Tensor]:
    """{task: (f 3 h w) in [-1, 1]}, as many for every task, of one size that `factor` divides.

    conditions   {task: PIL images, a tensor (f 3 h w), an array (f h w 3), or a sequence of single ones}
    """
    if not isinstance(conditions, Mapping | None):
        raise ValueError(f"conditions: expected {{task: images}}, got {type(conditions).__name__}")
    if not conditions or (unknown := [str(task) for task in conditions if task not in tasks]):
        given = ", ".join(unknown) if conditions else "none"
        raise ValueError(f"conditions: expected images for one or more of {', '.join(tasks)}; got {given}")
    images = {task: _pixels(shown, f"conditions: {task}") for task, shown in conditions.items()}
    if len({one.shape for one in images.values()}) > 1:
        sizes = ", ".join(f"{task} {tuple(one.shape)}" for task, one in images.items())
        raise ValueError(f"conditions: expected as many images, of one size, for every task; got {sizes}")
    height, width = next(iter(images.values())).shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"conditions: expected a width and a height that {factor} divides, got {width} x {height}")
    return {task: one * 2 - 1 for task, one in images.items()}


def _pixels(shown: Any, what: str) -> Tensor:
    """(f 3 h w) in [0, 1]"""
    if isinstance(shown, Image.Image):
        raise ValueError(f"{what}: expected a list of images, one per frame, got a single one")
    if isinstance(shown, np.ndarray | Tensor):
        frames = _channels_first(shown)
    else:
        frames = _stack([_frame(one, what) for one in shown], what)
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.numel():
        raise ValueError(f"{what}: expected a tensor (f 3 h w) or an array (f h w 3), got {tuple(shown.shape)}")
    if frames.dtype == torch.uint8:
        return frames.float() / 255
    if not frames.is_floating_point():
        raise ValueError(f"{what}: expected uint8, or floats in [0, 1], got {frames.dtype}")
    low, high = frames.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{what}: expected floats in [0, 1], got {low:.4g} to {high:.4g}")
    return frames.float()


def _frame(image: Any, what: str) -> Tensor:
    """(3 h w), in the range that it came in"""
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{what}: expected 8-bit pictures, got one of mode {image.mode}")
        return _channels_first(np.array(image.convert("RGB")))
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{what}: expected PIL images, tensors (3 h w) or arrays (h w 3), got {type(image).__name__}")
    frame = _channels_first(image)
    if frame.ndim != 3 or frame.shape[0] != 3:
        raise ValueError(f"{what}: expected tensors (3 h w) or arrays (h w 3) in the list, got {tuple(image.shape)}")
    return frame


def _stack(frames: list[Tensor], what: str) -> Tensor:
    if not frames:
        raise ValueError(f"{what}: expected at least one image, got none")
    if len(kinds := {(frame.dtype, *frame.shape) for frame in frames}) > 1:
        found = ", ".join(sorted(f"{dtype} {width} x {height}" for dtype, _, height, width in kinds))
        raise ValueError(f"{what}: expected images of one type and size, got {found}")
    return torch.stack(frames)


def _channels_first(image: np.ndarray | Tensor) -> Tensor:
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.moveaxis(image, -1, -3).copy()) if image.ndim >= 3 else torch.from_numpy(image.copy())


def one_text(text: Any, what: str) -> str:
    """A text, also where it comes as a list of one."""
    if isinstance(text, list | tuple) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise ValueError(f"{what}: expected one text, since one call makes one video; got {text!r}")
    return text


def one_generator(generator: Any) -> torch.Generator | None:
    """A generator, also where it comes as a list of one."""
    if isinstance(generator, list | tuple) and len(generator) == 1:
        generator = generator[0]
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator: expected one, since one call makes one video; got {generator!r}")
    return generator


def control_scales(scales: Any, tasks: Sequence[str]) -> dict[str, float]:
    """{task: scale}, from one for all or from such a mapping."""
    if not isinstance(scales, Mapping):
        return {task: float(scales) for task in tasks}
    if set(scales) != set(tasks):
        raise ValueError(
            f"controlnet_conditioning_scale: expected a number, or one for each of {', '.join(tasks)}; "
            f"got {', '.join(map(str, scales)) or 'none'}"
        )
    return {task: float(scales[task]) for task in tasks}


def check_latents(latents: Any, shape: tuple[int, ...]) -> None:
    """shape: 1 f c h w"""
    expected = (shape, (1, 1, *shape[2:]))
    if latents is not None and (not isinstance(latents, Tensor) or tuple(latents.shape) not in expected):
        found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents: expected a tensor {expected[0]} or {expected[1]}, got {found}")


def check_callback_inputs(names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"callback_on_step_end_tensor_inputs: expected some of {', '.join(known)}; got {', '.join(unknown)}")
