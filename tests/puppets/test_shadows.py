"""Cast shadows: where geometry says, on the side away from the light, and in nothing but the colours."""

import dataclasses
import sys

import numpy as np
import pytest

from meta_animator.data.layers import PARTS, Layers
from meta_animator.puppets.rendering import Camera, Motion, Scene, make_identity, make_scene, render
from meta_animator.puppets.rendering.body import Primitive, flat
from meta_animator.puppets.rendering.camera import place
from meta_animator.puppets.rendering.motion import Track
from meta_animator.puppets.rendering.scene import backdrop
from meta_animator.puppets.rendering.shadows import blocked, soften
from meta_animator.puppets.rendering.shapes import ellipsoid

INDOORS = 1  # the seed of a room
CAMERA = Camera(head_fraction=0.15, headroom=0.06, distance=4.0, pitch=0.0, offset=0.0)


def room(side: float) -> Scene:
    """A room whose light comes from above, before, and the image's right (side = 1) or left (side = -1)."""
    light = np.array([0.4 * side, 0.4, 0.82])
    return dataclasses.replace(make_scene(INDOORS), light=tuple(light / np.linalg.norm(light)))


def still(scene: Scene, **tracks: float) -> Layers:
    motion = Motion("still", 1.0, 0, {name: Track(value) for name, value in tracks.items()})
    return render(make_identity(0), motion, scene, CAMERA, 0.0)


def brightness(layers: Layers) -> np.ndarray:
    return layers.frame.astype(float).mean(axis=2)


def shadow_on_the_room(layers: Layers, scene: Scene) -> np.ndarray:
    """Pixels of the backdrop that are clearly darker than in the empty room."""
    empty = 255 * backdrop(scene, place(CAMERA, make_identity(0), (128, 128))).colour.mean(axis=2)
    return ~layers.mask & (brightness(layers) < 0.85 * empty)


def ball(radius: float = 0.5, cut: bool = False) -> Primitive:
    keep = (lambda q: q[:, 1] < 0.0) if cut else None
    shape = ellipsoid((0, 0, -5), (radius, radius, radius))
    return Primitive(shape, np.eye(3), np.array([0.0, 0.0, -5.0]), flat((1, 1, 1), "hair"), keep)


def test_a_point_is_blocked_where_the_ray_to_the_light_meets_a_shape():
    light = np.array([0.6, 0.0, 0.8])
    points = np.array([0, 0, -5]) + np.array([[-1.2, 0, -1.6], [1.2, 0, 1.6], [-1.2, 0.6, -1.6], [0, 0, -1.6], [0, 0, 0]])
    assert blocked([ball()], light, points).tolist() == [True, False, False, False, True]
    assert blocked([ball(0.2), ball()], light, points).tolist() == [True, False, False, False, True]
    assert not blocked([], light, points).any()


def test_what_is_cut_away_casts_no_shadow():
    points = np.array([[0, 0.3, -7], [0, -0.3, -7], [0, -0.3, -5], [0, 0.3, -5]])
    assert blocked([ball(cut=True)], np.array([0.0, 0.0, 1.0]), points).tolist() == [False, True, True, False]


def test_soft_edges_stay_on_their_surface():
    depth = np.full((4, 6), 3.0)
    depth[:, 3:] = 4.0  # a limb before a body
    lit = np.zeros((4, 6), dtype=bool)
    lit[:, :3] = True
    fine = depth.repeat(2, axis=0).repeat(2, axis=1)
    assert np.allclose(soften(lit, depth, fine).reshape(8, 12), lit.repeat(2, axis=0).repeat(2, axis=1), atol=1e-5)
    share = soften(lit, np.full((4, 6), 3.0), np.full((8, 12), 3.0)).reshape(8, 12)
    assert (np.diff(share[4]) < 1e-5).all() and 0.1 < share[4, 6] < 0.5 < share[4, 5] < 0.9


def test_shadows_change_only_colour(monkeypatch: pytest.MonkeyPatch):
    with_shadows = still(room(1), arm_swing_l=1.4)
    module = sys.modules[render.__module__]
    monkeypatch.setattr(module, "lit", lambda primitives, light, points, normals: np.ones(len(points), bool))
    monkeypatch.setattr(module, "on_backdrop", lambda *_: np.zeros((256, 256)))
    without = still(room(1), arm_swing_l=1.4)
    for layer in ("mask", "keypoints", "depth", "normal", "parts"):
        assert np.array_equal(getattr(with_shadows, layer), getattr(without, layer))
    assert (brightness(with_shadows) <= brightness(without) + 1).all()
    assert (brightness(with_shadows) < brightness(without) - 10).mean() > 0.02


def test_an_arm_before_the_light_darkens_the_torso():
    """The left arm is stretched forward: light from the left throws its shadow on the chest, light from the right
    beside it."""
    darker = {}
    for side in (1, -1):
        rest, raised = still(room(side)), still(room(side), arm_swing_l=1.35, arm_raise_l=0.12)
        chest = (rest.parts == PARTS.index("upper_clothing")) & (raised.parts == rest.parts)
        chest &= (rest.normal == raised.normal).all(axis=2)
        darker[side] = (brightness(raised)[chest] < 0.85 * brightness(rest)[chest]).mean()
    assert darker[1] > 0.05 > 2 * darker[-1]


def test_the_shadow_in_the_room_lies_away_from_the_light():
    for side in (1, -1):
        scene = room(side)
        layers = still(scene)
        dark = shadow_on_the_room(layers, scene)
        on_wall = dark & (np.arange(128)[:, None] < layers.keypoints[15, 1] - 25)
        middle = np.nonzero(layers.mask)[1].mean()
        assert on_wall.sum() > 150
        assert side * (np.nonzero(on_wall)[1].mean() - middle) < -8
