"""Image quality: the feature norm as its measure, error versus discard, and rank correlation."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.evaluation.metrics.curves import Floats, check_columns, item_weights


@dataclass(frozen=True)
class Group:
    """Samples of one quality: their number, accuracy in [0, 1] and mean norm."""

    count: int
    accuracy: float
    mean_norm: float


def low_quality(norms: ArrayLike, fraction: float = 0.2) -> NDArray[np.bool_]:
    """Which samples are of low quality: the floor(fraction · n + ½) with the smallest norms; the rest are good.

    Of equal norms, the first ones are low.

    Args:
        norms: [N], finite, ≥ 0.
        fraction: in (0, 1); 0.2 in the paper.

    Raises:
        checks.InputError: one of the two groups would be empty.

    Source: CM Sec. 3; its 40,520 and 237 fit rounding half up.

    >>> low_quality([5.0, 1.0, 3.0, 4.0, 2.0]).tolist()
    [False, True, False, False, False]
    """
    norms = _norms(norms)
    low = np.zeros(len(norms), dtype=bool)
    low[np.argsort(norms, kind="stable")[: low_count(len(norms), fraction)]] = True
    return low


def _norms(values: ArrayLike) -> NDArray[np.float64]:
    norms = np.asarray(values, dtype=np.float64)
    bad = norms.ndim == 1 and ~(np.isfinite(norms) & (norms >= 0))
    if norms.ndim != 1 or np.any(bad):
        got = f"shape {list(norms.shape)}" if norms.ndim != 1 else f"{norms[bad][0]} at {int(np.argmax(bad))}"
        raise checks.InputError(f"norms must be finite numbers >= 0 of shape [N]; got {got}")
    return norms


def low_count(total: int, fraction: float) -> int:
    """How many of `total` samples are low; an error if that leaves one of the two groups empty.

    >>> low_count(202_599, 0.2), low_count(1183, 0.2)
    (40520, 237)
    """
    checks.number("low_fraction", fraction, low=0, high=1, open_low=True, open_high=True)
    count = math.floor(fraction * total + 0.5 + 1e-9)  # 0.145 · 100 is 14.499... in binary
    if count == 0 or count == total:
        raise checks.InputError(
            f"a split at {fraction:g} of {total} samples leaves {'low' if count == 0 else 'good'} empty; "
            "evaluate more samples, or change evaluation.low_fraction"
        )
    return count


def groups(norms: ArrayLike, correct: ArrayLike, low: ArrayLike) -> dict[str, Group]:
    """`good`, `low` and `entire`, each with its count, accuracy and mean norm.

    Args:
        norms: [N], finite, >= 0.
        correct: [N] of bool.
        low: [N] of bool, from `low_quality` of these norms or of another model's.
    """
    norms, correct, low = _norms(norms), np.asarray(correct, bool), np.asarray(low, bool)
    check_columns(0, norms=norms, correct=correct, low=low)
    members = {"good": ~low, "low": low, "entire": np.ones_like(low)}
    for name, member in members.items():
        if not member.any():
            raise checks.InputError(f"the group {name!r} is empty; give a split with samples on both sides")
    return {
        name: Group(int(member.sum()), float(correct[member].mean()), float(norms[member].mean()))
        for name, member in members.items()
    }


@dataclass(frozen=True)
class Bin:
    """Samples whose norm is in [low, high): their number and accuracy (NaN for an empty bin)."""

    low: float
    high: float
    count: int
    accuracy: float


def norm_bins(norms: ArrayLike, correct: ArrayLike, bins: int = 10, *, edges: str = "quantile") -> list[Bin]:
    """Accuracy by norm, in bins of equal count (`edges="quantile"`) or width; the last bin includes its high edge.

    Source: FI Fig. 1.
    """
    norms, correct = _norms(norms), np.asarray(correct, dtype=bool)
    checks.integer("bins", bins, low=1, high=10_000)
    checks.choice("edges", edges, ("quantile", "width"))
    check_columns(norms=norms, correct=correct)
    if edges == "quantile":
        borders = np.unique(np.quantile(norms, np.linspace(0, 1, bins + 1)))
    else:
        borders = np.linspace(norms.min(), norms.max(), bins + 1)
    if len(borders) < 2 or borders[0] == borders[-1]:
        return [Bin(float(norms.min()), float(norms.max()), len(norms), float(correct.mean()))]
    index, size = bin_of(norms, borders), len(borders) - 1
    counts, right = np.bincount(index, minlength=size).tolist(), np.bincount(index, correct, size).tolist()
    return [
        Bin(float(low), float(high), count, hits / count if count else math.nan)
        for low, high, count, hits in zip(borders[:-1], borders[1:], counts, right, strict=True)
    ]


def bin_of(norms: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each norm, [N] in [0, B), by rising edges [B + 1]; norms beyond an end belong to the end's bin."""
    return np.clip(np.searchsorted(edges, norms, side="right") - 1, 0, len(edges) - 2)


