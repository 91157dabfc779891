"""Rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from angulus.core import checks
from angulus.evaluation.metrics.curves import Floats, how_often


def spearman(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Spearman's ρ: the correlation of the ranks, equal values sharing their mean rank; NaN where all are equal.

    Args:
        first, second: [N], finite.
        weights: [N], >= 0: how often each sample counts, or None for once.

    Source: C. Spearman, American Journal of Psychology 15, 1904.

    >>> spearman([1, 2, 3, 4], [10, 8, 8, 1])
    -0.9486832980505138
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise checks.InputError(
            f"what is correlated must be [N] each with N >= 1; got {list(first.shape)} and {list(second.shape)}"
        )
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        raise checks.InputError("what is correlated must be finite; got NaN or Inf")
    amount = how_often(weights, len(first))
    x, y = (_centred_ranks(values, amount) for values in (first, second))
    scale = float((amount * x * x).sum() * (amount * y * y).sum())
    return float((amount * x * y).sum() / np.sqrt(scale)) if scale > 0 else float("nan")


def _centred_ranks(values: Floats, amount: Floats) -> Floats:
    """Ranks less their mean; a value's rank is what lies below it and half of what equals it."""
    _, place = np.unique(values, return_inverse=True)
    equal = np.bincount(place, weights=amount)
    ranks = (np.cumsum(equal) - equal / 2)[place]
    return np.asarray(ranks - amount.sum() / 2)
