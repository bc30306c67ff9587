"""Scene cuts: hard cuts are found to the frame; pans, fast motion and flashes cut nothing."""

import numpy as np
import pytest

from meta_animator.preparation.cuts import CutFinder, find_cuts
from meta_animator.puppets.rendering import render_clip


@pytest.fixture(scope="module")
def scenes():
    """Three people in three places, twelve frames each."""
    return [[one.frame for one in render_clip(seed, seed, 12, 12, (96, 72), kind)] for seed, kind in SEEDS]


SEEDS = ((0, "dance"), (1, "walk"), (2, "turn"))


def shaken(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As compression and a sensor leave it: with noise."""
    return np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("lengths", [(12, 12, 12), (5, 3, 12), (1, 12, 4), (12, 3, 1)], ids=str)
def test_hard_cuts_are_found_to_the_frame(scenes, lengths):
    """At the ends of a film too, and of scenes as short as three frames where nothing comes back."""
    rng = np.random.default_rng(0)
    frames = [shaken(frame, rng) for scene, length in zip(scenes, lengths, strict=True) for frame in scene[:length]]
    assert find_cuts(frames, 12) == np.cumsum(lengths)[:-1].tolist()


def test_a_cut_is_told_soon_and_memory_does_not_grow(scenes):
    finder = CutFinder(12)
    told = {}
    for number in range(400):
        for cut in finder.add(scenes[number // 100 % 3][abs(11 - number % 22)]):
            told[cut] = number
    assert list(told) == [100, 200, 300]
    assert all(number - cut <= finder.delay for cut, number in told.items())
    assert len(finder._gists) < 60 and len(finder._fed) < 60 and not finder._waiting


def test_a_flash_and_an_inserted_picture_cut_nothing(scenes):
    frames = list(scenes[0])
    frames[4] = np.clip(frames[4].astype(int) + 150, 0, 255).astype(np.uint8)
    frames[8] = scenes[1][0]
    assert find_cuts(frames, 12) == []
    slow = [frame for frame in scenes[0] for _ in range(2)]
    slow[10:15] = [np.full_like(slow[0], 250)] * 5  # a fifth of a second
    assert find_cuts(slow, 24) == []


@pytest.mark.parametrize(("rate", "frames"), [(12, 6), (24, 12), (24, 24), (25, 4)])
def test_a_dissolve_is_cut_once_near_its_middle(rate, frames):
    calm = [[one.frame for one in render_clip(seed, seed, 12, 4 * rate, (96, 72), kind)] for seed, kind in SEEDS[:2]]
    before, after = ([scene[abs(11 - k % 22)] for k in range(40 + frames)] for scene in calm)
    shares = np.clip((np.arange(80 + frames) - 39) / (frames + 1), 0, 1)
    mixed = [before[min(k, 39 + frames)] * (1 - share) + after[max(0, k - 40)] * share for k, share in enumerate(shares)]
    (cut,) = find_cuts([picture.astype(np.uint8) for picture in mixed], rate)
    assert abs(cut - (40 + frames / 2)) <= max(2, 0.3 * frames)


def test_lights_that_go_down_cut_nothing(scenes):
    frames = [scenes[0][abs(11 - k % 22)] for k in range(60)]
    light = np.interp(np.arange(60), [20, 32], [1.0, 0.3])
    assert find_cuts([(frame * share).astype(np.uint8) for frame, share in zip(frames, light, strict=True)], 24) == []


def test_a_fast_pan_and_a_zoom_cut_nothing(scenes):
    rng = np.random.default_rng(1)
    wide = np.kron(rng.integers(0, 255, (12, 60, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    wide = np.concatenate([scene[0] for scene in scenes] + [wide[:96]], axis=1)
    ramp = np.concatenate([np.zeros(8), np.cumsum(np.concatenate([np.arange(1, 30, 3), [30] * 10]))]).astype(int)
    assert find_cuts([wide[:, x : x + 96] for x in ramp if x + 96 <= wide.shape[1]], 25) == []


def test_frames_shown_twice_hide_no_cut_and_make_none(scenes):
    """As 24 frames per second in a film of 60, fast: 2, 3, 2, 3 times."""
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    fast = [np.kron(np.roll(noise, 9 * k, axis=1), np.ones((3, 3, 1), np.uint8)) for k in range(10)]
    still = [np.full_like(fast[0], 60)] * 20
    times = [2 + k % 2 for k in range(10)]
    pulled = [frame for frame, count in zip(fast, times, strict=True) for _ in range(count)]
    assert find_cuts([*still, *pulled], 60) == [20]
