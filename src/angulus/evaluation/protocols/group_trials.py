"""Trials counted by the groups of both sides and by people, and their rates by weights of the people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics import differentials
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Units
from angulus.evaluation.metrics.verification import least_count


@dataclass(frozen=True, eq=False)
class Trials:
    """Comparisons (or searches) of one kind, counted by the groups of both sides and by people."""

    left: Rows  # [N], the group's number on either side, −1 where unknown; the same twice for a search
    right: Rows
    first: NDArray[Any]  # [N], who is resampled, on either side; the same twice if one person is
    second: NDArray[Any]
    count: Floats  # [N], how many trials
    errors: Floats  # [P, N], how many of them go wrong at each point

    @staticmethod
    def concatenate(parts: Sequence[Trials]) -> Trials:
        """The trials of all parts."""
        names = ("left", "right", "first", "second", "count")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Trials(**columns, errors=np.concatenate([part.errors for part in parts], axis=1))


def searches(group: Rows, person: NDArray[Any], wrong: NDArray[np.bool_]) -> Trials:
    """Searches, one trial each: the group [N] and person [N] of the probe, and whether it goes wrong at each point."""
    return Trials(group, group, person, person, np.ones(len(group)), wrong.astype(np.float64))


def number_groups(*sides: NDArray[np.str_]) -> tuple[tuple[str, ...], list[Rows]]:
    """The names of the groups, sorted, and each side as numbers of them; "" is no group, −1.

    >>> names, (left, right) = number_groups(np.array(["b", ""]), np.array(["a", "b"]))
    >>> names, left.tolist(), right.tolist()
    (('a', 'b'), [1, -1], [0, 1])
    """
    names, numbers = np.unique(np.concatenate(sides), return_inverse=True)
    unknown = int(len(names) > 0 and names[0] == "")
    ends = np.cumsum([len(side) for side in sides])[:-1]
    return tuple(map(str, names[unknown:].tolist())), np.split(numbers.astype(np.int64) - unknown, ends)


def shared_group(groups: NDArray[np.str_]) -> str:
    """The group that all images of a video, a template or a person have; "" if they differ.

    >>> shared_group(np.array(["a", "a"])), shared_group(np.array(["a", "b"]))
    ('a', '')
    """
    return str(groups[0]) if bool((groups == groups[0]).all()) else ""


@dataclass(frozen=True, eq=False)
class Side:
    """Trials of one kind by cell: the cell, count and errors of each entry, and whether each cell has a rate."""

    cell: Rows  # [N]
    count: Floats  # [N]
    errors: list[tuple[Rows, Floats]]  # of each point, the entries with errors, and how many
    trials: Floats  # [K]
    wrong: Floats  # [P, K]
    defined: Flags  # [P, K]
    unknown: int  # trials with a side of unknown group


@dataclass(frozen=True, eq=False)
class Table:
    """Both kinds of trials, over one numbering of cells and of people."""

    names: Sequence[str]
    cells: list[tuple[int, int]]  # the groups of each cell: first (g, g) of each group, then those of two
    sides: tuple[Side | None, Side | None]
    units: Units  # of the entries of both sides, in their order

    @staticmethod
    def of(names: Sequence[str], matches: Trials | None, misses: Trials | None, rates: Sequence[float]) -> Table:
        given = [trials for trials in (matches, misses) if trials is not None]
        size = len(names)
        there = [(trials.count > 0) | trials.errors.any(axis=0) for trials in given]
        known = [(t.left >= 0) & (t.right >= 0) & some for t, some in zip(given, there, strict=True)]
        between = [
            np.unique(np.stack([np.minimum(t.left[k], t.right[k]), np.maximum(t.left[k], t.right[k])]), axis=1)
            for t, k in zip(given, known, strict=True)
        ]
        two = sorted({(int(a), int(b)) for a, b in np.concatenate(between, axis=1).T if a != b})
        cells = [(group, group) for group in range(size)] + two
        number = np.full((size, size), -1)
        for place, (a, b) in enumerate(cells):
            number[a, b] = number[b, a] = place
        people = Units.of(
            np.concatenate([t.first[k] for t, k in zip(given, known, strict=True)]),
            np.concatenate([t.second[k] for t, k in zip(given, known, strict=True)]),
        )
        ends = np.cumsum([int(k.sum()) for k in known])[:-1]
        both = zip(given, known, np.split(people.first, ends), np.split(people.second, ends), strict=True)
        made = [_merged(t, k, number, first, second, len(cells)) for t, k, first, second in both]
        units = Units(people.count, *(np.concatenate([part[place] for _, *part in made]) for place in range(2)))
        sides = iter([side for side, *_ in made])
        false_match = None if matches is None else _with_support(next(sides), rates)
        return Table(names, cells, (false_match, None if misses is None else next(sides)), units)

    def figures(self, weights: Floats) -> Floats:
        """At each point: the rates of the cells, false matches first, and the differentials; [P, 2 K + D]."""
        rates, start = [], 0
        for side in self.sides:
            if side is None:
                continue
            rates.append(_rates(side, weights[start : start + len(side.cell)], len(self.cells)))
            start += len(side.cell)
        if self.sides[0] is None or self.sides[1] is None:
            rates.insert(0 if self.sides[0] is None else 1, np.full_like(rates[0], np.nan))
        groups = len(self.names)
        unequal = [list(compare_rates(m[:groups], n[:groups]).values()) for m, n in zip(*rates, strict=True)]
        return np.concatenate([*rates, np.array(unequal)], axis=1)


def _merged(
    trials: Trials, known: Flags, number: Rows, first: Rows, second: Rows, cells: int
) -> tuple[Side, Rows, Rows]:
    """Entries of one cell and the same people as one, and their people."""
    cell = number[trials.left[known], trials.right[known]]
    people = int(max(first.max(initial=0), second.max(initial=0))) + 1
    key = (cell * people + np.minimum(first, second)) * people + np.maximum(first, second)
    _, place, entry = np.unique(key, return_index=True, return_inverse=True)
    size = len(place)
    count = _sums(entry, trials.count[known], size)
    wrong = [_sums(entry, errors[known], size) for errors in trials.errors]
    cell = cell[place]
    counted = _sums(cell, count, cells)
    side = Side(
        cell,
        count,
        [(np.flatnonzero(errors), errors[errors > 0]) for errors in wrong],
        counted,
        np.array([_sums(cell, errors, cells) for errors in wrong]),
        np.repeat([counted > 0], len(wrong), axis=0),
        round(float(trials.count[~known].sum())),
    )
    return side, first[place], second[place]


def _sums(places: Rows, values: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(places, values, size), dtype=np.float64)


def _with_support(side: Side, rates: Sequence[float]) -> Side:
    """The side, whose cells have no rate where they have fewer trials than the point's rate needs."""
    least = np.array([least_count(rate) if rate > 0 else 1 for rate in rates])
    return replace(side, defined=side.trials[None, :] >= least[:, None])


def _rates(side: Side, weights: Floats, cells: int) -> Floats:
    """[P, K], NaN where a cell has no rate."""
    totals = _sums(side.cell, weights * side.count, cells)
    wrong = [_sums(side.cell[rows], weights[rows] * errors, cells) for rows, errors in side.errors]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(side.defined & (totals > 0), np.array(wrong) / totals, np.nan)


def compare_rates(matches: Floats, misses: Floats) -> dict[str, float]:
    """The differentials of the groups that have the rates: max/min, max/geometric mean, Gini of each; FDR, GARBE."""
    values = {}
    for name, rates in (("false_match", matches), ("false_non_match", misses)):
        known = rates[~np.isnan(rates)]
        for what, figure in _FIGURES.items():
            values[f"{name} {what}"] = figure(known) if len(known) > 1 else math.nan
    both = ~np.isnan(matches) & ~np.isnan(misses)
    for what, joint in (("FDR", differentials.fdr), ("GARBE", differentials.garbe)):
        values[what] = joint(matches[both], misses[both]) if both.sum() > 1 else math.nan
    return values


_FIGURES = {
    "max/min": differentials.max_over_min,
    "max/geometric mean": differentials.max_over_geometric_mean,
    "Gini": differentials.gini,
}
