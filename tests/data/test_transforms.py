import numpy as np
import pytest

from meta_animator.data.layers import PARTS, Layers
from meta_animator.data.transforms import crop_and_resize, crop_box, flip_layers, move_keypoints
from tests.data.people import layers_of_person


def test_crop_box_has_the_shape_and_stays_inside():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height, target_h, target_w = rng.integers(1, 400, 4)
        center = tuple(rng.uniform(-50, 450, 2))
        x0, y0, x1, y1 = crop_box(width, height, target_h, target_w, center, zoom=1 + rng.random())
        assert 0 <= x0 < x1 <= width + 1e-9 and 0 <= y0 < y1 <= height + 1e-9
        assert (x1 - x0) / (y1 - y0) == pytest.approx(target_w / target_h)


def test_crop_box_is_largest_and_central_by_default():
    assert crop_box(720, 1280, 512, 512) == (0, 280, 720, 1000)
    assert crop_box(1280, 720, 512, 512, center=(0, 0)) == (0, 0, 720, 720)
    assert crop_box(100, 100, 10, 10, center=(60, 40), zoom=2) == (35, 15, 85, 65)
    with pytest.raises(ValueError):
        crop_box(100, 100, 10, 10, zoom=0.5)


@pytest.mark.parametrize("scale", [0.37, 1.0, 2.5])
def test_a_keypoint_goes_where_its_pixel_goes(scale):
    """A bright blob's centre of mass, before and after, against the transformed point."""
    ys, xs = np.mgrid[:120, :160]
    point = np.array([71.3, 52.8])
    blob = np.exp(-((xs - point[0]) ** 2 + (ys - point[1]) ** 2) / (2 * 6.0**2))
    frame = np.repeat((blob * 255).astype(np.uint8)[..., None], 3, axis=2)
    keypoints = np.zeros((133, 3), np.float32)
    keypoints[0] = [*point, 0.8]
    box = (20.25, 10.5, 120.25, 90.5)
    size = (round(80 * scale), round(100 * scale))
    out = crop_and_resize(Layers(frame=frame, keypoints=keypoints), box, size)
    assert out.frame.shape == (*size, 3)
    weights = out.frame[..., 0].astype(float)
    ys, xs = np.mgrid[: size[0], : size[1]]
    centre = [(weights * xs).sum() / weights.sum(), (weights * ys).sum() / weights.sum()]
    assert out.keypoints[0, :2] == pytest.approx(centre, abs=0.12)
    assert out.keypoints[0, 2] == pytest.approx(0.8)


def test_whole_pixel_crop_is_exact():
    layers = layers_of_person(90, 70)
    out = crop_and_resize(layers, (10, 20, 50, 80), (60, 40))
    for name in ("frame", "mask", "depth", "parts"):
        assert np.allclose(getattr(out, name), getattr(layers, name)[20:80, 10:50])
    assert np.allclose(out.normal, layers.normal[20:80, 10:50], atol=1e-6)
    assert np.allclose(out.keypoints[0, :2], layers.keypoints[0, :2] - [10, 20])


def test_points_outside_lose_their_score():
    points = np.zeros((133, 3), np.float32)
    points[:5] = [(0, 0, 1), (10, 10, 1), (19.4, 15, 1), (19.6, 15, 1), (10, -3, 1)]
    moved = move_keypoints(points, (0, 0, 20, 20), (40, 40))
    assert moved[:5, 2].tolist() == [1, 1, 1, 0, 0]
    assert moved[1, :2] == pytest.approx([20.5, 20.5])


def test_maps_keep_their_meaning_when_scaled():
    layers = layers_of_person(200, 150)
    out = crop_and_resize(layers, (5.5, 3.2, 140.5, 183.2), (61, 46))
    assert set(np.unique(out.parts)) <= set(np.unique(layers.parts)) and out.mask.dtype == bool
    lengths = np.linalg.norm(out.normal, axis=-1)
    assert np.allclose(lengths[out.mask], 1, atol=1e-5) and lengths[~out.mask].max() == 0
    rows = np.where(out.mask.any(1))[0]
    column = out.depth[rows[0] : rows[-1] + 1, 23]
    assert (np.diff(column) > 0).all(), "the background's zero depth bled into the person"
    assert out.depth[~out.mask].max() == 0


def test_a_box_outside_is_refused():
    with pytest.raises(ValueError, match="not inside"):
        crop_and_resize(layers_of_person(50, 50), (0, 0, 51, 50), (10, 10))


def test_flip_layers_twice_is_nothing_and_once_moves_everything():
    layers = layers_of_person(60, 41)
    layers.keypoints[9, :2] = (3, 50)
    once, twice = flip_layers(layers), flip_layers(flip_layers(layers))
    for name in ("frame", "mask", "keypoints", "depth", "normal", "parts"):
        assert np.allclose(getattr(twice, name), getattr(layers, name), atol=1e-4)
    assert np.array_equal(once.frame[:, 0], layers.frame[:, -1])
    assert once.keypoints[10, :2] == pytest.approx([41 - 1 - 3, 50])
    assert once.normal[30, 20] == pytest.approx([-0.6, 0, 0.8])
    assert PARTS[once.parts[30, 22]] == "left_upper_arm" and PARTS[layers.parts[30, 18]] == "right_upper_arm"
    assert flip_layers(Layers(frame=layers.frame)).mask is None
