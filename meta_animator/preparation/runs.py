"""What becomes known of runs of frames while they are worked on."""

from collections.abc import Sequence

import numpy as np

from meta_animator.preparation.cuts import CutFinder
from meta_animator.preparation.store import AGAIN, RUN, Made, Seen, Store


class Runs:
    """Runs of frames that are being worked on: read when first asked for, written when they are done with."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open: dict[int, dict[int, Seen]] = {}
        self._expected: set[int] = set()

    def get(self, index: int) -> Seen:
        start = index - index % RUN
        if start not in self.open:
            self.open[start] = self.store.read_run(start)
        return self.open[start].setdefault(index, Seen())

    def remove(self, index: int, layer: str) -> None:
        """The layer is not wanted any more."""
        self.store.remove(layer, index, self.get(index))

    def expect(self, index: int, layers: Sequence[str]) -> None:
        """The layers are going to be made: until then nobody may take what lies there for the user's."""
        seen = self.get(index)
        if seen.measured:
            self._expected.add(index - index % RUN)
        for layer in layers:
            seen.layers[layer] = Made(AGAIN)

    def write_expected(self) -> None:
        for start in self._expected:
            self.store.write_run(start, self._known(start))
        self._expected.clear()

    def write(self, until: int | None = None) -> None:
        """Writes and closes the runs that end before `until`, or all."""
        for start in [start for start in self.open if until is None or start + RUN <= until]:
            self.store.write_run(start, self._known(start))
            del self.open[start]

    def _known(self, start: int) -> dict[int, Seen]:
        return {index: seen for index, seen in self.open[start].items() if seen.detector}


class Cuts:
    """Notes in `runs` where scenes begin, among the frames that are wanted."""

    def __init__(self, rate: float, runs: Runs) -> None:
        self.finder, self.runs = CutFinder(rate), runs
        self.numbers: list[tuple[int, bool]] = []  # of all frames added so far, and whether they are wanted

    @property
    def settled(self) -> int:
        """The frame before which no cut is told any more."""
        place = len(self.numbers) - self.finder.delay - 1
        return self.numbers[place][0] if place >= 0 else 0

    def add(self, index: int, frame: np.ndarray, wanted: bool) -> None:
        self.numbers.append((index, wanted))
        self._note(self.finder.add(frame))

    def finish(self) -> None:
        self._note(self.finder.finish())

    def _note(self, cuts: list[int]) -> None:
        for cut in cuts:
            index, wanted = self.numbers[cut]
            if wanted:
                self.runs.get(index).cut = True
