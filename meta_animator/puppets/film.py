"""A film of a puppet, for measuring what preparation takes."""

from pathlib import Path

import numpy as np

from meta_animator.data.layers import Layers
from meta_animator.data.transforms import crop_and_resize
from meta_animator.media.video import write_video
from meta_animator.puppets.rendering import Camera, make_identity, make_motion, make_scene, render

FILM_SIZE, FILM_FPS = (1280, 720), 24
FULL_BODY = Camera(head_fraction=0.15, headroom=0.06, distance=4.0, pitch=0.0, offset=0.0)


def make_film(path: Path, count: int) -> Layers:
    """A film of a still puppet before a moving camera, 720 x 1280; keypoints and mask, which are those of its first frame."""
    height, width = FILM_SIZE
    small = render(make_identity(2), make_motion(2, "wave"), make_scene(2), FULL_BODY, 0.0, (height // 4, width // 4))
    large = crop_and_resize(small, (0.0, 0.0, float(width // 4), float(height // 4)), FILM_SIZE)
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1))
    frame = np.clip(large.frame.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    write_video(path, (np.roll(frame, round(4 * np.sin(k / 3)), 1) for k in range(count)), FILM_FPS)
    return Layers(frame=frame, mask=large.mask, keypoints=large.keypoints)
