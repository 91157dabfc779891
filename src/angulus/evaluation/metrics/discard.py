"""Error versus discard: the false non-match rate that is left as the lowest-quality pairs are discarded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from angulus.core import checks
from angulus.evaluation.metrics.curves import Floats, how_often


@dataclass(frozen=True)
class Discard:
    """What each quality bound leaves: a bound q discards every genuine pair with quality < q; equal ones go together.

    Attributes:
        discarded: share of the genuine pairs that is discarded, rising from 0, [K].
        fnmr: share of the kept genuine pairs that is rejected, [K].
    """

    discarded: Floats
    fnmr: Floats


def error_versus_discard(quality: ArrayLike, rejected: ArrayLike, weights: ArrayLike | None = None) -> Discard:
    """FNMR of the pairs kept, by the share discarded, at the one threshold by which `rejected` was decided.

    Args:
        quality: [N] of the genuine pairs, finite, higher for better: of a pair, its worse image's.
        rejected: [N] of bool: the genuine pair's score is below the threshold.
        weights: [N], >= 0: how often each pair counts, or None for once.

    Source: ISO/IEC 29794-1:2024, error versus discard characteristic; P. Grother, E. Tabassi, IEEE TPAMI 29(4), 2007.

    >>> curve = error_versus_discard([1.0, 2.0, 2.0, 3.0], [True, True, False, False])
    >>> curve.discarded.tolist(), curve.fnmr.round(3).tolist()
    ([0.0, 0.25, 0.75], [0.5, 0.333, 0.0])
    """
    quality, rejected = np.asarray(quality, dtype=np.float64), np.asarray(rejected)
    if quality.ndim != 1 or quality.shape != rejected.shape or not len(quality):
        raise checks.InputError(
            "quality and rejected must be [N] each with N >= 1; "
            f"got shapes {list(quality.shape)} and {list(rejected.shape)}"
        )
    if rejected.dtype != np.bool_ or not np.isfinite(quality).all():
        raise checks.InputError(f"quality must be finite and rejected bool; got {quality.dtype} and {rejected.dtype}")
    amount = how_often(weights, len(quality))
    order = np.argsort(quality, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(quality[order]) > 0))  # the first place of each distinct quality
    pairs = np.append(0.0, np.cumsum(amount[order]))
    errors = np.append(0.0, np.cumsum((amount * rejected)[order]))
    first = first[pairs[-1] - pairs[first] > 0]
    if not len(first):
        raise checks.InputError("error versus discard needs a genuine pair of weight > 0; got none")
    kept = pairs[-1] - pairs[first]
    return Discard(pairs[first] / pairs[-1], (errors[-1] - errors[first]) / kept)


def area(curve: Discard, up_to: float = 1.0) -> float:
    """Area under FNMR from 0 to `up_to` discarded; between two points the FNMR of the smaller share holds.

    >>> area(Discard(np.array([0.0, 0.25, 0.75]), np.array([0.5, 0.3, 0.0])))
    0.275
    """
    checks.number("up_to", up_to, low=0, high=1, open_low=True)
    edges = np.minimum(np.append(curve.discarded, up_to), up_to)
    return float((np.diff(edges) * curve.fnmr).sum())
