import numpy as np
import pytest

from meta_animator.evaluation.report import overview


def clip(n, value):
    return np.full((n, 24, 16, 3), value, np.uint8)


def test_overview_has_a_row_for_everything():
    with_truth = overview(list(clip(3, 7)), clip(10, 1), clip(10, 120), clip(12, 60), columns=4)
    without = overview([], clip(10, 1), clip(10, 120), columns=4)
    assert with_truth.dtype == np.uint8 and with_truth.ndim == 3
    assert with_truth.shape[0] > 1.5 * without.shape[0]
    counts = {value: int((with_truth == value).all(-1).sum()) for value in (7, 1, 120, 60)}
    assert counts == {7: 3 * 24 * 16, 1: 4 * 24 * 16, 120: 4 * 24 * 16, 60: 4 * 24 * 16}


def test_overview_of_nothing_is_refused():
    with pytest.raises(ValueError, match="generated"):
        overview([], clip(2, 1), clip(0, 1))
