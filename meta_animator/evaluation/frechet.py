"""The distance between two sets of features behind FID, FID-VID and FVD."""

import numpy as np


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance between the Gaussians of two sets of features, float (n, d) and (m, d), with
    sample covariances (divided by n - 1): |mean - mean'|^2 + tr S + tr S' - 2 tr (S S')^(1/2) (Dowson and Landau 1982; Heusel et
    al. 2017). Unlike the published numbers, those of 2,000 pictures are larger than those of 50,000: it falls with n.

    Without a matrix square root: of centred features X and Y, S S' has the eigenvalues of X^T X Y^T Y / ((n - 1)(m - 1)), which
    are the squared singular values of X Y^T / sqrt((n - 1)(m - 1)). So singular covariances, of fewer features than dimensions,
    need no offset. Raises ValueError for fewer than two features or other shapes.
    """
    for name, features in (("ours", ours), ("theirs", theirs)):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != theirs.shape[1]:
            raise ValueError(f"{name}: expected (n, d) with n >= 2 and d = {theirs.shape[-1]}, got {features.shape}")
    gap = ours.mean(0, dtype=np.float64) - theirs.mean(0, dtype=np.float64)
    x, y = _spread(ours), _spread(theirs)
    crossed = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(float(gap @ gap + np.square(x).sum() + np.square(y).sum() - 2 * crossed), 0.0)


def _spread(features: np.ndarray) -> np.ndarray:
    """float64 (at most d, d) whose product with its own transpose, X^T X, is the covariance."""
    centred = (features - features.mean(0, dtype=np.float64)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred
