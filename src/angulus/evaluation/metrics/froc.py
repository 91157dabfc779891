"""FROC: sensitivity against false positives per case, and its mean at seven rates (CPM)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import Floats, check_columns, item_weights

FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per case; LUNA16


@dataclass(frozen=True)
class Froc:
    """What each threshold finds: a threshold t counts every finding with score >= t."""

    thresholds: Floats  # inf, then the distinct scores from the highest to the lowest, [K]
    fp_per_case: Floats  # false positives at each threshold, divided by the number of cases, [K]
    sensitivity: Floats  # share of all lesions found at each threshold, [K]


def froc_curve(scores: ArrayLike, lesion: ArrayLike, cases: float, weights: ArrayLike | None = None) -> Froc:
    """Sort the findings once and count what each distinct score finds; equal scores move together.

    Args:
        scores: [N], higher for more suspicious; −inf for a lesion that no mark hit.
        lesion: [N] of bool: True for a lesion (once each, with the score of its best mark), False for a false positive.
        cases: number of cases searched (scans, patients, images), > 0, including those without findings.
        weights: [N], >= 0: how often each finding counts (its case's multiplicity in a bootstrap), or None for once.

    Raises:
        InputError: shapes that differ, a score that is NaN or +inf, −inf for a false positive, no lesion.

    Source: the evaluation of LUNA16, A. A. A. Setio et al., Medical Image Analysis 42, 2017, Sec. 3.3.

    >>> curve = froc_curve([0.9, 0.8, 0.8, -np.inf], [True, True, False, True], cases=2)
    >>> curve.thresholds.tolist(), curve.fp_per_case.tolist(), curve.sensitivity.round(3).tolist()
    ([inf, 0.9, 0.8], [0.0, 0.0, 0.5], [0.0, 0.333, 0.667])
    """
    scores, lesion = _findings(scores, lesion)
    checks.number("cases", cases, low=0, open_low=True)
    amount = item_weights(weights, len(scores))
    total = float(amount[lesion].sum())
    if total <= 0:
        raise InputError(f"a FROC needs at least one lesion; got none among {len(scores)} findings")
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    hits = np.cumsum(np.where(lesion, amount, 0.0)[order])[last]
    false = np.cumsum(np.where(lesion, 0.0, amount)[order])[last]
    return Froc(np.append(np.inf, ordered[last]), np.append(0.0, false) / cases, np.append(0.0, hits) / total)


def sensitivity_at(curve: Froc, rates: ArrayLike = FP_RATES) -> Floats:
    """Sensitivity at these false positives per case, by linear interpolation, [R].

    If the curve rises at one rate, its highest point counts; beyond the curve's end, its last sensitivity holds.

    >>> curve = Froc(np.array([np.inf, 0.9, 0.5]), np.array([0.0, 0.0, 2.0]), np.array([0.0, 0.5, 1.0]))
    >>> sensitivity_at(curve, [0, 1, 8]).tolist()
    [0.5, 0.75, 1.0]
    """
    rates = np.asarray(rates, dtype=np.float64)
    if not np.isfinite(rates).all() or (rates < 0).any():
        raise InputError(f"rates must be finite numbers >= 0 (false positives per case); got {rates.tolist()}")
    return np.asarray(np.interp(rates, curve.fp_per_case, curve.sensitivity))


def cpm(curve: Froc) -> float:
    """Competition performance metric: the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per case.

    Source: M. Niemeijer et al., IEEE Transactions on Medical Imaging 30(2), 2011.
    """
    return float(sensitivity_at(curve).mean())


def _findings(scores: ArrayLike, lesion: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    scores, lesion = np.asarray(scores, dtype=np.float64), np.asarray(lesion)
    check_columns(0, scores=scores, lesion=lesion)
    if lesion.dtype != np.bool_ and not np.isin(lesion, (0, 1)).all():
        raise InputError("lesion must hold True (a lesion) or False (a false positive); got other values")
    lesion = lesion.astype(bool)
    wrong = np.isnan(scores) | (scores == np.inf) | ((scores == -np.inf) & ~lesion)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"scores must be finite, or -inf for a lesion not hit; got {scores[row]} at finding {row}")
    return scores, lesion
