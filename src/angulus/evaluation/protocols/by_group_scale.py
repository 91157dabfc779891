"""Trials by group over all pairs of two sides that are never held: counts in closed form, errors from one pass."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation import scoring
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows
from angulus.evaluation.protocols.by_group import Point, measure_groups, why_not
from angulus.evaluation.protocols.failures import failed_pairs
from angulus.evaluation.protocols.figures import Resampling, rate_label
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import Trials
from angulus.evaluation.protocols.vectors import Vectors


def pair_figures(
    names: Sequence[str],
    vectors: tuple[Vectors, Vectors],
    groups: tuple[tuple[Rows, Rows | None], tuple[Rows, Rows | None]],
    people: tuple[Rows, Rows | None],
    genuine: Iterable[scoring.PairBatch],
    points: Sequence[scoring.ThresholdAtFmr],
    scored: tuple[scoring.ScoringOptions, Resampling],
    complete: Callable[[Trials, Trials], tuple[Trials, Trials]] | None = None,
) -> GroupFigures:
    """FMR and FNMR by group over all pairs; `groups` of impostor pairs and of genuine ones, `people` of both sides.

    `complete` adds the pairs that failed, such as `with_failed`.
    """
    at = [point.threshold for point in points]
    if not at or why_not(names):
        return measure_groups(names, None, None, [], scored[1])
    trials = (
        impostor_trials(vectors, groups[0], people, at, scored[0]),
        Trials.concatenate([genuine_trials(pairs, groups[1], people[0], at) for pairs in genuine]),
    )
    return measure_groups(
        names,
        *(trials if complete is None else complete(*trials)),
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
    gallery = vectors[1]
    trials, places = _impostor_counts(groups, people, None if gallery is None else len(gallery), len(thresholds))
    counts = trials.count.reshape(int(places[0].max()) + 1, -1)
    return replace(trials, errors=_accepted(vectors, places, people, thresholds, counts, options))


def _impostor_counts(
    groups: tuple[Rows, Rows | None], people: tuple[Rows, Rows | None], held: int | None, points: int
) -> tuple[Trials, tuple[Rows, Rows]]:
    """The pairs of `impostor_trials`, of which none is accepted; each probe's entry and each gallery image's column.

    `held` is the number of gallery images; None: pairs within the probes.
    """
    of_gallery = groups[1] if groups[1] is not None else np.zeros(held or 0, dtype=np.int64)
    size = int(max(groups[0].max(initial=-1), of_gallery.max(initial=-1))) + 2  # one column is of unknown groups
    columns = of_gallery % size
    others = people[0] if held is None else people[1]
    _, first, entry, own = np.unique(
        people[0] * size + groups[0] % size, return_index=True, return_inverse=True, return_counts=True
    )
    counts = np.repeat(np.bincount(columns, minlength=size)[None, :].astype(np.float64), len(own), axis=0)
    if others is not None:
        known = int(max(people[0].max(), others.max())) + 1
        mates = np.bincount(others * size + columns, minlength=known * size).reshape(known, size)
        counts -= mates[people[0][first]]
    counts *= own[:, None] / (2 if held is None else 1)
    left, person = groups[0][first].repeat(size), people[0][first].repeat(size)
    right = left if groups[1] is None else np.tile(np.append(np.arange(size - 1), -1), len(own))
    trials = Trials(left, right, person, person, counts.ravel(), np.zeros((points, counts.size)))
    return trials, (entry, columns)


def with_failed(
    matches: Trials,
    misses: Trials,
    groups: tuple[Rows, Rows | None],
    people: tuple[Rows, Rows | None],
    failed: Flags,
    held: int | None = None,
) -> tuple[Trials, Trials]:
    """Impostor and genuine trials of images with embeddings as those of all images: pairs that failed are rejected.

    Args:
        matches, misses: impostor and genuine trials of the images with embeddings.
        groups, people: of all images, as in `impostor_trials`.
        failed: which probes have no embedding; genuine pairs are within the probes.
        held: the number of gallery images; None: pairs within the probes.
    """
    counted, _ = _impostor_counts(groups, people, held, len(matches.errors))
    left, right = failed_pairs(people[0], failed)
    ones, wrong = np.ones(len(left)), np.ones((len(misses.errors), len(left)))
    lost = Trials(groups[0][left], groups[0][right], people[0][left], people[0][left], ones, wrong)
    accepted = replace(matches, count=np.zeros(len(matches.count)))
    return Trials.concatenate([counted, accepted]), Trials.concatenate([misses, lost])


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
