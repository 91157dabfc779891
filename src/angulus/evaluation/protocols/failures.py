"""Images of a list without embedding as failures to enrol, in every protocol: they match nobody, at any threshold.

A genuine trial with such an image is an error, an impostor trial is rejected. Each figure is given twice: of all
trials, and, under a name that ends with `WITHOUT_FAILURES`, of those without such an image.

Source: ISO/IEC 19795-1 (a failure to enrol or to acquire is a rejection: FRR = FTA + (1 − FTA) · FNMR for genuine
pairs, and FAR = (1 − FTA) · FMR).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Statistic
from angulus.evaluation.registry import WITHOUT_FAILURES

FAILED = "failed"  # the sample that says which trials have an image without embedding, if some have
BELOW = -2.0  # a score below every cosine
NEVER = 2**31 - 1  # the rank of who is never found
TREATED = "failures to enrol, which match nobody at any threshold; ranks and thresholds take them as below all scores"
CHOICE = {"images without embedding": TREATED}


def without_failures(samples: Samples, of_trials: Collection[str]) -> dict[str, NDArray[Any]]:
    """The samples of the trials whose images all have embeddings; `of_trials` names those with one entry per trial."""
    kept = ~samples[FAILED]
    chosen = {name: values for name, values in samples.items() if name != FAILED}
    return {name: values[kept] if name in of_trials else values for name, values in chosen.items()}


def both_ways(
    figures_of: Callable[[Samples], Statistic], samples: Samples, without: Callable[[Samples], Samples]
) -> Statistic:
    """The figures of all trials, and under names of their own those without the trials that failed, if some did."""
    whole = figures_of(samples)
    if FAILED not in samples:
        return whole
    kept, rest = ~samples[FAILED], figures_of(without(samples))
    return lambda weights: {**whole(weights), **renamed(rest(weights[kept]))}


def renamed(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures under the names that say that they are without failures."""
    return {f"{name}{WITHOUT_FAILURES}": value for name, value in figures.items()}


def rate_among(rate: float, everyone: int, enrolled: int) -> float:
    """The FMR among the pairs with embeddings at which as many are accepted as the rate allows among all pairs.

    >>> rate_among(0.1, 1000, 900), rate_among(1.0, 1000, 900)
    (0.11166666666666666, 1.0)
    """
    if everyone == enrolled:
        return rate
    allowed = int(rate * everyone * (1 + 1e-12))
    return min((allowed + 0.5) / enrolled, 1.0) if rate else 0.0  # the half is against rounding


def failed_pairs(person: Rows, failed: Flags) -> tuple[Rows, Rows]:
    """Both ends of each pair of images of one person of which one or two failed, each pair once."""
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    pairs: list[Floats | Rows] = [np.empty((2, 0), dtype=np.int64)]
    for rows in np.split(order, starts[1:]):
        if failed[rows].any():
            first, second = np.triu_indices(len(rows), 1)
            both = np.stack([rows[first], rows[second]])
            pairs.append(both[:, failed[both].any(axis=0)])
    left, right = np.concatenate(pairs, axis=1)
    return left, right
