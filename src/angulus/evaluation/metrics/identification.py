"""Identification figures: CMC and rank-k, and open-set detection and identification (TPIR, FNIR at an FPIR)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import Floats, Presorted, item_weights
from angulus.evaluation.metrics.verification import above, last_within, require_support


def cmc(ranks: ArrayLike, max_rank: int, weights: ArrayLike | None = None) -> Floats:
    """Cumulative match characteristic: share of probes whose true subject is within rank 1, 2, ..., `max_rank`.

    Args:
        ranks: [P], of the true subjects, whole numbers >= 1, also beyond `max_rank`.
        max_rank: >= 1.
        weights: [P], >= 0, or None for once.

    >>> cmc([1, 3, 1, 9], 3).tolist()
    [0.5, 0.5, 0.75]
    """
    ranks = _ranks(ranks)
    checks.integer("max_rank", max_rank, low=1)
    amount = item_weights(weights, len(ranks))
    if amount.sum() <= 0:
        raise InputError(f"a CMC needs a probe of weight > 0; got none among {len(ranks)}")
    within = np.bincount(np.minimum(ranks, max_rank + 1), amount, max_rank + 2)[1:-1]
    return np.asarray(np.cumsum(within) / amount.sum())


def rank_k(ranks: ArrayLike, k: int, weights: ArrayLike | None = None) -> float:
    """Share of probes whose true subject is within rank `k`: the last point of `cmc`.

    >>> rank_k([1, 3, 1, 9], 1)
    0.5
    """
    ranks = _ranks(ranks)
    checks.integer("k", k, low=1)
    return float(cmc(ranks, min(k, int(ranks.max())), weights)[-1])


@dataclass(frozen=True, eq=False)
class OpenSetCurve:
    """Open-set identification by threshold; a threshold t detects every score >= t."""

    thresholds: Floats  # distinct scores, from the highest to the lowest, [K]
    identified: Floats  # weight of genuine probes whose true subject is within the rank and scores at least t, [K]
    alarms: Floats  # weight of impostor probes whose best score is at least t, [K]
    genuine: float  # weight of all genuine and of all impostor probes
    impostors: float
    rank: int  # within which the true subject must be

    @property
    def tpir(self) -> Floats:
        """True positive identification rate (DIR, detection and identification rate), [K]."""
        return self.identified / self.genuine

    @property
    def fnir(self) -> Floats:
        """False negative identification rate, 1 − TPIR, [K]."""
        return 1 - self.tpir

    @property
    def fpir(self) -> Floats:
        """False positive identification rate (FAR of the open set), [K]."""
        return self.alarms / self.impostors


@dataclass(frozen=True)
class OpenSetPoint:
    """An operating point of an open-set system."""

    far: float  # the requested FAR (FPIR), which the one at the threshold does not exceed
    dir: float  # detection and identification rate (TPIR) at the threshold
    threshold: float  # the lowest score whose FAR does not exceed `far`; just above all scores if there is none
    false_alarms: float  # impostor probes detected, by weight


def open_set_curve(
    mate_scores: ArrayLike,
    ranks: ArrayLike,
    impostor_scores: ArrayLike,
    *,
    rank: int = 1,
    genuine_weights: ArrayLike | None = None,
    impostor_weights: ArrayLike | None = None,
) -> OpenSetCurve:
    """Count, for each threshold, the genuine probes identified and the impostor probes that raise a false alarm.

    Args:
        mate_scores: [G], of each genuine probe with its true subject, finite.
        ranks: [G], of the true subject, whole numbers >= 1.
        impostor_scores: [I], the best score of each impostor probe with anyone in the gallery, finite.
        rank: within which the true subject must be.
        genuine_weights, impostor_weights: [G] and [I], >= 0, or None for once.

    Source: P. J. Phillips, P. Grother, R. Micheals, "Evaluation Methods in Face Recognition", Handbook of Face
    Recognition, 2011, Ch. 21; S. Liao et al., IJCB 2014 (BLUFR); ISO/IEC 19795-1 (FPIR, FNIR).

    >>> curve = open_set_curve([0.9, 0.5, 0.8], [1, 1, 2], [0.6, 0.4])
    >>> curve.thresholds.tolist(), curve.identified.tolist(), curve.alarms.tolist()
    ([0.9, 0.6, 0.5, 0.4], [1.0, 1.0, 2.0, 2.0], [0.0, 1.0, 1.0, 2.0])
    """
    checks.integer("rank", rank, low=1)
    mates, others = (np.asarray(scores, dtype=np.float64) for scores in (mate_scores, impostor_scores))
    places = _ranks(ranks)
    for name, values in (("mate_scores", mates), ("impostor_scores", others)):
        if values.ndim != 1 or not np.isfinite(values).all():
            raise InputError(f"{name} must be finite numbers of shape [N]; got shape {list(values.shape)}")
    if places.shape != mates.shape:
        raise InputError(f"ranks must be one per genuine probe, [{len(mates)}]; got {list(places.shape)}")
    amounts = item_weights(genuine_weights, len(mates)), item_weights(impostor_weights, len(others))
    genuine, impostors = (float(amount.sum()) for amount in amounts)
    for name, total in (("genuine", genuine), ("impostor", impostors)):
        if total <= 0:
            raise InputError(f"open-set identification needs at least one {name} probe; got none")
    presorted = Presorted.of(np.concatenate([mates, others]), np.repeat([True, False], [len(mates), len(others)]))
    identified, alarms = presorted.amounts(np.concatenate([amounts[0] * (places <= rank), amounts[1]]))
    counted = identified + alarms > 0
    rows = presorted.thresholds[counted], np.cumsum(identified[counted]), np.cumsum(alarms[counted])
    return OpenSetCurve(*rows, genuine, impostors, rank)


def dir_at_far(curve: OpenSetCurve, far: float, *, zero_ok: bool = False) -> OpenSetPoint:
    """Detection and identification rate at a FAR (TPIR at an FPIR): the largest at any threshold within that FAR.

    Args:
        curve: of the probes.
        far: share of impostor probes that may raise a false alarm, in [0, 1].
        zero_ok: return the point without false alarms if `far` is below one impostor probe.

    Raises:
        InputError: `far` < 1 / impostor probes, without `zero_ok`.

    Differs: BLUFR's scripts accept round(far · n) false alarms, which may exceed `far`; here the FAR never does.

    >>> dir_at_far(open_set_curve([0.9, 0.5, 0.8, 0.3], [1, 1, 2, 1], [0.6, 0.4]), 0.5)
    OpenSetPoint(far=0.5, dir=0.5, threshold=0.5, false_alarms=1.0)
    """
    require_support(far, curve.impostors, zero_ok=zero_ok, of="impostor probes")
    row = last_within(curve.fpir, far)
    if row < 0:
        return OpenSetPoint(far, 0.0, above(curve.thresholds[0]), 0.0)
    return OpenSetPoint(far, float(curve.tpir[row]), float(curve.thresholds[row]), float(curve.alarms[row]))


def _ranks(ranks: ArrayLike) -> NDArray[np.int64]:
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.dtype.kind not in "iu" or not len(ranks) or ranks.min() < 1:
        least = f", least {ranks.min()}" if ranks.size else ""
        raise InputError(f"ranks must be whole numbers >= 1 of shape [P]; got {ranks.dtype} {list(ranks.shape)}{least}")
    return ranks.astype(np.int64, copy=False)
