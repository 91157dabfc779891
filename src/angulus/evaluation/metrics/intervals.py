"""Intervals: a bootstrap over identities, and Student's interval of paired differences over seeds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.evaluation.metrics.curves import check_columns

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]
Samples = Mapping[str, NDArray[Any]]
Statistic = Callable[[Floats], Mapping[str, float]]

MOST_DRAWS = 100_000  # resamples; enough to know the ends of a 95 % interval to a hundredth of its width

UNDEFINED = "undefined in more than a tenth of the resamples"  # why a figure has no interval

_ROUNDING = 1e-12  # of the largest value: what rounding leaves between equal numbers


@dataclass(frozen=True)
class Interval:
    """The range of a figure in `level` of the resamples."""

    low: float
    high: float
    level: float = 0.95

    @property
    def degenerate(self) -> str:
        """Why this interval says nothing about the figure; empty if it does.

        >>> Interval(1.0, 1.0).degenerate, Interval(0.5, 1.0).degenerate
        ('all resamples agree', '')
        """
        if np.isnan(self.low) or np.isnan(self.high):
            return f"{UNDEFINED}; give more people, with pairs of both kinds"
        if np.isinf(self.high):
            return "infinite in some of the resamples: one of the rates is zero there; give more people"
        if self.high - self.low <= _ROUNDING * max(abs(self.low), abs(self.high)):
            return "all resamples agree"
        return ""


@dataclass(frozen=True)
class Units:
    """The units that are resampled (identities, scans), and the one or two that each item (pair, image) belongs to.

    Pairs share people, so people are drawn, not pairs: if identity i is drawn n_i times, a pair of identities i ≠ j
    counts n_i · n_j times, and an item of i alone, or a genuine pair of i, n_i times.
    """

    count: int
    first: NDArray[np.int64]  # [N]
    second: NDArray[np.int64]  # [N]; equal to first for an item of one unit

    @staticmethod
    def of(first: ArrayLike, second: ArrayLike | None = None) -> "Units":
        """Number the units by their names, [N] each."""
        first = np.asarray(first)
        second = first if second is None else np.asarray(second)
        check_columns(first=first, second=second)
        names, numbers = np.unique(np.concatenate([first, second]), return_inverse=True)
        return Units(len(names), numbers[: len(first)], numbers[len(first) :])

    def weights(self, drawn: Floats) -> Floats:
        """How often each item counts when unit u is drawn `drawn[u]` times, [N]."""
        return np.where(self.first == self.second, drawn[self.first], drawn[self.first] * drawn[self.second])


def keeping_sizes(weights: Floats, strata: NDArray[np.int64]) -> Floats | None:
    """Weights [N] scaled so that each stratum weighs as much as it has items; None if one has lost all its weight.

    w_i · n_s / Σ_{j in s} w_j for an item i of stratum s with n_s items.

    The authors of a benchmark chose the numbers of genuine and impostor pairs in a fold, and would with other people
    too. A resample of people disturbs them: it has n_i of each genuine pair and n_i · n_j of each impostor pair.
    Accuracy depends on their ratio, doubly so if folds with other ratios choose the threshold: unscaled, its intervals
    are too wide and too low. Shares within a kind (TAR, FMR) need no scaling.

    Source: poststratification, C.-E. Särndal, B. Swensson, J. Wretman, Model Assisted Survey Sampling, 1992, Ch. 7.

    >>> keeping_sizes(np.array([2.0, 0.0, 3.0]), np.array([0, 0, 1])).tolist()
    [2.0, 0.0, 1.0]
    """
    sizes = np.bincount(strata)
    sums = np.bincount(strata, weights, len(sizes))
    if (sums[sizes > 0] == 0).any():
        return None
    return np.asarray(weights * (sizes / np.where(sizes > 0, sums, 1))[strata])


def bootstrap(
    statistic: Statistic, units: Units, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile intervals of every figure that `statistic` returns.

    `units.count` units are drawn with replacement `draws` times; each time `statistic` gets the items' weights [N]. A
    resample in which a figure is undefined (NaN or absent) is left out of its interval; a figure undefined in more
    than a tenth of them has the interval (NaN, NaN). A single unit cannot be resampled and gives no intervals.

    Args:
        statistic: weights [N] -> {name: figure}.
        units: what is drawn.
        draws: resamples, in [1, 100,000].
        seed: of the draws.
        level: share of the resamples inside, in (0, 1).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, Ch. 13; ISO/IEC 19795-1 (subjects are drawn).
    """
    checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    resamples = _draws(units.count, draws, seed)
    figures = [dict(statistic(units.weights(drawn))) for drawn in resamples] if units.count > 1 else []
    return _percentiles(figures, level)


