import numpy as np
import pytest
from scipy.linalg import sqrtm

from meta_animator.evaluation.frechet import frechet_distance

RNG = np.random.default_rng(0)


def with_moments(mean, covariance, n):
    """Features (n, d) whose sample mean and covariance are these."""
    raw = RNG.normal(size=(n, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@pytest.mark.parametrize("n", [9, 50])
def test_of_gaussians_it_is_the_closed_form(n):
    """Of covariances that commute, the squared differences of means and of standard deviations, summed."""
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    a, b = np.array([1.0, 4, 9, 0.25]), np.array([4.0, 4, 1, 0.25])
    ours = with_moments(np.array([1.0, 0, 0, 2]), turn @ np.diag(a) @ turn.T, n)
    theirs = with_moments(np.zeros(4), turn @ np.diag(b) @ turn.T, n + 3)
    assert frechet_distance(ours, theirs) == pytest.approx(5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-9)


def test_fewer_features_than_dimensions_are_as_good_as_the_matrix_square_root():
    ours, theirs = RNG.normal(size=(5, 12)), RNG.normal(size=(7, 12)) * 2 + 1
    a, b = (np.cov(features, rowvar=False) + 1e-13 * np.eye(12) for features in (ours, theirs))
    gap = ours.mean(0) - theirs.mean(0)
    expected = gap @ gap + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(ours, theirs) == pytest.approx(frechet_distance(theirs, ours), rel=1e-12)
    assert frechet_distance(ours, ours[::-1]) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"theirs: expected \(n, d\) with n >= 2"):
        frechet_distance(ours, theirs[:1])
