"""Trials by group over all pairs of two sides that are never held: counts in closed form, errors from one pass."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation import scoring
from angulus.evaluation.metrics.intervals import Floats, Rows
from angulus.evaluation.protocols.by_group import Point, Trials, measure_groups, why_not
from angulus.evaluation.protocols.figures import Resampling, rate_label
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.vectors import Vectors


def pair_figures(
    names: Sequence[str],
    vectors: tuple[Vectors, Vectors],
    groups: tuple[tuple[Rows, Rows | None], tuple[Rows, Rows | None]],
    people: tuple[Rows, Rows | None],
    genuine: Iterable[scoring.PairBatch],
    points: Sequence[scoring.ThresholdAtFmr],
    scored: tuple[scoring.ScoringOptions, Resampling],
) -> GroupFigures:
    """FMR and FNMR by group over all pairs; `groups` of impostor pairs and of genuine ones, `people` of both sides."""
    at = [point.threshold for point in points]
    if not at or why_not(names):
        return measure_groups(names, None, None, [], scored[1])
    return measure_groups(
        names,
        impostor_trials(vectors, groups[0], people, at, scored[0]),
        Trials.concatenate([genuine_trials(pairs, groups[1], people[0], at) for pairs in genuine]),
        [Point(f"FAR={rate_label(point.fmr)}", point.fmr, point.threshold) for point in points],
        scored[1],
    )


def impostor_trials(
    vectors: tuple[Vectors, Vectors | None],
    groups: tuple[Rows, Rows | None],
    people: tuple[Rows, Rows | None],
    thresholds: Sequence[float],
    options: scoring.ScoringOptions = scoring.DEFAULT,
) -> Trials:
    """All impostor pairs of probes and gallery, by both groups and the probe's person, and those that are accepted.

    Args:
        vectors: of the probes [P, d] and of the gallery [N, d]; None: pairs within the probes, each once.
        groups: of both sides, numbers, −1 where unknown; within the probes, the same twice. None for a gallery without
            groups: a pair then counts in the probe's.
        people: the identities of both sides, numbers; None for a gallery of other people.
        thresholds: where pairs are accepted.
        options: of the scoring.
    """
    _, gallery = vectors
    of_gallery = groups[1] if groups[1] is not None else np.zeros(len(vectors[1]), dtype=np.int64)  # type: ignore[arg-type]
    size = int(max(groups[0].max(initial=-1), of_gallery.max(initial=-1))) + 2  # one column is of unknown groups
    columns = of_gallery % size
    others = people[0] if gallery is None else people[1]
    _, first, entry, own = np.unique(
        people[0] * size + groups[0] % size, return_index=True, return_inverse=True, return_counts=True
    )
    counts = np.repeat(np.bincount(columns, minlength=size)[None, :].astype(np.float64), len(own), axis=0)
    if others is not None:
        known = int(max(people[0].max(), others.max())) + 1
        mates = np.bincount(others * size + columns, minlength=known * size).reshape(known, size)
        counts -= mates[people[0][first]]
    counts *= own[:, None] / (2 if gallery is None else 1)
    errors = _accepted(vectors, (entry, columns), people, thresholds, counts, options)
    left, person = groups[0][first].repeat(size), people[0][first].repeat(size)
    right = left if groups[1] is None else np.tile(np.append(np.arange(size - 1), -1), len(own))
    return Trials(left, right, person, person, counts.ravel(), errors)


def genuine_trials(
    pairs: scoring.PairBatch, groups: tuple[Rows, Rows | None], person: Rows, thresholds: Sequence[float]
) -> Trials:
    """Genuine pairs, by both groups and the probe's person, and those that are rejected."""
    who = person[pairs.probes]
    wrong = (pairs.scores < np.array(thresholds, dtype=np.float64)[:, None]).astype(np.float64)
    left = groups[0][pairs.probes]
    right = left if groups[1] is None else groups[1][pairs.gallery]
    return Trials(left, right, who, who, np.ones(len(who)), wrong)


def _accepted(
    vectors: tuple[Vectors, Vectors | None],
    places: tuple[Rows, Rows],
    people: tuple[Rows, Rows | None],
    thresholds: Sequence[float],
    counts: Floats,
    options: scoring.ScoringOptions,
) -> Floats:
    """How many pairs of each entry and column each threshold accepts, [T, entries · columns]."""
    size = counts.shape[1]
    finite = [threshold for threshold in thresholds if np.isfinite(threshold)]

    def mine() -> NDArray[np.float64]:
        found = np.zeros((len(thresholds), counts.size))
        if not finite:
            return found
        ids = people[0] if vectors[1] is None else None if people[1] is None else (people[0], people[1])
        for pairs in scoring.above(*vectors, min(finite), ids=ids, options=options):
            place = places[0][pairs.probes] * size + places[1][pairs.gallery]
            for row, threshold in enumerate(thresholds):
                found[row] += np.bincount(place[pairs.scores >= threshold], minlength=counts.size)
        return found

    errors = np.sum(options.ranks.gather_from_all(mine), axis=0)
    for row, threshold in enumerate(thresholds):
        if threshold == -np.inf:
            errors[row] = counts.ravel()
    return np.asarray(errors, dtype=np.float64)
