"""Verification: TAR at a FAR, the most accurate threshold, accuracy over folds, and likelihood ratios."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import ErrorCurve, Floats, Presorted, check_scores, item_weights


@dataclass(frozen=True)
class OperatingPoint:
    """An operating point: accept every score >= threshold."""

    far: float  # the requested FAR, which the FMR at the threshold does not exceed
    tar: float  # share of genuine scores accepted
    threshold: float  # the lowest score whose FMR does not exceed `far`; just above all scores if there is none
    false_accepts: float  # impostor pairs accepted, by weight


@dataclass(frozen=True, eq=False)
class FoldAccuracy:
    """Accuracy of each fold [F] at the threshold [F] that the other folds chose, their mean, and its standard error."""

    accuracies: Floats
    thresholds: Floats

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Standard deviation (F − 1) of the folds' accuracies over √F."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def tar_at_far(curve: ErrorCurve, far: float, *, zero_ok: bool = False) -> OperatingPoint:
    """The largest TAR at any threshold whose FMR does not exceed `far` in [0, 1]; never interpolated.

    Args:
        curve, far: the scores, and the FAR.
        zero_ok: return the point without false accepts if `far` is below one impostor pair.

    Raises:
        InputError: `far` < 1 / impostor pairs, without `zero_ok`.

    Source: ISO/IEC 19795-1 (FMR, FNMR).

    >>> from angulus.evaluation.metrics.curves import error_curve
    >>> tar_at_far(error_curve([0.9, 0.8, 0.7, 0.6, 0.1], [True, False, True, True, False]), 0.5)
    OperatingPoint(far=0.5, tar=1.0, threshold=0.6, false_accepts=1.0)
    """
    require_support(far, float(curve.impostors[-1]), zero_ok=zero_ok)
    row = last_within(curve.fmr, far)
    if row < 0:
        return OperatingPoint(far, 0.0, above(curve.thresholds[0]), 0.0)
    tar = float(curve.genuine[row] / curve.genuine[-1])  # one of curve.tar, which may be very long
    return OperatingPoint(far, tar, float(curve.thresholds[row]), float(curve.impostors[row]))


def require_support(
    far: float, count: float, *, zero_ok: bool = False, of: str = "impostor pairs", hint: str = "", name: str = "FAR"
) -> None:
    """Refuse a FAR below 1 / `count`, which `count` impostors cannot show; `hint` ends the message."""
    checks.number("far", far, low=0, high=1)
    if count > 0 and (zero_ok or (far > 0 and 1 / count <= far)):
        return
    if far == 0 and not zero_ok:
        raise InputError("far must be > 0; got 0; for the point without false accepts pass zero_ok=True")
    least = least_count(far) if far > 0 else 1
    raise InputError(
        f"{name} {far:g} needs at least {least:,} {of}; got {count:,.0f}; give more, or ask for a higher rate{hint}"
    )


def least_count(far: float) -> int:
    """How many impostors it takes to show a FAR: the least n with 1/n <= far.

    >>> least_count(1e-6), least_count(0.3)
    (1000000, 4)
    """
    count = max(1, round(1 / far))
    return count if 1 / count <= far else count + 1


def last_within(rates: Floats, limit: float) -> int:
    """The last row of rising rates that does not exceed `limit`, or −1.

    A rate m/n and a decimal such as 0.29 are both rounded once, so equal ones compare as equal.
    """
    return int(np.searchsorted(rates, limit, side="right")) - 1


def above(score: float) -> float:
    """The lowest threshold that rejects this score."""
    return float(np.nextafter(score, np.inf))


def best_threshold(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float]:
    """The threshold of the highest accuracy, and that accuracy.

    All thresholds between two neighbouring scores accept the same scores. The one returned is the middle of the best
    such interval; of equally good intervals that do not touch, the widest, and of equally wide ones the highest. The
    two open ends are cut: the lowest score accepts all, the next number above the highest accepts none.

    Args:
        scores, same: [N], finite, and [N] of bool.
        weights: [N], >= 0, or None for once. Accuracies within 1e-12 count as equal, since sums of fractional weights
            are rounded.

    >>> best_threshold([0.9, 0.7, 0.3, 0.1], [True, True, False, False])
    (0.5, 1.0)
    """
    return best_of(Presorted.of(scores, same), weights)


def best_of(presorted: Presorted, weights: ArrayLike | None = None) -> tuple[float, float]:
    """`best_threshold` of scores that are already sorted."""
    genuine, impostors = presorted.amounts(weights)
    totals = float(genuine.sum()), float(impostors.sum())
    for name, total in zip(("genuine", "impostor"), totals, strict=True):
        if total <= 0:
            raise InputError(f"a threshold needs at least one {name} pair; got none among {len(presorted.same)}")
    gains = item_weights(weights, len(presorted.same)) * presorted.gain
    threshold, gain = _best(presorted.thresholds, presorted.sums(gains), presorted.sums(abs(gains)) > 0)
    return threshold, (totals[1] + gain) / sum(totals)


def balanced_accuracy(curve: ErrorCurve) -> tuple[float, float]:
    """The threshold of the highest balanced accuracy (TAR + 1 − FMR) / 2, and that accuracy, in [0.5, 1].

    Unlike plain accuracy, it does not depend on the ratio of impostor to genuine pairs: accepting nothing, or
    everything, is 0.5 accurate. Of equally good thresholds the highest is returned.

    >>> from angulus.evaluation.metrics.curves import error_curve
    >>> balanced_accuracy(error_curve([0.9, 0.8, 0.7, 0.1], [True, False, False, False]))
    (0.9, 1.0)
    """
    gain = np.append(0.0, curve.tar - curve.fmr)
    row = int(np.argmax(gain))
    threshold = float(curve.thresholds[row - 1]) if row else above(curve.thresholds[0])
    return threshold, float(1 + gain[row]) / 2


def kfold_accuracy(
    scores: ArrayLike, same: ArrayLike, folds: ArrayLike, weights: ArrayLike | None = None
) -> FoldAccuracy:
    """Accuracy of each fold at the `best_threshold` of the other folds.

    Args:
        scores: [N], finite; or [F, N] if each fold has its own scores (as with a PCA fitted without that fold): row f
            gives both threshold and accuracy of the f-th fold.
        same: [N] of bool.
        folds: [N], the fold of each pair, whole numbers.
        weights: [N], >= 0, or None for once.

    Raises:
        InputError: fewer than two folds, or one without genuine or without impostor pairs.

    Source: G. B. Huang et al., "Labeled Faces in the Wild", UMass TR 07-49, 2007, Sec. 5 (mean and standard error).

    >>> kfold_accuracy([0.9, 0.1, 0.8, 0.2], [True, False, True, False], [0, 0, 1, 1]).mean
    1.0
    """
    return PresortedFolds.of(scores, same, folds).accuracy(weights)


@dataclass(frozen=True, eq=False)
class _Fold:
    """One fold: its test pairs, and the presorted scores of the other folds."""

    name: int
    test: NDArray[np.int64]
    scores: Floats
    same: NDArray[np.bool_]
    train: NDArray[np.int64]
    thresholds: Floats
    place: NDArray[np.int64]  # of the training pairs
    gain: Floats  # of the training pairs: what accepting one adds to the correct ones


@dataclass(frozen=True, eq=False)
class PresortedFolds:
    """Scores sorted once, to compute the accuracy over folds under many weights."""

    parts: tuple[_Fold, ...]
    total: int

    @staticmethod
    def of(
        scores: ArrayLike, same: ArrayLike, folds: ArrayLike, failed: NDArray[np.bool_] | None = None
    ) -> "PresortedFolds":
        """Sort scores; the arguments are those of `kfold_accuracy` and, `failed`, of `Presorted.of`."""
        scores, folds = np.asarray(scores, dtype=np.float64), np.asarray(folds)
        if folds.ndim != 1 or folds.dtype.kind not in "iu":
            raise InputError(f"folds must be whole numbers [N]; got {folds.dtype} {list(folds.shape)}")
        names = np.unique(folds)
        if len(names) < 2:
            raise InputError(f"folds must be at least two, for one chooses the other's threshold; got {names}")
        rows = scores if scores.ndim == 2 else scores[None]
        if scores.ndim not in (1, 2) or rows.shape[1:] != folds.shape or len(rows) not in (1, len(names)):
            raise InputError(
                f"scores must be [N] or [F, N] and folds [N]; got {list(scores.shape)} and {list(folds.shape)} of "
                f"{len(names)} folds"
            )
        presorted = [Presorted.of(row, same, failed) for row in rows]
        parts = [
            _fold(int(name), folds == name, rows[number % len(rows)], presorted[number % len(rows)])
            for number, name in enumerate(names)
        ]
        return PresortedFolds(tuple(parts), len(folds))

    def accuracy(self, weights: ArrayLike | None = None) -> FoldAccuracy:
        """Accuracy over folds under these weights, [N]."""
        amount = item_weights(weights, self.total)
        accuracies, thresholds = np.array([_fold_accuracy(part, amount) for part in self.parts]).T
        return FoldAccuracy(accuracies, thresholds)


def _fold(name: int, member: NDArray[np.bool_], scores: Floats, presorted: Presorted) -> _Fold:
    test, train = np.flatnonzero(member), np.flatnonzero(~member)
    same = presorted.same
    places, gain = presorted.place[train], presorted.gain[train]
    return _Fold(name, test, scores[test], same[test], train, presorted.thresholds, places, gain)


def _fold_accuracy(fold: _Fold, amount: Floats) -> tuple[float, float]:
    """(accuracy, threshold) of one fold."""
    tested = amount[fold.test]
    for name, kind in (("genuine", fold.same), ("impostor", ~fold.same)):
        if not tested[kind].any():
            raise InputError(f"fold {fold.name} has no {name} pair; each fold needs both kinds")
    trained, size = amount[fold.train], len(fold.thresholds)
    gains = trained * fold.gain
    gain = np.asarray(np.bincount(fold.place, gains, size), dtype=np.float64)
    threshold, _ = _best(fold.thresholds, gain, np.bincount(fold.place, abs(gains), size) > 0)
    right = (fold.scores >= threshold) == fold.same
    return float(tested[right].sum() / tested.sum()), threshold


def _best(thresholds: Floats, gain: Floats, counted: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle of the best interval, and the correct weight there minus the impostors' total.

    Args:
        thresholds: falling, [K].
        gain: what lowering the threshold to each adds to the correct weight, [K]: genuine minus impostor weight.
        counted: which thresholds have any weight, [K]; if none has, nothing is accepted.
    """
    if not counted.any():
        return above(thresholds[0]), 0.0
    correct = np.append(0.0, np.cumsum(gain))  # by how many of the highest thresholds are accepted
    best = np.flatnonzero(correct >= correct.max() - 1e-12 * np.abs(gain).sum())
    breaks = np.flatnonzero(np.diff(best) > 1)
    starts, ends = best[np.append(0, breaks + 1)], best[np.append(breaks, -1)]
    rows = np.flatnonzero(counted)
    bottom = float(thresholds[rows[-1]])
    high = np.where(starts == 0, above(thresholds[rows[0]]), thresholds[starts - 1])
    low = np.where(ends == len(gain), bottom, thresholds[np.minimum(ends, len(gain) - 1)])
    widest = int(np.argmax(high / 2 - low / 2))
    middle = low[widest] / 2 + high[widest] / 2
    if not low[widest] < middle <= high[widest]:  # the two are neighbours among floating-point numbers
        middle = high[widest]
    return float(middle), float(correct.max())


