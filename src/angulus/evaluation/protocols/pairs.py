"""Verification of pairs over folds: LFW, CALFW, CPLFW, AgeDB-30, CFP, SLLFW, or your own list."""

from collections.abc import Sequence

import numpy as np

from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import ErrorCurve, Presorted, auc, eer
from angulus.evaluation.metrics.intervals import Floats, Samples, Statistic, Units, keeping_sizes
from angulus.evaluation.metrics.verification import FoldAccuracy, best_of, tar_at_far
from angulus.evaluation.protocols import by_group, scored
from angulus.evaluation.protocols.failures import FAILED, both_ways, renamed
from angulus.evaluation.protocols.figures import Resampling, measure, rate_label, supported_rates
from angulus.evaluation.protocols.result import Curve, Result

PROTOCOL = "pairs"
MEASURED = scored.MEASURED
BEST = "best accuracy (threshold from the same pairs)"


def evaluate(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    metric: str = "cosine",
    flip: str | None = None,
    pca: int | None = None,
    fars: Sequence[float] | None = None,
    missing: str = "refuse",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Accuracy over folds, AUC, EER and TAR at FARs, with intervals by a bootstrap over identities.

    With groups, also FMR and FNMR of each group and pair of groups at the thresholds of the FARs (`by_group`); there
    each distinct pair counts once.

    Accuracy: a fold's threshold is the most accurate one on the other folds; the figure is the folds' mean, ± its
    standard error. A list without folds has, under another name, the accuracy of its best threshold on its own pairs.

    Args:
        embeddings: of all images of the list; its labels are the identities where the list has none.
        pairs: the list.
        metric: "cosine", "inner", "euclidean" or "unit-euclidean" (NF Table 1 compares the four).
        flip: None, "sum" or "concat": fuse with the mirrored image's embedding, before all else.
        pca: project onto this many directions before scoring, fitted for each fold on the images of the other folds.
        fars: where TAR is reported, each of which the pairs must support, 0 for no false accept; None: those of 1e-1,
            1e-2, ... 1e-6 that they do.
        missing: "refuse" images without embedding; or "fail": failures to enrol, as ISO/IEC 19795-1 counts them. A
            genuine pair with such an image is an error, an impostor pair is rejected, at every threshold. Each figure
            is then given twice: of all pairs, and without those.
        draws, seed: resamples for the intervals (0 for none), and their seed.

    Raises:
        checks.InputError: an image without embedding, a fold or a list with pairs of one kind only, a FAR that needs
            more impostor pairs, PCA without folds.

    Source: G. B. Huang et al., UMass TR 07-49, 2007; NF Sec. 4.2 (flip sum, PCA on the training folds, cosine).
    """
    pair_scores = scored.score(embeddings, pairs, metric=metric, flip=flip, pca=pca, missing=missing)
    samples, once = pair_scores.samples, pair_scores.distinct
    impostors = scored.distinct_impostors(scored.without_failures(samples))  # a pair that failed shows no error
    kept, notes = supported_rates(fars, impostors, impostors=once.supporting)
    samples = {**samples, "fars": np.array(kept, dtype=np.float64)}
    thresholds, spreads, chosen = operating(samples)
    at_fars = {far: thresholds[f"TAR@FAR={rate_label(far)}"] for far in kept}
    if chosen is None:
        notes += ("the list has no folds: no threshold can be chosen on other pairs than it is tried on",)
    else:
        notes += (
            f"± of the accuracy: standard error over {len(chosen.accuracies)} folds",
            f"thresholds of the folds: {chosen.thresholds.min():.6g} to {chosen.thresholds.max():.6g}",
        )
    notes += once.few_notes()
    if pca is not None:
        notes += ("AUC, EER and TAR pool the folds' scores, each under the PCA fitted without its fold",)
    resampling = Resampling(pair_scores.unit, draws, seed, keeps_sizes=True)
    sides = scored.sides_of(embeddings, pairs, pair_scores)
    return measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {**pair_scores.choices, **figure_choices(chosen is not None)},
        pair_scores.counts | ({} if chosen is None else {"folds": pairs.fold_count}),
        resampling,
        thresholds=thresholds,
        spreads=spreads,
        curves=curves(Presorted.of(samples["scores"], samples["same"]).curve(), PROTOCOL, failures=FAILED in samples),
        notes=notes + pair_scores.notes,
        by_group=by_group.of_pairs(sides, samples, at_fars, resampling, pair_scores.distinct.first),
        about=pair_scores.about,
    )


def operating(samples: Samples) -> tuple[dict[str, float], dict[str, float], FoldAccuracy | None]:
    """Thresholds and spreads of the figures that have one, and the accuracy of the folds, if there are any.

    Where pairs failed, those of the figures without failures, too.
    """
    thresholds, spreads, chosen = _operating(samples)
    if FAILED in samples:
        more = _operating(scored.without_failures(samples))
        return thresholds | renamed(more[0]), spreads | renamed(more[1]), chosen
    return thresholds, spreads, chosen


def _operating(samples: Samples) -> tuple[dict[str, float], dict[str, float], FoldAccuracy | None]:
    presorted = Presorted.of(samples["scores"], samples["same"], samples.get(FAILED))
    curve = presorted.curve()
    fars = {f"TAR@FAR={rate_label(far)}": far for far in samples["fars"].tolist()}
    thresholds = {name: tar_at_far(curve, far, zero_ok=far == 0).threshold for name, far in fars.items()}
    folds = scored.folds_of(samples)
    if folds is None:
        return {**thresholds, BEST: best_of(presorted)[0]}, {}, None
    chosen = folds.accuracy()
    return thresholds, {"accuracy": chosen.standard_error}, chosen


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the pairs, and the people (or pairs) that are resampled.

    A resample that loses all pairs of one kind has no figures; one in which a fold does, no accuracy. For the accuracy
    each fold keeps its numbers of genuine and impostor pairs (`keeping_sizes`).
    """
    return both_ways(figures_of, samples, scored.without_failures), scored.units_of(samples)


def figures_of(samples: Samples) -> Statistic:
    """The figures of scored pairs by weights of the pairs."""
    presorted = Presorted.of(samples["scores"], samples["same"], samples.get(FAILED))
    folds = scored.folds_of(samples)
    strata = scored.strata_of(samples)
    fars = {f"TAR@FAR={rate_label(far)}": far for far in samples["fars"].tolist()}

    def figures(weights: Floats) -> dict[str, float]:
        if not all(amount.any() for amount in presorted.amounts(weights)):
            return {}
        values = {}
        kept = keeping_sizes(weights, strata)
        if kept is not None:
            name, value = (
                (BEST, best_of(presorted, kept)[1]) if folds is None else ("accuracy", folds.accuracy(kept).mean)
            )
            values[name] = value
        curve = presorted.curve(weights)
        values |= {"AUC": auc(curve), "EER": eer(curve)}
        return values | {name: tar_at_far(curve, far, zero_ok=True).tar for name, far in fars.items()}

    return figures


def curves(curve: ErrorCurve, name: str, *, failures: bool = False) -> tuple[Curve, Curve]:
    """ROC and DET; with failures, which no threshold accepts, without the last point, which would accept all."""
    end = -1 if failures and len(curve.fmr) > 1 else None
    fmr, tar = curve.fmr[:end], curve.tar[:end]
    return Curve("roc", name, fmr, tar), Curve("det", name, fmr, 1 - tar)


def figure_choices(folds: bool) -> dict[str, str]:
    """How the threshold of the accuracy and the EER come about, with folds or without."""
    where = "the other folds" if folds else "the same pairs"
    return {
        "threshold": f"the most accurate of all that distinct scores of {where} tell apart, the middle of its interval",
        "EER": "on the convex hull of the ROC",
    }
