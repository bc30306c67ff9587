"""One person followed through a scene, and in which of its frames that person is alone.

Detections of consecutive frames are joined to tracks by the overlap of their boxes. The main person is who takes up the most
area for the longest; somebody small in the background does no harm.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from meta_animator.annotators.base import Detection

NOBODY = "nobody is seen"
AS_LARGE = "somebody else is about as large"
IN_THE_WAY = "somebody else overlaps the person"

SAME = 0.2  # least overlap (intersection over union) of one person's boxes in frames that follow each other
STEP = 0.9  # farthest that a box of about the same size moves where none overlaps, in its own size
GROWTH = 1.6  # how many times larger or smaller it may be there
MOST_GROWTH = 3.0  # the same where they overlap
GAP = 0.5  # seconds that the person may be overlooked, or hidden, and is known from the frames beside
ABSENT = 2.0  # seconds that anybody may be overlooked who is then found again in that place
STAYS = 0.5  # overlap of the boxes before and after, from which on somebody was there in between
LEAST_GAP = 2  # frames of either, at low rates
BRIEF = 0.1  # seconds below which somebody else is the detector's error
LARGE = 0.5  # of the person's area: from which on somebody else is about as large
COVERED = 0.15  # share of the person's box that somebody else may share
TWIN = 0.6  # overlap from which on, for most of the time, two tracks are one person seen twice
AHEAD = 5  # frames for which somebody is expected to go on as before
RETURNS = 0.3  # least share of the main person's area that one has who is taken for them, come back


def follow(
    scene: Sequence[Sequence[Detection]], rate: float = 25.0
) -> tuple[list[Detection | None], list[str]]:
    """(the main person or None, why the frame is of no use or "") for each frame of a scene at `rate` frames per second.

    scene: whom the detector saw in each frame. Where the person was overlooked for a short time, or for longer in one place,
    boxes between the neighbours' are given. A photo is a scene of one frame.
    """
    gap, absent = (max(LEAST_GAP, round(seconds * rate)) for seconds in (GAP, ABSENT))
    tracks = find_tracks(scene, absent)
    if not tracks:
        return [None] * len(scene), [NOBODY] * len(scene)
    main = _main(tracks)
    chosen = _filled(main, len(scene), gap, absent)
    others = [track for track in tracks if track not in main and not _is_twin(track, chosen)]
    brief = min(round(BRIEF * rate), len(scene) - 1)
    crowd: list[list[Detection]] = [[] for _ in scene]
    for track in others:
        for k, one in enumerate(_filled([track], len(scene), absent, absent)) if len(track.seen) > brief else ():
            crowd[k] += [] if one is None else [one]
    return chosen, [_reason(person, people) for person, people in zip(chosen, crowd, strict=True)]


def nearest(found: Sequence[Detection], last: Detection | None) -> Detection | None:
    """Of the people in a frame whoever is likely the `last` followed one, else the largest; None where there is nobody."""
    if not found:
        return None
    if last is not None:
        best = max(found, key=lambda one: _affinity(one, last))
        if _affinity(best, last) > 0:
            return best
    return max(found, key=lambda one: area(one.box))


@dataclasses.dataclass(eq=False)
class Track:
    """Somebody, and where they were seen: {frame: detection}, ascending."""

    seen: dict[int, Detection]

    @property
    def last(self) -> int:
        return next(reversed(self.seen))

    @property
    def weight(self) -> float:
        """Area times frames."""
        return sum(area(one.box) for one in self.seen.values())

    @property
    def size(self) -> float:
        """Median area."""
        return float(np.median([area(one.box) for one in self.seen.values()]))

    def expected(self, frame: int) -> Detection:
        """Where they would be in a later frame if they went on like that."""
        latest = reversed(self.seen.items())
        k, now = next(latest)
        before, then = next(latest, (k - 1, now))
        return dataclasses.replace(now, box=now.box + min(frame - k, AHEAD) * (now.box - then.box) / (k - before))


def find_tracks(scene: Sequence[Sequence[Detection]], gap: int) -> list[Track]:
    """Everybody in a scene; nobody is lost who is overlooked in at most `gap` frames in a row."""
    alive: list[Track] = []
    gone: list[Track] = []
    for k, found in enumerate(scene):
        gone += [track for track in alive if k - track.last > gap + 1]
        alive = [track for track in alive if k - track.last <= gap + 1]
        pairs = [
            (max(_affinity(one, track.expected(k)), _affinity(one, track.seen[track.last])), t, d)
            for t, track in enumerate(alive)
            for d, one in enumerate(found)
        ]
        free, new = set(range(len(alive))), set(range(len(found)))
        for affinity, t, d in sorted(pairs, reverse=True):
            if affinity > 0 and t in free and d in new:
                alive[t].seen[k] = found[d]
                free.remove(t)
                new.remove(d)
        alive += [Track({k: found[d]}) for d in sorted(new)]
    return gone + alive


def area(box: np.ndarray) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """The area that two boxes share."""
    return area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    common = shared(a, b)
    return common / max(area(a) + area(b) - common, 1e-9)


def _affinity(one: Detection, other: Detection) -> float:
    """How likely two detections are one person, shortly after each other; 0: they are not."""
    same, a, b = overlap(one.box, other.box), area(one.box), area(other.box)
    grown = max(a, b) / max(min(a, b), 1e-9)
    if same >= SAME and grown <= MOST_GROWTH:
        return same
    if grown > GROWTH:
        return 0.0
    way = np.hypot(*(one.box[:2] + one.box[2:] - other.box[:2] - other.box[2:])) / 2
    return SAME * max(0.0, 1 - way / (STEP * np.sqrt(b)))


def _main(tracks: Sequence[Track]) -> list[Track]:
    """The track of the most area and time, and those of about that size at other times: the same person, come back."""
    first, *others = sorted(tracks, key=lambda track: track.weight, reverse=True)
    main, taken = [first], set(first.seen)
    for track in others:
        if not taken & set(range(min(track.seen), track.last + 1)) and track.size >= RETURNS * first.size:
            main.append(track)
            taken |= set(track.seen)
    return main


def _filled(main: Sequence[Track], count: int, gap: int, absent: int) -> list[Detection | None]:
    """Whom the tracks show in each frame: between neighbours where at most `gap` frames are missing, or at most `absent` and
    the person has not moved much, as one who turns round."""
    seen = {k: one for track in main for k, one in track.seen.items()}
    chosen = [seen.get(k) for k in range(count)]
    for a, b in itertools.pairwise(sorted(seen)):
        if b - a <= gap + 1 or (b - a <= absent + 1 and overlap(seen[a].box, seen[b].box) >= STAYS):
            for k in range(a + 1, b):
                chosen[k] = _between(seen[a], seen[b], (k - a) / (b - a))
    return chosen


def _between(a: Detection, b: Detection, share: float) -> Detection:
    axis = None if a.axis is None or b.axis is None else a.axis + share * (b.axis - a.axis)
    return Detection(box=a.box + share * (b.box - a.box), score=min(a.score, b.score), axis=axis)


def _is_twin(track: Track, chosen: Sequence[Detection | None]) -> bool:
    together = [overlap(one.box, chosen[k].box) for k, one in track.seen.items() if chosen[k] is not None]
    return bool(together) and float(np.median(together)) >= TWIN


def _reason(person: Detection | None, people: Sequence[Detection]) -> str:
    if person is None:
        return NOBODY
    own = area(person.box)
    if any(area(one.box) >= LARGE * own for one in people):
        return AS_LARGE
    return IN_THE_WAY if any(shared(one.box, person.box) > COVERED * own for one in people) else ""
