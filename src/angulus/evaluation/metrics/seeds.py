"""How far two ways of training differ, over seeds that both were trained with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from angulus.core import checks

_ALIKE = 1e-12  # of the largest: what rounding leaves between differences that are the same


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, and where it lies with confidence `level`; an interval without 0 tells them apart.

    Attributes:
        low, high: NaN where the differences are all alike, as at 100 % with every seed: no spread, no interval.
        no_interval: why there is none, or empty.
    """

    mean: float
    low: float
    high: float
    level: float = 0.95
    no_interval: str = ""

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_difference(differences: Sequence[float], level: float = 0.95) -> Difference:
    """Student's interval of the mean of n paired differences: d̄ ± t_{n−1, (1 + level)/2} · s / √n.

    It takes the differences as independent draws of one normal distribution: it is about other seeds, on this test set.

    Args:
        differences: n >= 2, second minus first, a seed each.
        level: confidence, in (0, 1).

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.

    >>> found = paired_difference([0.1, 0.3, 0.2])
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (0.2, -0.048, 0.448)
    >>> paired_difference([0.0, 0.0, 0.0]).no_interval
    "the seeds' differences are all alike"
    """
    checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise checks.InputError(f"differences must be of at least two seeds; got {len(values)}: train with more seeds")
    mean = float(values.mean())
    if np.ptp(values) <= _ALIKE * np.abs(values).max():
        return Difference(mean, math.nan, math.nan, level, "the seeds' differences are all alike")
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Difference(mean, mean - reach, mean + reach, level)
