"""How unequal error rates of groups are: ratios, the Gini coefficient, FDR and GARBE.

The rates are those of all groups at one common threshold.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError

ALPHA = 0.5  # weight of the false match rate in FDR and GARBE


def max_over_min(rates: ArrayLike) -> float:
    """The largest rate over the smallest, max x_i / min x_i, in [1, inf].

    Infinite if only some rates are zero; NaN (undefined) if all are.

    Args:
        rates: [G], in [0, 1], of two groups or more.

    Source: ISO/IEC 19795-10:2024; P. Grother, M. Ngan, K. Hanaoka, NISTIR 8280, 2019.

    >>> max_over_min([0.01, 0.02, 0.04]), max_over_min([0.0, 0.1]), max_over_min([0.0, 0.0])
    (4.0, inf, nan)
    """
    values = _rates(rates)
    return _over(float(values.max()), float(values.min()))


def max_over_geometric_mean(rates: ArrayLike) -> float:
    """The largest rate over the geometric mean, max x_i / (Π x_i)^(1/G), in [1, inf].

    Infinite if only some rates are zero, which make the mean zero; NaN (undefined) if all are.

    Args:
        rates: [G], in [0, 1], of two groups or more.

    Source: ISO/IEC 19795-10:2024; P. Grother, NISTIR 8429, 2022.

    >>> round(max_over_geometric_mean([0.01, 0.02, 0.04]), 12)
    2.0
    """
    values = _rates(rates)
    mean = math.exp(np.log(values).mean()) if values.all() else 0.0
    return _over(float(values.max()), mean)


def gini(rates: ArrayLike) -> float:
    """Gini coefficient for few groups, n/(n − 1) · Σ_i Σ_j |x_i − x_j| / (2 n² x̄), in [0, 1]; 0 if all rates are zero.

    The factor n/(n − 1) lets it reach 1, when one group has all the errors.

    Args:
        rates: [G], in [0, 1], of two groups or more.

    Source: J. J. Howard et al., "Evaluating Proposed Fairness Models for Face Recognition Algorithms", ICPR Workshops
    2022 (GARBE); ISO/IEC 19795-10:2024.

    >>> gini([0.0, 0.0, 0.3]), gini([0.2, 0.2]), gini([0.0, 0.0])
    (1.0, 0.0, 0.0)
    """
    values = _rates(rates)
    total = float(values.sum())
    if total == 0:
        return 0.0
    apart = float(np.abs(values[:, None] - values[None, :]).sum())
    return min(1.0, apart / (2 * (len(values) - 1) * total))  # with the mean as the total over n


def fdr(false_match: ArrayLike, false_non_match: ArrayLike, alpha: float = ALPHA) -> float:
    """Fairness Discrepancy Rate, 1 − (α · max|FMR_i − FMR_j| + (1 − α) · max|FNMR_i − FNMR_j|), in [0, 1]; 1 is equal.

    Args:
        false_match, false_non_match: FMR and FNMR of the groups, [G] each, in [0, 1].
        alpha: weight of the false matches, in [0, 1].

    Source: T. de Freitas Pereira and S. Marcel, "Fairness in Biometrics: A Figure of Merit to Assess Biometric
    Verification Systems", IEEE TBIOM 4(1), 2022.

    >>> fdr([0.0, 0.5], [0.25, 0.25])
    0.75
    """
    matches, misses = (float(np.ptp(_rates(rates))) for rates in (false_match, false_non_match))
    return 1 - _weighted(matches, misses, alpha)


def garbe(false_match: ArrayLike, false_non_match: ArrayLike, alpha: float = ALPHA) -> float:
    """Gini Aggregation Rate for Biometric Equitability, α · Gini(FMR) + (1 − α) · Gini(FNMR), in [0, 1]; 0 is equal.

    Args:
        false_match, false_non_match, alpha: as in `fdr`.

    Source: J. J. Howard et al., ICPR Workshops 2022.

    >>> garbe([0.0, 0.5], [0.25, 0.25])
    0.5
    """
    return _weighted(gini(false_match), gini(false_non_match), alpha)


def _weighted(of_matches: float, of_misses: float, alpha: float) -> float:
    checks.number("alpha", alpha, low=0, high=1)
    return alpha * of_matches + (1 - alpha) * of_misses


def _over(high: float, low: float) -> float:
    if low > 0:
        return high / low
    return math.inf if high > 0 else math.nan


def _rates(rates: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(rates, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"rates must be of two groups or more, each in [0, 1]; got {checks.shown(values.tolist())}")
    return values
