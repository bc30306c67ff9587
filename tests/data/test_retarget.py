import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from meta_animator.data.conditions import draw_condition
from meta_animator.data.layers import Layers
from meta_animator.data.retarget import drawn_box, drawn_pose_fit, fit_keypoints, warp_drawn
from meta_animator.errors import UserError
from tests.data.people import standing_person


def walking(count: int = 20, height: int = 400, width: int = 600) -> np.ndarray:
    """(count, 133, 3): a person who walks to the right, swings the left hand, and squats in the middle."""
    clip = np.repeat(standing_person(height, width)[None], count, axis=0)
    time = np.arange(count)
    clip[:, :, 0] += 3.0 * (time - (count - 1) / 2)[:, None]
    clip[:, kp.LEFT_WRIST, 0] += 10 * np.sin(time)
    upper = [*range(0, 13), *range(23, 133)]
    clip[:, upper, 1] += 12 * np.exp(-(((time - count / 2) / 3) ** 2))[:, None]
    return clip


def test_own_motion_stays_where_it_is():
    clip = walking()
    fitted = fit_keypoints(clip, standing_person(400, 600))
    assert fitted.dtype == np.float32 and np.abs(fitted - clip).max() < 0.5


@pytest.mark.parametrize(("scale", "shift"), [(0.5, (40, -10)), (1.7, (-120, 33))])
def test_a_similar_person_is_met_exactly(scale, shift):
    clip = walking()
    moved = clip * [scale, scale, 1] + [*shift, 0]
    reference = standing_person(400, 600) * [scale, scale, 1] + [*shift, 0]
    fitted = fit_keypoints(clip, reference)
    assert np.abs(fitted - moved)[..., :2].max() < 0.5
    assert np.array_equal(fitted[..., 2], clip[..., 2])


def test_where_the_driver_stood_does_not_matter():
    clip, reference = walking(), standing_person(300, 200)
    elsewhere = clip * [2.5, 2.5, 1] + [500, -70, 0]
    assert np.allclose(fit_keypoints(clip, reference), fit_keypoints(elsewhere, reference), atol=0.01)


def test_motion_is_kept_up_to_one_scale():
    clip = walking()
    fitted = fit_keypoints(clip, standing_person(200, 300))
    steps, fitted_steps = np.diff(clip[..., :2], axis=0), np.diff(fitted[..., :2], axis=0)
    moving = np.abs(steps) > 0.5
    ratios = fitted_steps[moving] / steps[moving]
    assert ratios == pytest.approx(ratios[0], rel=1e-2) and 0.45 < ratios[0] < 0.55


def test_feet_stand_on_the_same_floor():
    reference = standing_person(400, 600)
    reference[: kp.LEFT_HIP, 1] += 30  # a person with a shorter upper body
    reference[:, 1] += 17
    fitted = fit_keypoints(walking(), reference)
    assert np.median(fitted[:, kp.LEFT_ANKLE, 1]) == pytest.approx(reference[kp.LEFT_ANKLE, 1], abs=0.5)


def test_missing_and_wrong_points_do_not_disturb():
    clip, reference = walking(), standing_person(200, 300)
    expected = fit_keypoints(clip, reference)
    rng = np.random.default_rng(0)
    broken = clip.copy()
    hit = rng.random(broken.shape[:2]) < 0.05
    hit[:, 23:] = False
    broken[hit] = np.stack([rng.uniform(0, 600, hit.sum()), rng.uniform(0, 400, hit.sum()), np.zeros(hit.sum())], -1)
    broken[3, kp.LEFT_ANKLE] = (0, 5000, 0.9)  # one wild point that claims to be seen
    fitted = fit_keypoints(broken, reference)
    assert np.abs(fitted - expected)[~hit][:, :2].mean() < 2


def test_half_bodies_align_by_what_is_seen():
    clip, reference = walking(), standing_person(200, 300) + np.array([11, 22, 0])
    legs = [*range(11, 23)]
    for hidden in (clip, reference):
        cut = hidden.copy()
        cut[..., legs, 2] = 0
        pair = (cut, reference) if hidden is clip else (clip, cut)
        fitted = fit_keypoints(*pair)
        neck = fitted[:, [kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER], :2].mean(1)
        target = reference[[kp.LEFT_SHOULDER, kp.RIGHT_SHOULDER], :2].mean(0)
        assert np.abs(np.median(neck, axis=0) - target).max() < 2
    clip[..., 2] = 0
    with pytest.raises(UserError, match="in common"):
        fit_keypoints(clip, reference)


def fit_drawn_pose(frames, box, size):
    fit = drawn_pose_fit(frames, box)
    return np.stack([warp_drawn(frame, *fit, size) for frame in frames])


def test_drawn_poses_are_fitted_by_their_box():
    clip = walking(8)
    frames = [draw_condition("dwpose", Layers(frame=np.zeros((400, 600, 3), np.uint8), keypoints=k)) for k in clip]
    reference = standing_person(200, 160) + np.array([9, 4, 0])
    target = drawn_box(draw_condition("dwpose", Layers(frame=np.zeros((220, 160, 3), np.uint8), keypoints=reference)))
    fitted = fit_drawn_pose(np.stack(frames), target, (220, 160))
    assert fitted.shape == (8, 220, 160, 3) and fitted.dtype == np.uint8
    boxes = np.array([drawn_box(frame) for frame in fitted])
    assert np.median(boxes[:, 3]) == pytest.approx(target[3], abs=2)
    assert (boxes[:, 3] - boxes[:, 1]).max() == pytest.approx(target[3] - target[1], abs=4)
    middles = (boxes[:, 0] + boxes[:, 2]) / 2
    assert np.median(middles) == pytest.approx((target[0] + target[2]) / 2, abs=3)
    assert np.diff(middles)[0] > 0.5  # still walks
    wide = fit_drawn_pose(np.stack(frames), (10, 20, 500, 780), (800, 640))
    assert drawn_box(wide[0])[3] == pytest.approx(780, abs=4)


def test_drawing_box():
    image = np.zeros((30, 40, 3), np.uint8)
    assert drawn_box(image) is None
    image[5:9, 7:20, 1] = 200
    assert drawn_box(image) == (7, 5, 20, 9)
    same = fit_drawn_pose(image[None], (7, 5, 20, 9), (30, 40))[0]
    assert np.array_equal(same, image)
    with pytest.raises(UserError, match="black"):
        fit_drawn_pose(np.zeros((2, 8, 8, 3), np.uint8), (0, 0, 8, 8), (8, 8))
