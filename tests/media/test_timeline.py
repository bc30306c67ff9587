"""Frames by time: what a player shows at each moment, at constant and at changing rates."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from meta_animator.data.clips import Clip
from meta_animator.data.manifest import driving_clip, read_manifest
from meta_animator.data.samples import training_rate
from meta_animator.errors import UserError
from meta_animator.media.timeline import Timeline, check_fps, even
from meta_animator.media.video import VideoSource
from meta_animator.preparation.prepare import PrepareConfig, prepare
from meta_animator.settings import DataConfig
from tests.media.test_video import number_of, numbered

TICKS = 600  # of the film's clock, per second


def changing() -> np.ndarray:
    """Seconds of 80 frames: one second at 30 frames per second, four at 5, one at 30."""
    return np.concatenate([np.arange(30) / 30, 1 + np.arange(20) / 5, 5 + np.arange(30) / 30])


@pytest.fixture
def film(tmp_path):
    """A film with these times, whose frames show their numbers."""
    with av.open(str(tmp_path / "vfr.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.options = {"qp": "0", "bf": "0"}
        for number, time in enumerate(changing()):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return tmp_path / "vfr.mp4"


def numbers(clip) -> list[int]:
    return [number_of(clip.load(k).frame) for k in range(clip.num_frames)]


def shown_at(times: np.ndarray, moments: np.ndarray) -> list[int]:
    """By definition: the last frame that has begun."""
    return [max(k for k in range(len(times)) if times[k] <= moment + 1e-6) for moment in moments]


@pytest.mark.parametrize("fps", [5, 8, 30, None])
def test_a_film_of_changing_rate_is_prepared_at_a_true_one(film, fps, capsys):
    prepare(PrepareConfig(inputs=[film], output=film.parent / "out", fps=fps))
    (clip,) = read_manifest(film.parent / "out")
    rate = fps or 30  # the usual rate: that of most of its gaps
    assert (clip.fps, clip.num_frames) == (rate, 6 * rate)
    wanted, found = shown_at(changing(), np.arange(6 * rate) / rate), numbers(clip)
    assert found == wanted
    said = capsys.readouterr().out
    assert ("0.033 to 0.200 s between frames; taken at 30 frames per second" in said) == (fps is None)


def test_steady_films_are_taken_as_they_are_and_thinned_by_time():
    times = np.round(np.arange(48) / 29.97, 3)  # Matroska keeps milliseconds
    film = Timeline(times, 30000 / 1001)
    assert film.steady and film.resampled() == (list(range(48)), 30000 / 1001)
    assert film.resampled(30)[0] == list(range(48)), "29.97 and 30 are one rate"
    assert even(30, 30).at(12) == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]
    assert even(6, 5).at(10) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert even(1, 25).at(5) == [0]


@pytest.mark.parametrize(("count", "own", "fps"), [(136, 30, 8), (65, 5, 8), (247, 24, 12), (10, 25, 30), (7, 12, 12)])
def test_resampling_keeps_the_duration(count, own, fps):
    chosen, rate = even(count, own).resampled(fps)
    assert abs(len(chosen) / rate - count / own) <= 0.5 / rate + 1e-9
    assert chosen == sorted(chosen) and chosen[0] == 0


def test_a_dropped_frame_is_filled_and_jitter_is_none():
    rng = np.random.default_rng(0)
    jitter = Timeline(np.sort(np.arange(90) / 30 + rng.uniform(-0.01, 0.01, 90)), 30)
    assert jitter.steady
    dropped = Timeline(np.delete(np.arange(90) / 30, [40, 41]), 88 / 3)
    assert not dropped.steady and dropped.rate == 30
    chosen, rate = dropped.resampled()
    assert (len(chosen), rate) == (90, 30) and chosen[38:44] == [38, 39, 39, 39, 40, 41]


@pytest.mark.parametrize("gaps", [[0.04, 0.5], [1 / 30] * 20 + [2 / 30] * 20])
def test_a_film_of_two_rates_has_one_of_them(gaps):
    """No gap is near the middle between the two."""
    film = Timeline(np.array([0, *np.cumsum(gaps)]), 5)
    assert not film.steady and any(abs(film.rate * gap - 1) < 0.02 for gap in gaps)


def test_a_drawn_film_of_changing_rate_knows_its_times(film):
    clip = driving_clip(film)
    assert clip.fps == 30 and np.allclose(clip.times, changing(), atol=1 / TICKS)
    assert VideoSource(film).timeline.duration == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize("value", [0, 0.0, -5, float("nan"), float("inf"), "30000/1001", [12, 12], None, True, 1e5])
def test_what_is_no_rate_is_said(value):
    with pytest.raises(UserError, match=r"film: fps is .*; expected one number of frames per second"):
        check_fps(value, "film: fps")
    assert check_fps(25, "film: fps") == 25.0


def test_the_rate_of_training_clips_is_said_where_it_is_not_the_wanted_one():
    def trained(fps: float, *rates: float) -> tuple[float, list[str]]:
        said: list[str] = []
        facts = {"folder": Path(), "identity": "a", "num_frames": 9, "width": 8, "height": 8, "layers": {}}
        clips = [Clip(id=str(k), fps=rate, **facts) for k, rate in enumerate(rates)]
        return training_rate(clips, DataConfig(fps=fps), said.append), said

    assert trained(0, 12, 12) == (12, []) and trained(8, 24, 24) == (8, [])
    assert trained(30, 29.97, 30) == (pytest.approx(29.985), [])
    rate, (note,) = trained(8, 25)
    assert rate == pytest.approx(25 / 3) and "it is 8.33 from 25" in note
    rate, (note,) = trained(0, 10, 12, 30)
    assert rate == 12 and "10 to 30 frames per second; 12, their median, is recorded" in note
    assert len(trained(8, 25, 12)[1]) == 2
