"""Black bars are found to the pixel, through compression too; dark scenes are left whole."""

import numpy as np
import pytest

from meta_animator.media.video import VideoSource, write_video
from meta_animator.preparation.padding import bars_note, find_padding
from meta_animator.puppets.rendering import render_clip

WHOLE = (0.0, 0.0, 96.0, 128.0)


@pytest.fixture(scope="module")
def frames():
    return [layers.frame for layers in render_clip(3, 3, 4, 4, (128, 96), "dance")]


def padded(frames, top=0, bottom=0, left=0, right=0, level=0):
    sides = ((top, bottom), (left, right), (0, 0))
    return [np.pad(frame, sides, constant_values=level) for frame in frames]


BARS = [{}, {"top": 30, "bottom": 30}, {"left": 50, "right": 50}, {"bottom": 24}, {"left": 3}]
BARS += [{"top": 40, "bottom": 36, "left": 60, "right": 62}, {"top": 20, "bottom": 20, "level": 16}]


@pytest.mark.parametrize("bars", BARS, ids=str)
def test_bars_are_cut_to_the_pixel(frames, bars):
    box = find_padding(padded(frames, **bars))
    left, top = bars.get("left", 0), bars.get("top", 0)
    assert box == (left, top, left + 96, top + 128)
    told = bars_note(box, (128 + top + bars.get("bottom", 0), 96 + left + bars.get("right", 0)))
    sides = [side for side in ("left", "top", "right", "bottom") if side in bars]
    said = ", ".join(f"{bars[side]} pixels at the {side}" for side in sides)
    assert told == (f"black bars left out: {said}" if sides else "")


@pytest.mark.parametrize("crf", [17, 35])
def test_bars_are_found_through_compression(tmp_path, frames, crf):
    """At an odd place, as a scaled film has them: nothing of the bars stays, and little of the picture goes."""
    write_video(tmp_path / "film.mp4", padded(frames, top=31, bottom=33, left=45, right=47), 4, crf=crf)
    x0, y0, x1, y1 = find_padding(VideoSource(tmp_path / "film.mp4").read(range(4)))
    assert 45 <= x0 <= 48 and 31 <= y0 <= 34 and 138 <= x1 <= 141 and 156 <= y1 <= 159


def test_a_dark_scene_is_not_cut(frames):
    rng = np.random.default_rng(0)
    stage = np.where((np.arange(96)[None, :, None] - 48) ** 2 + (np.arange(128)[:, None, None] - 64) ** 2 < 40**2, frames[0], 2)
    down = np.linspace(0, 1, 128)[:, None, None] ** 2
    night = frames[0] * down * 0.3
    vignette = frames[0] * np.sin(np.linspace(0, np.pi, 96))[None, :, None] ** 2
    to_edge = np.minimum(np.arange(96), 95 - np.arange(96))[None, :, None] / 47
    spot, soft_spot = frames[0] * to_edge, frames[0] * np.sin(np.pi / 2 * np.minimum(4 * to_edge, 1))
    display = np.zeros((128, 96, 3))
    display[60:76, 40:52] = 200
    for scene in (stage, night, vignette, spot, soft_spot, display, np.zeros((128, 96, 3))):
        film = [np.clip(scene + rng.normal(0, 1.5, scene.shape), 0, 255).astype(np.uint8) for _ in range(4)]
        assert find_padding(film) == WHOLE


def test_a_dark_film_keeps_its_upper_half_where_that_is_noise_and_not_a_bar(frames):
    rng = np.random.default_rng(1)
    film = [frame.copy() for frame in frames]
    for frame in film:
        frame[:40] = np.clip(rng.normal(14, 9, (40, 96, 3)), 0, 40)
    assert find_padding(film) == WHOLE


def test_a_dark_band_that_flickers_is_no_bar(frames):
    film = [frame.copy() for frame in frames]
    for k, frame in enumerate(film):
        frame[:40] = (4, 40)[k % 2]
    assert find_padding(film) == WHOLE


def test_bars_that_are_not_there_all_the_time_are_the_films_own(frames):
    """A black frame at the start, or curtains that close, are no padding; bars of a film with a black frame are."""
    black = np.zeros_like(frames[0])
    closing = [*frames[1:], *padded([frames[0][:, 30:66]], left=30, right=30)]
    assert find_padding([black, *frames]) == find_padding(closing) == WHOLE
    assert find_padding(padded([black, *frames], top=30)) == (0, 30, 96, 158)
