"""Histograms of similarities, told apart by a support vector machine with the histogram-intersection kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 100  # over [−1, 1]; NF
_BLOCK = 256  # rows of the kernel at a time


def histogram(similarities: Floats) -> Floats:
    """Shares of similarities in [−1, 1] that fall in 100 equal bins, [100]; the last includes 1.

    Source: NF Sec. 5.3, Fig. 9.

    >>> histogram(np.array([[-1.0, 0.995], [1.0, 0.0]]))[[0, 50, 99]].tolist()
    [0.25, 0.25, 0.5]
    """
    place = np.clip(np.floor((similarities.ravel() + 1) / 2 * BINS), 0, BINS - 1).astype(np.int64)
    return np.asarray(np.bincount(place, minlength=BINS) / place.size, dtype=np.float64)


def intersections(first: Floats, second: Floats) -> Floats:
    """Histogram-intersection kernel K(a, b) = Σ_k min(a_k, b_k) of all rows of both, [A, B].

    Source: A. Barla, F. Odone, A. Verri, "Histogram intersection kernel for image classification", ICIP 2003.

    >>> intersections(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0], [0.25, 0.75]])).tolist()
    [[0.5, 0.75]]
    """
    kernel = np.zeros((len(first), len(second)))
    for start in range(0, len(first), _BLOCK):
        block = slice(start, start + _BLOCK)
        for a, b in zip(first[block].T, second.T, strict=True):
            if a.any():
                kernel[block] += np.minimum.outer(a, b)
    return kernel


def decision_values(histograms: Floats, same: NDArray[np.bool_], folds: NDArray[np.int64], c: float) -> Floats:
    """Decision value [P] of each histogram [P, 100], by the machine trained on the other folds; above 0 is genuine."""
    from sklearn.svm import SVC  # a second to import, for those who ask for it

    kernel = intersections(histograms, histograms)
    values = np.empty(len(same))
    for fold in np.unique(folds):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        machine = SVC(C=c, kernel="precomputed").fit(kernel[np.ix_(train, train)], same[train])
        values[test] = machine.decision_function(kernel[np.ix_(test, train)])
    return values
