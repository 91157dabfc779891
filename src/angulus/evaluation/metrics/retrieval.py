"""Retrieval figures of each query from the ranks of its matches: Recall@k, R-precision, MAP@R, mAP, mAP@k, mINP.

All orders of items that score the same are equally likely: a figure is its expected value over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows

AP_RULES = ("rank", "trapezoid")


@dataclass(frozen=True, eq=False)
class MatchRanks:
    """The matches of Q queries, query by query, each query's from the nearest to the farthest.

    Attributes:
        begins: [Q + 1], where the matches of each query begin; every query has one or more.
        ahead: [M], how many non-matches score higher with the query than each match.
        tied: [M], how many non-matches score the same.

    >>> ranks = MatchRanks(np.array([0, 2]), np.array([0, 2]), np.array([0, 0]))  # of ranks 1 and 4
    >>> float(average_precision(ranks)[0]), float(recall(ranks, 1)[0]), float(inverse_negative_penalty(ranks)[0])
    (0.75, 1.0, 0.5)
    """

    begins: Rows
    ahead: Rows
    tied: Rows

    def __post_init__(self) -> None:
        if not len(self.ahead) or len(self.ahead) != len(self.tied) or self.begins[-1] != len(self.ahead):
            raise InputError(f"ahead and tied must be one number per match; got {len(self.ahead)} and {len(self.tied)}")
        if (np.diff(self.begins) < 1).any():
            raise InputError(f"every query must have a match; query {int(np.argmin(np.diff(self.begins)))} has none")

    @staticmethod
    def of(queries: ArrayLike, scores: ArrayLike, ahead: ArrayLike, tied: ArrayLike) -> tuple[Rows, MatchRanks]:
        """The queries that have matches, in order, and their ranks, from the query, score and counts of each match."""
        rows, above, same = (np.asarray(part, dtype=np.int64) for part in (queries, ahead, tied))
        order = np.lexsort((-np.asarray(scores, dtype=np.float64), rows))
        found, begins = np.unique(rows[order], return_index=True)
        return found, MatchRanks(np.append(begins, len(rows)), above[order], same[order])

    @staticmethod
    def from_scores(scores: ArrayLike, matches: ArrayLike, ignored: ArrayLike | None = None) -> tuple[Rows, MatchRanks]:
        """The queries that have matches, and their ranks, from all scores [Q, N] and flags [Q, N].

        >>> queries, ranks = MatchRanks.from_scores([[0.9, 0.5, 0.7], [0.2, 0.1, 0.0]], [[1, 1, 0], [0, 0, 0]])
        >>> queries.tolist(), ranks.ahead.tolist()
        ([0], [0, 1])
        """
        values = np.asarray(scores, dtype=np.float64)
        hits = np.asarray(matches, dtype=bool)
        used = np.ones(values.shape, dtype=bool) if ignored is None else ~np.asarray(ignored, dtype=bool)
        rows, columns = (hits & used).nonzero()
        own, others = values[rows, columns][:, None], (used & ~hits)[rows]
        ahead, tied = ((compare & others).sum(axis=1) for compare in (values[rows] > own, values[rows] == own))
        return MatchRanks.of(rows, own[:, 0], ahead, tied)

    def __len__(self) -> int:
        return len(self.begins) - 1

    @property
    def counts(self) -> Rows:
        """R, the matches of each query, [Q]."""
        return np.diff(self.begins)

    @property
    def has_ties(self) -> Flags:
        """Which queries have a match that scores the same as a non-match, [Q]."""
        return np.asarray(np.maximum.reduceat(self.tied, self.begins[:-1]) > 0)

    def bound(self, *, optimistic: bool) -> MatchRanks:
        """The ranks if, of equal scores, matches (optimistic) or non-matches always come first."""
        return MatchRanks(self.begins, self.ahead + (0 if optimistic else self.tied), np.zeros_like(self.tied))

    @cached_property
    def groups(self) -> _Groups:
        return _Groups.of(self)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Runs of items that score the same; a match without ties is a run of its own. [G] each."""

    query: Rows
    before: Rows  # matches ahead of the run
    behind: Rows  # items ahead of the run
    matches: Rows  # in the run
    size: Rows  # matches and non-matches in the run
    begins: Rows  # [Q]: the first run of each query

    @staticmethod
    def of(ranks: MatchRanks) -> _Groups:
        query = np.repeat(np.arange(len(ranks)), ranks.counts)
        same = (query[1:] == query[:-1]) & (ranks.ahead[1:] == ranks.ahead[:-1]) & (ranks.tied[1:] > 0)
        first = np.flatnonzero(np.append(True, ~(same & (ranks.tied[1:] == ranks.tied[:-1]))))
        matches = np.diff(np.append(first, len(query)))
        before = first - ranks.begins[query[first]]
        behind = before + ranks.ahead[first]
        begins = np.searchsorted(query[first], np.arange(len(ranks)))
        return _Groups(query[first], before, behind, matches, matches + ranks.tied[first], begins)

    def sum(self, values: Floats) -> Floats:
        """The sum of a value per run over the runs of each query, [Q]."""
        return np.asarray(np.add.reduceat(values, self.begins))

    def within(self, limit: ArrayLike) -> Rows:
        """How many items of each run have a rank within the limit of their query."""
        limits = np.asarray(limit)
        return np.clip((limits if limits.ndim == 0 else limits[self.query]) - self.behind, 0, self.size)


