"""Template comparisons by weights of the subjects: the error curve of the impostors kept, and the accuracy of folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from angulus.evaluation.metrics.curves import ErrorCurve, Presorted
from angulus.evaluation.metrics.intervals import Floats, Rows, Samples
from angulus.evaluation.metrics.verification import FoldAccuracy, PresortedFolds
from angulus.evaluation.protocols.failures import BELOW
from angulus.evaluation.protocols.template_stream import LEAST


@dataclass(frozen=True, eq=False)
class Weights:
    """How often each comparison counts in a resample."""

    genuine: Floats  # [G]
    impostors: Floats  # [I] of those that are kept
    of_subject: Floats  # [S] all impostors, by the subject of the first template
    kept: float  # sums of both
    all_impostors: float


@dataclass(frozen=True, eq=False)
class Tail:
    """Genuine and kept impostor scores, sorted once, and how many impostors there are by subjects."""

    presorted: Presorted
    genuine: Rows  # [G], subjects
    first: Rows  # [I]
    second: Rows
    cut: float
    pairs: Any  # [S, S] sparse: impostor comparisons of two subjects

    @staticmethod
    def from_samples(samples: Samples) -> Tail:
        scores = np.concatenate([samples["genuine_scores"], samples["impostor_scores"]])
        same = np.arange(len(scores)) < len(samples["genuine_scores"])
        names = ("genuine_subjects", "impostor_first", "impostor_second", "pair_first", "pair_second")
        genuine, first, second, *places = (samples[name].astype(np.int64) for name in names)
        size = len(samples["subjects"])
        pairs = sparse.coo_array((samples["pair_counts"], tuple(places)), (size, size)).tocsr()
        return Tail(Presorted.of(scores, same), genuine, first, second, float(samples["cut"]), pairs)

    @property
    def whole(self) -> bool:
        """Whether all impostors are kept."""
        return self.cut == -np.inf

    def reach(self, weights: Weights) -> float:
        """The FMR down to which the curve is known; inf where all of it is."""
        return np.inf if self.whole else weights.kept / weights.all_impostors

    def weigh(self, drawn: Floats) -> Weights:
        """With n_i the times that subject i is drawn: n_i of a genuine comparison, n_i · n_j of an impostor one."""
        impostors = drawn[self.first] * drawn[self.second]
        of_subject = drawn * (self.pairs @ drawn)
        return Weights(drawn[self.genuine], impostors, of_subject, float(impostors.sum()), float(of_subject.sum()))

    def curve(self, weights: Weights) -> ErrorCurve:
        """The error curve down to the cut, and then the threshold that accepts everything."""
        curve = self.presorted.curve(np.concatenate([weights.genuine, weights.impostors]))
        if self.whole:
            return curve
        kept = int(np.searchsorted(-curve.thresholds, -self.cut, side="right"))
        return ErrorCurve(
            np.append(curve.thresholds[:kept], -np.inf),
            np.append(curve.genuine[:kept], curve.genuine[-1]),
            np.append(curve.impostors[:kept], weights.all_impostors),
        )


@dataclass(frozen=True, eq=False)
class Folds:
    """The comparisons that can be wrong at a fold's best threshold: genuine ones, and the highest impostors.

    Accepting nothing errs on the genuine only. So a best threshold accepts no more impostors than there are genuine
    comparisons; where more than that are at hand, all others are rejected.
    """

    folds: PresortedFolds | None  # None: fewer than two folds have comparisons
    of_subject: Rows  # [S], dealt in turn
    of_genuine: Rows  # [G]
    of_impostor: Rows  # [U], of the highest
    sizes: tuple[Floats, Floats]  # [F] each: all genuine and all impostor comparisons
    all_used: bool

    @staticmethod
    def from_samples(samples: Samples, tail: Tail) -> Folds:
        of_subject = np.arange(len(samples["subjects"])) % int(samples["folds"])
        used = min(len(tail.first), max(4 * len(tail.genuine), LEAST))
        of_genuine, of_impostor = of_subject[tail.genuine], of_subject[tail.first[:used]]
        scores = np.concatenate([samples["genuine_scores"], samples["impostor_scores"][:used]])
        same, fold = np.arange(len(scores)) < len(of_genuine), np.concatenate([of_genuine, of_impostor])
        found = PresortedFolds.of(scores, same, fold, scores == BELOW) if len(np.unique(fold)) > 1 else None
        once = tail.weigh(np.ones(len(of_subject)))
        sizes = _sums(of_genuine, once.genuine, of_subject), _sums(of_subject, once.of_subject, of_subject)
        return Folds(found, of_subject, of_genuine, of_impostor, sizes, tail.whole and used == len(tail.first))

    def accuracy(self, weights: Weights) -> FoldAccuracy | None:
        """Accuracy of each fold, or None where one lacks a kind, or impostors that are not at hand might decide.

        Each fold keeps its numbers of genuine and impostor comparisons, as `keeping_sizes` has it.
        """
        present = np.unique(np.concatenate([self.of_genuine, self.of_impostor]))
        genuine, impostors = self.sizes
        sums = (
            _sums(self.of_genuine, weights.genuine, self.of_subject),
            np.bincount(self.of_subject, weights.of_subject),
        )
        if self.folds is None or any((counts[present] == 0).any() for counts in sums):
            return None
        scales = [size / np.where(count > 0, count, 1) for size, count in zip(self.sizes, sums, strict=True)]
        highest = weights.impostors[: len(self.of_impostor)] * scales[1][self.of_impostor]
        at_hand = _sums(self.of_impostor, highest, self.of_subject)
        enough = at_hand.sum() - at_hand > genuine.sum() - genuine  # in the folds that choose
        if (at_hand[present] == 0).any() or not (self.all_used or enough.all()):
            return None
        found = self.folds.accuracy(np.concatenate([weights.genuine * scales[0][self.of_genuine], highest]))
        wrong = (1 - found.accuracies) * (genuine + at_hand)[present]
        return FoldAccuracy(1 - wrong / (genuine + impostors)[present], found.thresholds)


def _sums(fold: Rows, weights: Floats, of_subject: Rows) -> Floats:
    """Weight in each fold that a subject is in."""
    return np.asarray(np.bincount(fold, weights, int(of_subject.max()) + 1), dtype=np.float64)