def bootstrap_columns(
    statistic: Callable[[Floats], Floats], units: Units, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """`bootstrap` of a statistic that returns its figures as an array [F], NaN where undefined: F intervals, or none.

    A ratio may be infinite in a resample; an interval that such resamples reach ends at infinity.
    """
    checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    resamples = _draws(units.count, draws, seed)
    figures = np.array([statistic(units.weights(drawn)) for drawn in resamples] if units.count > 1 else [])
    return [_percentile(column, level) for column in figures.T] if len(figures) else []


def paired_bootstrap(
    first: Statistic, second: Statistic, units: Units, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile intervals of second − first on the same resamples, for the figures that both return."""
    checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    figures = []
    for drawn in _draws(units.count, draws, seed) if units.count > 1 else ():
        weights = units.weights(drawn)
        before, after = first(weights), second(weights)
        figures.append({name: after[name] - before[name] for name in before if name in after})
    return _percentiles(figures, level)


def _draws(units: int, draws: int, seed: int) -> Iterator[Floats]:
    checks.integer("draws", draws, low=1, high=MOST_DRAWS)
    rng = np.random.default_rng(checks.integer("seed", seed, low=0))
    return (rng.multinomial(units, np.full(units, 1 / units)).astype(np.float64) for _ in range(draws))


def _percentiles(figures: list[dict[str, float]], level: float) -> dict[str, Interval]:
    names = dict.fromkeys(name for figure in figures for name in figure)
    return {name: _percentile(np.array([figure.get(name, np.nan) for figure in figures]), level) for name in names}


def _percentile(values: Floats, level: float) -> Interval:
    defined = values[~np.isnan(values)]
    if len(defined) < 0.9 * len(values):
        return Interval(math.nan, math.nan, level)
    with np.errstate(invalid="ignore"):  # between two infinite values NumPy's percentile is NaN
        low, high = np.nan_to_num(np.percentile(defined, [50 * (1 - level), 50 * (1 + level)]), nan=np.inf)
    return Interval(float(low), float(high), level)


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, and its confidence interval."""

    mean: float
    low: float  # the interval's ends; NaN if all differences are equal, as when every seed reaches 100 %
    high: float
    level: float = 0.95
    no_interval: str = ""  # why there is no interval, or empty

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(differences: Sequence[float], level: float = 0.95) -> Difference:
    """Student's interval of the mean of n paired differences: d̄ ± t_{n−1, (1 + level)/2} · s / √n.

    Assumes independent draws from one normal distribution, so it is about other seeds on the same test set.

    Args:
        differences: n >= 2, second minus first, one per seed.
        level: confidence, in (0, 1).

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.

    >>> interval = paired_difference([0.1, 0.3, 0.2])
    >>> round(interval.mean, 3), round(interval.low, 3), round(interval.high, 3)
    (0.2, -0.048, 0.448)
    >>> paired_difference([0.0, 0.0, 0.0]).no_interval
    'all seeds differ by the same amount'
    """
    checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise checks.InputError(f"differences must be of at least two seeds; got {len(values)}: train with more seeds")
    mean = float(values.mean())
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return Difference(mean, math.nan, math.nan, level, "all seeds differ by the same amount")
    from scipy import stats  # slow to import, and only comparisons of seeds need it

    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Difference(mean, mean - reach, mean + reach, level)
