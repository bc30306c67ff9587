"""Estimated points made steady: jitter goes, motion stays where and when it is."""

import numpy as np
import pytest

from meta_animator.data import keypoints as kp
from meta_animator.data.retarget import smooth_points
from tests.data.people import standing_person

HEIGHT, FPS = 400, 24.0


def waving(count=96, hertz=2.0, reach=60.0):
    """Somebody who waves a hand fast, and stands still otherwise."""
    clip = np.repeat(standing_person(500, 500)[None], count, axis=0)
    clip[:, kp.LEFT_WRIST, 0] += reach * np.sin(2 * np.pi * hertz * np.arange(count) / FPS)
    return clip


def test_jitter_goes_and_motion_stays():
    clean = waving()
    noisy = clean.copy()
    noisy[..., :2] += np.random.default_rng(0).normal(0, 2.0, clean[..., :2].shape)
    steady = smooth_points(noisy, FPS, HEIGHT)
    before, after = (np.linalg.norm((clip - clean)[..., :2], axis=-1) for clip in (noisy, steady))
    assert after[:, : kp.LEFT_SHOULDER].mean() < 0.62 * before.mean(), "of what stands still"
    assert after[:, kp.LEFT_WRIST].mean() < 1.05 * before.mean(), "of what moves"
    assert np.array_equal(smooth_points(noisy, FPS, HEIGHT, strength=0.0), noisy)


@pytest.mark.parametrize(("hertz", "kept"), [(1.0, 0.99), (2.0, 0.97), (3.0, 0.97), (4.0, 0.97), (5.0, 0.9)])
def test_fast_motion_keeps_its_extremes_and_its_time(hertz, kept):
    clean = waving(hertz=hertz)
    steady = smooth_points(clean, FPS, HEIGHT)
    wrist, truth = steady[8:-8, kp.LEFT_WRIST, 0], clean[8:-8, kp.LEFT_WRIST, 0]
    assert np.ptp(wrist) > kept * np.ptp(truth)
    lags = [np.corrcoef(wrist[4:-4], np.roll(truth, lag)[4:-4])[0, 1] for lag in (-1, 0, 1)]
    assert np.argmax(lags) == 1
    backwards = smooth_points(clean[::-1], FPS, HEIGHT)[::-1]
    np.testing.assert_allclose(backwards, steady, atol=1e-3)


def test_short_gaps_are_bridged_and_long_ones_stay_open():
    clip = waving(hertz=0.25)
    whole = clip.copy()
    clip[20:26, kp.LEFT_WRIST] = (0, 0, 0.1)
    clip[50:70, kp.LEFT_WRIST] = (0, 0, 0.1)
    clip[:5, kp.NOSE] = (0, 0, 0.1)
    steady = smooth_points(clip, FPS, HEIGHT)
    assert (steady[20:26, kp.LEFT_WRIST, 2] == np.float32(0.9)).all()
    assert np.abs(steady - whole)[20:26, kp.LEFT_WRIST, 0].max() < 4
    assert (steady[50:70, kp.LEFT_WRIST, 2] < 0.3).all() and (steady[:5, kp.NOSE, 2] < 0.3).all()


def test_slips_of_single_frames_are_mended():
    """A wrist that is elsewhere for a frame, and legs that change sides for one."""
    clip = waving(hertz=1.0)
    clean, broken = smooth_points(clip, FPS, HEIGHT), clip.copy()
    broken[30, kp.RIGHT_WRIST, :2] += (120, -200)
    legs = [*range(11, 23)]
    broken[50, legs] = clip[50, [12, 11, 14, 13, 16, 15, 20, 21, 22, 17, 18, 19]]
    assert np.abs(broken - clip).max() > 50
    assert np.abs(smooth_points(broken, FPS, HEIGHT) - clean).max() < 1.5


def test_sides_that_change_places_for_a_frame_change_back():
    """At a rate at which nobody could tell a slip from motion, in somebody who moves."""
    clip = waving(count=20, hertz=0.5)
    clip[:, 5:, 0] += 3 * np.arange(20)[:, None]
    broken, legs = clip.copy(), [*range(11, 23)]
    broken[9, legs] = clip[9, [12, 11, 14, 13, 16, 15, 20, 21, 22, 17, 18, 19]]
    np.testing.assert_array_equal(smooth_points(broken, 5.0, HEIGHT), clip)


def test_few_frames_a_second_are_left_as_they_are():
    clip = waving(count=20)
    np.testing.assert_array_equal(smooth_points(clip, 5.0, HEIGHT), clip)
