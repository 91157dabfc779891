"""Accuracy per group and how unequal it is, as in RFW: its standard deviation and the skewed error ratio."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import ErrorCurve, auc, error_curve
from angulus.evaluation.metrics.intervals import Floats, Samples, Statistic, Units, keeping_sizes
from angulus.evaluation.metrics.verification import PresortedFolds, tar_at_far
from angulus.evaluation.protocols import failures, scored
from angulus.evaluation.protocols.by_group import of_pairs
from angulus.evaluation.protocols.figures import Resampling, auc_warning, measure, supported_rates
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.pairs import curves
from angulus.evaluation.protocols.result import Result

PROTOCOL = "rfw"
MEASURED = scored.MEASURED


def evaluate(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    metric: str = "cosine",
    flip: str | None = None,
    missing: str = "refuse",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Accuracy over folds of each group, their mean, their standard deviation, and the skewed error ratio.

    Each group is a list of its own: the threshold of its fold is the most accurate one on its other folds. With e_g the
    error 1 − accuracy of group g, the skewed error ratio is max e_g / min e_g, 1 where all groups have the same error.
    FMR and FNMR by group are at common thresholds, those of FARs over all pairs (`by_group`).

    Args:
        embeddings: of all images of the list; its groups are those of the images where the list has none, and pairs
            across two groups are then left out and counted.
        pairs: the list, with folds.
        metric, flip, missing, draws, seed: as in `pairs.evaluate`.

    Raises:
        checks.InputError: no groups, fewer than two, no folds, or a fold of a group with pairs of one kind only.

    Source: M. Wang et al., "Racial Faces in the Wild", ICCV 2019; M. Wang and W. Deng, "Mitigating Bias in Face
    Recognition using Skewness-Aware Reinforcement Learning", CVPR 2020 (standard deviation, skewed error ratio).
    """
    if pairs.folds is None:
        raise checks.InputError(f"{pairs.source} has no folds, over which the accuracy of a group is taken; add them")
    pair_scores = scored.score(embeddings, pairs, metric=metric, flip=flip, missing=missing)
    sides = scored.sides_of(embeddings, pairs, pair_scores)
    if sides is None:
        raise checks.InputError(f"groups are needed; neither {pairs.source} nor {embeddings.source} has any")
    if (
        failures.FAILED in pair_scores.samples
        and (np.array(sides)[:, pair_scores.samples[failures.FAILED]] == "").any()
    ):
        raise checks.InputError(
            f"images without embedding have no group in {embeddings.source}; give one list per group, or name the "
            "groups of all images with --groups"
        )
    names = np.where(sides[0] == sides[1], sides[0], "")
    inside = names != ""
    samples = {name: values[inside] for name, values in pair_scores.samples.items()} | {"groups": names[inside]}
    groups = _groups(samples)
    failed = samples.get(failures.FAILED, np.zeros(len(samples["same"]), dtype=bool))
    across = int((~inside).sum())
    notes: tuple[str, ...] = (f"{across:,} pairs that belong to no one group are left out",) if across else ()
    accuracies = [group.folds.accuracy() for group in groups]
    if any(accuracy.mean == 1 for accuracy in accuracies):
        notes += ("the skewed error ratio is undefined: a group has no error",)
    resampling = Resampling(pair_scores.unit, draws, seed, keeps_sizes=True)
    spreads = {f"accuracy {g.name}": a.standard_error for g, a in zip(groups, accuracies, strict=True)}
    return measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {
            **pair_scores.choices,
            "threshold": "of each group and fold the most accurate on the group's other folds",
            "standard deviation": "of the groups' accuracies, n − 1",
        },
        {
            "groups": len(groups),
            **{f"pairs of {g.name}": len(g.rows) for g in groups},
            **pair_scores.counts,
            **({"pairs of no one group": across} if across else {}),
        },
        resampling,
        spreads=spreads,
        curves=tuple(
            itertools.chain.from_iterable(
                curves(_curve(samples, g), g.name, failures=bool(failed[g.rows].any())) for g in groups
            )
        ),
        notes=_warnings(groups, samples) + notes + pair_scores.notes,
        by_group=_at_common_thresholds(sides, pair_scores, resampling),
        about=pair_scores.about,
    )


def _at_common_thresholds(
    sides: tuple[NDArray[np.str_], NDArray[np.str_]], pair_scores: scored.ScoredPairs, resampling: Resampling
) -> GroupFigures:
    """FMR and FNMR by group at the thresholds of the FARs over all pairs, also those of two groups."""
    samples = pair_scores.samples
    curve = error_curve(samples["scores"], samples["same"])
    # a pair that failed shows no error
    fars, _ = supported_rates(None, scored.distinct_impostors(scored.without_failures(samples)))
    thresholds = {far: tar_at_far(curve, far).threshold for far in fars}
    return of_pairs(sides, samples, thresholds, resampling, pair_scores.distinct.first)


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the pairs, and the people (or pairs) that are resampled.

    A group of which a fold loses all pairs of one kind has no accuracy in that resample, and what needs all has none.
    Each fold keeps its numbers of genuine and impostor pairs (`keeping_sizes`).
    """
    return failures.both_ways(_figures, samples, scored.without_failures), scored.units_of(samples)


def _figures(samples: Samples) -> Statistic:
    groups = _groups(samples)

    def figures(weights: Floats) -> dict[str, float]:
        kept = {group: keeping_sizes(weights[group.rows], group.strata) for group in groups}
        values = {
            f"accuracy {group.name}": group.folds.accuracy(amount).mean
            for group, amount in kept.items()
            if amount is not None
        }
        if len(values) == len(groups):
            accuracies = np.array(list(values.values()))
            values["mean accuracy"] = float(accuracies.mean())
            values["standard deviation of accuracy"] = float(accuracies.std(ddof=1))
            values["skewed error ratio"] = skewed_error_ratio(1 - accuracies)
        return values

    return figures


def skewed_error_ratio(errors: Floats) -> float:
    """The largest error over the smallest; NaN where a group has none.

    >>> skewed_error_ratio(np.array([0.25, 0.5, 0.75]))
    3.0
    """
    return float(errors.max() / errors.min()) if errors.min() > 0 else math.nan


@dataclass(frozen=True, eq=False)
class _Group:
    """Pairs of one group: their places in the samples, their folds, sorted, and fold and kind of each."""

    name: str
    rows: NDArray[np.int64]
    folds: PresortedFolds
    strata: NDArray[np.int64]


def _groups(samples: Samples) -> list[_Group]:
    groups = []
    for name in np.unique(samples["groups"]).tolist():
        rows = np.flatnonzero(samples["groups"] == name)
        wanted = ("scores", "same", "folds", failures.FAILED)
        columns = {column: samples[column][rows] for column in wanted if column in samples}
        try:
            folds = PresortedFolds.of(*columns.values())
            folds.accuracy()
        except checks.InputError as error:
            raise checks.InputError(f"group {name}: {error}") from error
        groups.append(_Group(name, rows, folds, scored.strata_of(columns)))
    if len(groups) < 2:
        raise checks.InputError(f"groups must be at least two, to be compared; got {[group.name for group in groups]}")
    return groups


def _curve(samples: Samples, group: _Group) -> ErrorCurve:
    return error_curve(samples["scores"][group.rows], samples["same"][group.rows])


def _warnings(groups: list[_Group], samples: Samples) -> tuple[str, ...]:
    """Warnings about groups whose people the model hardly tells apart."""
    warnings = (auc_warning(auc(_curve(samples, g)), people=f"the people of group {g.name}") for g in groups)
    return tuple(filter(None, warnings))