def recall(ranks: MatchRanks, k: int) -> Floats:
    """Recall@k, the CMC at rank k: 1 if a match is among the k nearest, else 0, [Q].

    With ties, the probability that one is: 1 − C(n, t) / C(n + m, t), where t places within rank k are left for the m
    matches and n non-matches that tie first.
    """
    checks.integer("k", k, low=1)
    groups, first = ranks.groups, ranks.groups.begins
    taken, size = groups.within(k)[first], groups.size[first]
    matches = groups.matches[first]
    others = size - matches
    missed = np.where(taken > others, 0.0, 1.0)
    # of the two products that give the ratio, the shorter one
    steps = np.where(missed > 0, np.minimum(taken, matches), 0)
    left = np.where(taken <= matches, others, size - taken)
    for step in range(int(steps.max(initial=0))):
        active = steps > step
        missed[active] *= (left[active] - step) / (size[active] - step)
    return np.asarray(1 - missed)


def r_precision(ranks: MatchRanks) -> Floats:
    """Matches among the R nearest over R, R the query's number of matches, [Q]."""
    groups = ranks.groups
    return groups.sum(groups.within(ranks.counts) * groups.matches / groups.size) / ranks.counts


def average_precision(ranks: MatchRanks, k: int | None = None, *, rule: str = "rank") -> Floats:
    """AP = Σ_i P(i) match(i) / R over all ranks; AP@k = Σ_{i≤k} P(i) match(i) / min(R, k), [Q].

    P(i) is the share of matches among the i nearest. The rule "trapezoid" takes the mean of P(i − 1) and P(i) for P(i),
    with P(0) = 1, as Oxford Buildings' and Market-1501's first scripts do.

    Source: J. Philbin et al., CVPR 2007; T. Weyand et al., "Google Landmarks Dataset v2", CVPR 2020 (mAP@100).
    """
    checks.choice("rule", rule, AP_RULES)
    if k is not None:
        checks.integer("k", k, low=1)
    counts = ranks.counts
    limit = np.array(np.iinfo(np.int64).max // 2 if k is None else k)
    return _precision_sum(ranks, limit, rule) / (counts if k is None else np.minimum(counts, k))


def map_at_r(ranks: MatchRanks) -> Floats:
    """MAP@R = (1/R) Σ_{i≤R} P(i) match(i), [Q].

    Source: K. Musgrave, S. Belongie, S.-N. Lim, "A Metric Learning Reality Check", ECCV 2020, Sec. 3.
    """
    return _precision_sum(ranks, ranks.counts, "rank") / ranks.counts


def inverse_negative_penalty(ranks: MatchRanks) -> Floats:
    """INP = R / rank of the last match, whose mean is mINP, [Q].

    Source: M. Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021, Sec. 4.1.
    """
    groups = ranks.groups
    last = np.append(groups.begins[1:], len(groups.query)) - 1
    behind, matches, size = groups.behind[last], groups.matches[last], groups.size[last]
    result = ranks.counts / (behind + size)
    tied = np.flatnonzero(size > matches)
    cases, which = np.unique(np.stack([behind, matches, size], axis=1)[tied], axis=0, return_inverse=True)
    expected = [_expected_inverse(*case) for case in cases.tolist()]
    result[tied] = ranks.counts[tied] * np.array(expected)[which.reshape(-1)] if len(tied) else 0
    return np.asarray(result)


def _expected_inverse(behind: int, matches: int, size: int) -> float:
    """The expected 1 / rank of the last of `matches` among `size` in random order, after `behind` others.

    It is at place i with probability p(size) = matches / size, p(i − 1) = p(i) (i − matches) / (i − 1).
    """
    places = np.arange(size, matches, -1)
    chances = matches / size * np.append(1.0, np.cumprod((places - matches) / np.maximum(places - 1, 1)))
    return float((chances / (behind + np.append(places, matches))).sum())


def _precision_sum(ranks: MatchRanks, limit: NDArray[np.int64], rule: str) -> Floats:
    """Expected Σ P(i) match(i) over the ranks within the limit, [Q].

    In a run of m matches and n non-matches, place i holds a match with probability m / (m + n), and then
    B + 1 + c (i − 1) matches are expected up to it, with B before the run and c = (m − 1) / (m + n − 1). So, with b
    items before the run, t places within the limit, and H the harmonic numbers:

        Σ_{i≤t} (B + 1 + c (i − 1)) / (b + i) = (B + 1 − c (b + 1)) (H(b + t) − H(b)) + c t
    """
    groups = ranks.groups
    taken = groups.within(limit).astype(np.float64)
    before, behind = groups.before.astype(np.float64), groups.behind.astype(np.float64)
    alike = (groups.matches - 1) / np.maximum(groups.size - 1, 1)
    sums = (before + 1 - alike * (behind + 1)) * _harmonic(behind, taken) + alike * taken
    if rule == "trapezoid":
        top = ((behind == 0) & (taken > 0)).astype(np.float64)
        earlier = np.where(behind > 0, (before - alike * behind) * _harmonic(np.maximum(behind - 1, 0), taken), 0)
        sums = (sums + top + alike * (taken - top) + earlier) / 2
    return groups.sum(groups.matches / groups.size * sums)


def _harmonic(start: Floats, count: Floats) -> Floats:
    """1 / (start + 1) + ... + 1 / (start + count)."""
    result = np.where(count > 0, 1 / (start + 1), 0)
    several = count > 1
    if several.any():
        from scipy import special  # slow to import, and only ties need it

        low = start[several]
        result[several] = special.digamma(low + count[several] + 1) - special.digamma(low + 1)
    return np.asarray(result)
