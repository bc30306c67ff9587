"""One person is followed; frames with somebody else as large, or in the way, are of no use."""

import numpy as np
import pytest

from meta_animator.annotators.base import Detection
from meta_animator.preparation.tracking import AS_LARGE, IN_THE_WAY, NOBODY, find_tracks, follow, nearest


def person(x: float, y: float = 100.0, tall: float = 200.0, score: float = 0.9) -> Detection:
    """Somebody around x, y."""
    wide = 0.4 * tall
    box = np.array([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2])
    return Detection(box=box, score=score, axis=np.array([[x, y], [x, y - tall / 2]]))


def middles(chosen) -> list[float | None]:
    return [None if one is None else float(one.box[::2].mean()) for one in chosen]


def test_the_large_person_is_followed_past_a_small_one_in_the_background():
    """Though the small one is seen first, more surely, and passes behind."""
    scene = [[person(20 * k, 60, 60, score=0.99)] + ([person(100 + k)] if k > 2 else []) for k in range(30)]
    chosen, reasons = follow(scene)
    assert middles(chosen) == [None] * 3 + [100 + k for k in range(3, 30)]
    assert reasons == [NOBODY] * 3 + [""] * 27


def test_who_is_there_longest_is_the_main_person_and_not_who_is_larger_for_a_moment():
    scene = [[person(100)] + ([person(400, tall=260)] if 10 <= k < 16 else []) for k in range(40)]
    chosen, reasons = follow(scene)
    assert middles(chosen) == [100] * 40
    assert [k for k, reason in enumerate(reasons) if reason] == list(range(10, 16)) and set(reasons) == {"", AS_LARGE}


def test_short_gaps_are_filled_along_the_way_and_long_ones_are_not():
    scene = [[person(10 * k)] if k not in (3, 4) and not 10 <= k < 30 else [] for k in range(40)]
    chosen, reasons = follow(scene, rate=10)
    assert middles(chosen)[:10] == pytest.approx([10 * k for k in range(10)])
    assert chosen[3].axis == pytest.approx(person(30).axis)
    assert chosen[10:30] == [None] * 20 and reasons[10:30] == [NOBODY] * 20
    assert middles(chosen)[30:] == [10 * k for k in range(30, 40)], "who comes back is followed again"


def test_who_turns_round_in_one_place_is_followed_through_it():
    """Longer than a person who walks on may be overlooked, but not for ever."""
    for missing, found in ((12, True), (25, False)):
        scene = [[person(100 + (20 if k > 10 else 0))] if not 10 <= k < 10 + missing else [] for k in range(50)]
        chosen, reasons = follow(scene, rate=10)
        assert all((chosen[k] is not None and not reasons[k]) == found for k in range(10, 10 + missing))
        assert None not in [*chosen[:10], *chosen[10 + missing :]]


def test_people_who_pass_each_other_keep_their_names():
    """The main person goes right, somebody goes left in front; neither is seen while they cross. Directions tell."""
    scene = []
    for k in range(40):
        both = [person(100 + 10 * k), person(500 - 10 * k, tall=150)]
        scene.append([] if 18 <= k <= 21 else both if k % 2 else both[::-1])
    chosen, reasons = follow(scene)
    assert middles(chosen) == pytest.approx([100 + 10 * k for k in range(40)])
    assert set(reasons) == {AS_LARGE}


def test_somebody_in_the_way_rejects_only_those_frames():
    scene = [[person(200), person(20 * k, 140, 120)] for k in range(20)]
    chosen, reasons = follow(scene)
    assert middles(chosen) == [200] * 20
    assert [k for k, reason in enumerate(reasons) if reason] == [8, 9, 10, 11, 12] and set(reasons) == {"", IN_THE_WAY}


def test_somebody_who_is_overlooked_for_a_while_is_still_there():
    """The detector misses the other person for a second in the middle, and never sees them again from the 60th frame on."""
    scene = [[person(100)] + ([person(300)] if k < 20 or 45 <= k < 60 else []) for k in range(90)]
    assert follow(scene)[1] == [AS_LARGE] * 60 + [""] * 30


def test_errors_of_the_detector_are_nobody():
    """The same person found twice, and somebody for a single frame."""
    scene = [[person(100), person(104, 102, 196, score=0.6)] for _ in range(25)]
    scene[7].append(person(400, tall=220))
    chosen, reasons = follow(scene)
    assert not any(reasons) and all(abs(x - 100) <= 4 for x in middles(chosen))


def test_a_fast_person_at_a_low_rate_stays_one():
    """Jumps of more than the width of the box, in which a poster on the wall never counts."""
    scene = [[person(100 + 95 * k), person(700, 40, 60)] for k in range(6)]
    chosen, reasons = follow(scene, rate=5)
    assert middles(chosen) == [100 + 95 * k for k in range(6)] and not any(reasons)
    assert [len(track.seen) for track in find_tracks(scene, 2)] == [6, 6]
    assert len(find_tracks([[person(100)], [person(195, tall=120)]], 2)) == 2, "not somebody of another size"


def test_somebody_small_who_is_left_alone_is_not_taken_for_the_person():
    scene = [[person(100)]] * 20 + [[]] * 20 + [[person(100, tall=90)]] * 20
    assert follow(scene)[1] == [""] * 20 + [NOBODY] * 40


def test_a_photo_is_a_scene_of_one_frame():
    assert follow([[person(50), person(200, tall=190)]])[1] == [AS_LARGE]
    assert follow([[person(50, tall=60), person(200)]])[0][0].box == pytest.approx(person(200).box)
    assert follow([[]]) == ([None], [NOBODY]) and follow([]) == ([], [])


def test_nearest_is_whom_one_followed_or_else_the_largest():
    crowd = [person(100, tall=150), person(300)]
    assert nearest(crowd, None) is crowd[1] and nearest(crowd, person(110, tall=150)) is crowd[0]
    assert nearest(crowd, person(900)) is crowd[1] and nearest([], person(1)) is None