def likelihood_ratio(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """Slope a and intercept b of log p(score | genuine) / p(score | impostor) ≈ a · score + b, by logistic regression.

    Genuine and impostor pairs have the same total weight, so the share of genuine pairs in the list, which is seldom
    that of an application, has no effect. Targets are Platt's, (G + 1) / (G + 2) and 1 / (I + 2), which keep the fit
    finite if the scores of the two kinds do not overlap.

    The fit has two parameters instead of being isotonic: the map is strictly increasing, so it keeps the order of
    scores; it never reaches 0 or 1, even beyond the scores seen; and a few dozen pairs of each kind determine it.

    Raises:
        InputError: only one kind of pairs, or genuine scores that are not higher than the impostors'.

    Source: J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999; N. Brümmer and J. du Preez, Computer
    Speech and Language 20, 2006 (likelihood ratios by weighted logistic regression).
    """
    scores, same = check_scores(scores, same)
    genuine = int(same.sum())
    impostors = len(same) - genuine
    if not genuine or not impostors:
        raise InputError(f"a likelihood ratio needs pairs of both kinds; got {genuine} genuine, {impostors} impostors")
    spread = float(scores.std())
    if scores[same].mean() <= scores[~same].mean() or spread == 0:
        raise InputError(
            "genuine scores must be higher on average than impostor scores; they are not; check which pairs are "
            "genuine, and that higher scores mean more similar; if so, the model does not tell these people apart"
        )
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostors + 2))
    weight = np.where(same, 1 / genuine, 1 / impostors) * len(same) / 2
    standard = ((scores - scores.mean()) / spread)[:, None]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200)
    model.fit(
        np.concatenate([standard, standard]),
        np.repeat([1, 0], len(same)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / spread
    return slope, float(model.intercept_[0]) - slope * float(scores.mean())
