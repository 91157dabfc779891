"""Error curves: sort scores once and count what each threshold accepts; all verification figures come from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorCurve:
    """What each threshold accepts: a threshold t accepts every score >= t.

    Attributes:
        thresholds: the distinct scores, from the highest to the lowest, [K].
        genuine, impostors: weight (without weights, number) of the scores of each kind accepted at each threshold, [K].

    The last row accepts everything, so its counts are the totals. Above the first threshold nothing is accepted.
    """

    thresholds: Floats
    genuine: Floats
    impostors: Floats

    @property
    def tar(self) -> Floats:
        """Share of genuine scores accepted (TAR, TPR; 1 − FNMR), [K]."""
        return np.asarray(self.genuine / self.genuine[-1])

    @property
    def fmr(self) -> Floats:
        """Share of impostor scores accepted (FMR, FAR, FPR), [K]."""
        return np.asarray(self.impostors / self.impostors[-1])


def error_curve(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> ErrorCurve:
    """Sort the scores once and count what each distinct score accepts; equal scores move together.

    Args:
        scores: [N], finite, higher for more similar pairs; compared as they are, never transformed.
        same: [N] of bool, True for genuine pairs.
        weights: [N], >= 0: how often each pair counts (as in a bootstrap), 0 for not at all; None for once each. To
            count the same scores under many weights, use `Presorted`.

    Raises:
        checks.InputError: shapes that differ, a score that is not finite, or no genuine or no impostor pair.

    >>> curve = error_curve([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
    >>> curve.thresholds.tolist(), curve.tar.tolist(), curve.fmr.tolist()
    ([0.9, 0.8, 0.1], [0.5, 1.0, 1.0], [0.0, 0.5, 1.0])
    """
    if weights is not None:
        return Presorted.of(scores, same).curve(weights)
    scores, same = check_scores(scores, same)
    _both_kinds(float(same.sum()), float((~same).sum()), len(scores))
    ordered = np.sort(scores)  # sorts values, not places: faster, and half the memory
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # the first place of each distinct score
    thresholds = ordered[first]
    del ordered  # with 10^8 scores each of these arrays takes 0.8 GB, and allocating it longer than the sort
    accepted = np.subtract(float(len(scores)), first[::-1])
    del first
    genuine_fewer = 2 * np.count_nonzero(same) <= len(same)
    looked_up = np.sort(scores[same if genuine_fewer else ~same])  # the rarer kind
    place, count = np.unique(np.searchsorted(thresholds, looked_up), return_counts=True)
    fewer = np.zeros(len(thresholds))
    fewer[len(thresholds) - 1 - place] = count
    np.cumsum(fewer, out=fewer)
    more = np.subtract(accepted, fewer, out=accepted)
    return ErrorCurve(thresholds[::-1], *((fewer, more) if genuine_fewer else (more, fewer)))


@dataclass(frozen=True, eq=False)
class Presorted:
    """Scores sorted once, to be counted under many weights, as in a bootstrap."""

    thresholds: Floats  # the distinct scores, from the highest to the lowest, [K]
    place: NDArray[np.int64]  # the threshold at which each pair is first accepted, [N], in [0, K)
    same: NDArray[np.bool_]  # which pairs are genuine, [N]
    gain: Floats  # what accepting each pair adds to the correct ones, [N]: 1 or −1, or 0 for one that fails

    @staticmethod
    def of(scores: ArrayLike, same: ArrayLike, failed: NDArray[np.bool_] | None = None) -> "Presorted":
        """Sort scores; the arguments are those of `error_curve`.

        `failed` [N]: pairs that match at no threshold, whose scores must be below all others.
        """
        scores, same = check_scores(scores, same)
        rising, place = np.unique(scores, return_inverse=True)
        gain = np.where(same, 1.0, -1.0) * (1 if failed is None else ~failed)
        return Presorted(rising[::-1], len(rising) - 1 - place, same, gain)

    def curve(self, weights: ArrayLike | None = None) -> ErrorCurve:
        """The error curve under these weights, as `error_curve` gives it."""
        genuine, impostors = self.amounts(weights)
        counted = genuine + impostors > 0
        _both_kinds(float(genuine.sum()), float(impostors.sum()), len(self.same))
        return ErrorCurve(self.thresholds[counted], np.cumsum(genuine[counted]), np.cumsum(impostors[counted]))

    def amounts(self, weights: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Weight of the genuine and of the impostor pairs at each threshold, [K] each."""
        amount = item_weights(weights, len(self.same))
        return self.sums(amount * self.same), self.sums(amount * ~self.same)

    def sums(self, amount: Floats) -> Floats:
        """Sums at each threshold, [K], of what each pair has, [N]."""
        return np.asarray(np.bincount(self.place, amount, len(self.thresholds)), dtype=np.float64)


def check_scores(scores: ArrayLike, same: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores as float64 [N], and which are genuine as bool [N]."""
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same)
    check_columns(0, scores=scores, same=same)
    if same.dtype != np.bool_ and not np.isin(same, (0, 1)).all():
        raise checks.InputError("same must hold True (genuine) or False (impostor); got other values")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise checks.InputError(f"scores must be finite; got {scores[row]} at pair {row}")
    return scores, same.astype(bool, copy=False)


def check_columns(least: int = 1, **columns: NDArray[Any]) -> None:
    """Refuse arrays that are not [N] each with one N >= `least`."""
    shapes = [list(column.shape) for column in columns.values()]
    if len(shapes[0]) != 1 or shapes[0][0] < least or any(shape != shapes[0] for shape in shapes):
        rule = f"{' and '.join(columns)} must be [N] each" + (f" with N >= {least}" if least else "")
        raise checks.InputError(f"{rule}; got shapes {' and '.join(map(str, shapes))}")


def auc(curve: ErrorCurve) -> float:
    """Area under TAR against FMR, by trapezoids: the chance that a genuine score beats an impostor's; ties count half.

    >>> auc(error_curve([0.9, 0.8, 0.8, 0.1], [True, True, False, False]))
    0.875
    """
    genuine, impostors = curve.genuine, curve.impostors
    wider = np.diff(impostors)
    twice = genuine[0] * impostors[0] + wider @ genuine[1:] + wider @ genuine[:-1]
    return float(twice / 2 / (genuine[-1] * impostors[-1]))


def eer(curve: ErrorCurve) -> float:
    """Equal error rate: where FMR = FNMR on the convex hull of the ROC, in [0, 1].

    Finds the hull's edge across the diagonal FMR = FNMR: starts with the edge between the curve's two ends, and moves
    to the point farthest below it until there is none.

    >>> eer(error_curve([0.9, 0.8, 0.7, 0.1], [True, False, True, False]))
    0.25
    """
    fmr, fnmr = np.append(0.0, curve.fmr), np.append(1.0, 1 - curve.tar)
    left, right = 0, len(fmr) - 1
    while right - left > 1:
        run, rise = fmr[right] - fmr[left], fnmr[right] - fnmr[left]
        above = run * (fnmr[left + 1 : right] - fnmr[left]) - rise * (fmr[left + 1 : right] - fmr[left])
        farthest = int(np.argmin(above))
        if above[farthest] >= 0:
            break
        point = left + 1 + farthest
        left, right = (left, point) if fmr[point] >= fnmr[point] else (point, right)
    gap_left, gap_right = fnmr[left] - fmr[left], fmr[right] - fnmr[right]
    share = gap_left / (gap_left + gap_right)
    return float(fmr[left] + share * (fmr[right] - fmr[left]))


def _both_kinds(genuine: float, impostors: float, total: int) -> None:
    for name, amount in (("genuine", genuine), ("impostor", impostors)):
        if amount <= 0:
            raise checks.InputError(f"scores need at least one {name} pair; got none among {total}")


def item_weights(weights: ArrayLike | None, total: int) -> Floats:
    """How often each of `total` items counts: once, or by these weights [total], finite and >= 0."""
    if weights is None:
        return np.ones(total)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (total,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise checks.InputError(f"weights must be [{total}] of finite numbers >= 0; got shape {list(weights.shape)}")
    return weights
