"""Mirroring a frame with everything that is known of it."""

import numpy as np

from meta_animator.data.keypoints import flip_keypoints
from meta_animator.data.layers import PARTS, Layers


def flip_layers(layers: Layers) -> Layers:
    """The picture mirrored left to right: left and right points and body parts change names, normals their x."""

    def mirror(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else np.ascontiguousarray(array[:, ::-1])

    normal = mirror(layers.normal)
    if normal is not None:
        normal = normal * np.array([-1, 1, 1], normal.dtype)
    keypoints = None if layers.keypoints is None else flip_keypoints(layers.keypoints, layers.size[1])
    parts = mirror(layers.parts)
    return Layers(
        frame=mirror(layers.frame),
        mask=mirror(layers.mask),
        keypoints=keypoints,
        depth=mirror(layers.depth),
        normal=normal,
        parts=None if parts is None else _other_side()[parts],
    )


def _other_side() -> np.ndarray:
    swap = {"left": "right", "right": "left"}
    names = ["_".join(swap.get(word, word) for word in part.split("_")) for part in PARTS]
    return np.array([PARTS.index(name) for name in names], np.uint8)