@dataclass(frozen=True)
class Discard:
    """What each quality bound leaves: a bound q discards all genuine pairs with quality < q."""

    discarded: Floats  # share of the genuine pairs that are discarded, rising from 0, [K]
    fnmr: Floats  # share of the remaining genuine pairs that are rejected, [K]


def error_versus_discard(quality: ArrayLike, rejected: ArrayLike, weights: ArrayLike | None = None) -> Discard:
    """FNMR of the remaining pairs by the share discarded, at one threshold, which `rejected` was decided by.

    Args:
        quality: [N] of the genuine pairs, finite, higher for better: that of the pair's worse image.
        rejected: [N] of bool: the genuine pair's score is below the threshold.
        weights: [N], >= 0: how often each pair counts, or None for once.

    Source: ISO/IEC 29794-1:2024, error versus discard characteristic; P. Grother, E. Tabassi, IEEE TPAMI 29(4), 2007.

    >>> curve = error_versus_discard([1.0, 2.0, 2.0, 3.0], [True, True, False, False])
    >>> curve.discarded.tolist(), curve.fnmr.round(3).tolist()
    ([0.0, 0.25, 0.75], [0.5, 0.333, 0.0])
    """
    quality, rejected = np.asarray(quality, dtype=np.float64), np.asarray(rejected)
    check_columns(quality=quality, rejected=rejected)
    if rejected.dtype != np.bool_ or not np.isfinite(quality).all():
        raise checks.InputError(f"quality must be finite and rejected bool; got {quality.dtype} and {rejected.dtype}")
    amount = item_weights(weights, len(quality))
    order = np.argsort(quality, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(quality[order]) > 0))  # the first place of each distinct quality
    pairs = np.append(0.0, np.cumsum(amount[order]))
    errors = np.append(0.0, np.cumsum((amount * rejected)[order]))
    first = first[pairs[-1] - pairs[first] > 0]
    if not len(first):
        raise checks.InputError("error versus discard needs a genuine pair of weight > 0; got none")
    remaining = pairs[-1] - pairs[first]
    return Discard(pairs[first] / pairs[-1], (errors[-1] - errors[first]) / remaining)


def area(curve: Discard, up_to: float = 1.0) -> float:
    """Area under FNMR from 0 to `up_to` discarded; between two points, the FNMR of the smaller share holds.

    >>> area(Discard(np.array([0.0, 0.25, 0.75]), np.array([0.5, 0.3, 0.0])))
    0.275
    """
    checks.number("up_to", up_to, low=0, high=1, open_low=True)
    edges = np.minimum(np.append(curve.discarded, up_to), up_to)
    return float((np.diff(edges) * curve.fnmr).sum())


def spearman(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Spearman's ρ: the correlation of the ranks, where ties share their mean rank; NaN if all values are equal.

    Args:
        first, second: [N], finite.
        weights: [N], >= 0: how often each sample counts, or None for once.

    Source: C. Spearman, American Journal of Psychology 15, 1904.

    >>> spearman([1, 2, 3, 4], [10, 8, 8, 1])
    -0.9486832980505138
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    check_columns(first=first, second=second)
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        raise checks.InputError("first and second must be finite; got NaN or Inf")
    amount = item_weights(weights, len(first))
    x, y = (_centred_ranks(values, amount) for values in (first, second))
    scale = float((amount * x * x).sum() * (amount * y * y).sum())
    return float((amount * x * y).sum() / np.sqrt(scale)) if scale > 0 else float("nan")


def _centred_ranks(values: Floats, amount: Floats) -> Floats:
    """Ranks minus their mean; the rank of a value counts what is below it and half of what equals it."""
    _, place = np.unique(values, return_inverse=True)
    equal = np.bincount(place, weights=amount)
    ranks = (np.cumsum(equal) - equal / 2)[place]
    return np.asarray(ranks - amount.sum() / 2)
