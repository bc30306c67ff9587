"""Means over people, and how sure a difference between two methods is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meta_animator.evaluation.comparison import bootstrap_interval

FEWEST = 4  # values, of which the bootstrap says anything


class Interval(NamedTuple):
    """A mean, and between what it lies with 95 %; of fewer than FEWEST values, anywhere."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean of one value per person, by the percentile bootstrap over people (Efron & Tibshirani
    1993, chapter 13). Raises ValueError where there are none."""
    array = np.asarray(values, np.float64)
    if not len(array):
        raise ValueError("no values to take the mean of")
    if len(array) < FEWEST:
        return Interval(float(array.mean()), -np.inf, np.inf, len(array))
    low, high = bootstrap_interval(array, seed=seed)
    return Interval(float(array.mean()), low, high, len(array))


def paired(ours: Mapping[object, float], theirs: Mapping[object, float], seed: int = 0) -> Interval | None:
    """Of the differences ours - theirs of the people (or whatever else the keys are) that both have; None where there is none."""
    shared = [key for key in ours if key in theirs]
    return interval([ours[key] - theirs[key] for key in shared], seed) if shared else None
