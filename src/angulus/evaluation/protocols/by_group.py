"""Error rates by group at common thresholds: of each group, of pairs of groups, and how unequal they are.

Every protocol that knows groups hands its trials to `measure_groups`, as counts by groups and people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics import differentials
from angulus.evaluation.metrics.intervals import Flags, Floats, Interval, Rows, Samples, Units, bootstrap_columns
from angulus.evaluation.metrics.verification import least_count
from angulus.evaluation.protocols.figures import RULE_OF_30, Resampling, rate_label, with_interval
from angulus.evaluation.protocols.group_rates import RATES, ByGroup, Cell, GroupFigures, GroupRate, Kind
from angulus.evaluation.protocols.result import Number
from angulus.evaluation.protocols.scored import units_of

MOST_GROUPS = 30  # 465 cells; a column of more is likely of something else, such as people
TRIALS = {"verification": ("impostor", "genuine"), "identification": ("non-mated", "mated")}


@dataclass(frozen=True)
class Point:
    """An operating point at which the groups are compared."""

    at: str  # such as "FAR=1e-3"
    rate: float  # the false match rate asked for, which a group must be large enough to show; 0 asks for none
    threshold: float | None  # None where it is not the same in all trials of the protocol


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


def why_not(names: Sequence[str]) -> str:
    """Why groups of these names cannot be compared, or nothing."""
    if len(names) < 2:
        return f"at least two groups are needed; got {', '.join(names) or 'none'}"
    if len(names) > MOST_GROUPS:
        return f"at most {MOST_GROUPS} groups are compared; got {len(names):,}, such as {', '.join(names[:3])}"
    return ""


def of_pairs(
    sides: tuple[NDArray[np.str_], NDArray[np.str_]] | None,
    samples: Samples,
    thresholds: Mapping[float, float],
    resampling: Resampling,
    rows: Rows | None = None,
) -> GroupFigures:
    """FMR and FNMR by group of scored pairs.

    Args:
        sides: the groups of both images of each pair, [P] each; None: unknown, which gives no figures.
        samples: `scores` and `same`, and where known the people of the pairs.
        thresholds: of each FAR.
        resampling: of the protocol.
        rows: pairs to count; None: all.
    """
    if sides is None:
        return GroupFigures()
    units = units_of(samples)
    rows = np.arange(len(samples["same"])) if rows is None else rows
    names, (left, right) = number_groups(sides[0][rows], sides[1][rows])
    same, scores = samples["same"][rows].astype(bool), samples["scores"][rows]
    accepted = scores >= np.array(list(thresholds.values()), dtype=np.float64)[:, None]

    def trials(kind: Flags, wrong: NDArray[np.bool_]) -> Trials:
        people = units.first[rows][kind], units.second[rows][kind]
        return Trials(left[kind], right[kind], *people, np.ones(int(kind.sum())), wrong[:, kind].astype(np.float64))

    points = [Point(f"FAR={rate_label(far)}", far, threshold) for far, threshold in thresholds.items()]
    return measure_groups(names, trials(~same, accepted), trials(same, ~accepted), points, resampling)


def measure_groups(
    names: Sequence[str],
    matches: Trials | None,
    misses: Trials | None,
    points: Sequence[Point],
    resampling: Resampling,
    kind: Kind = "verification",
) -> GroupFigures:
    """Rates of each group and pair of groups at each point, with intervals over people, and how unequal they are.

    A rate is errors / trials of the cell. A cell with fewer impostor trials than the point's rate needs has no FMR,
    and the group is left out of the differentials. Thresholds stay fixed in the resamples.

    Args:
        names: of the groups.
        matches: trials that should be rejected; None if the protocol has none.
        misses: trials that should be accepted; None if the protocol has none.
        points: where the errors were counted.
        resampling: of the protocol.
        kind: what the rates are.

    Source: ISO/IEC 19795-10:2024.
    """
    reason = why_not(names) or ("" if points else "no FAR is reported, at whose threshold they would be taken")
    if reason:
        return GroupFigures(notes=(f"no error rates by group: {reason}",))
    table = _Table.of(names, matches, misses, [point.rate for point in points])
    once = table.figures(np.ones(len(table.units.first)))
    intervals: list[list[Interval]] = [[] for _ in points]
    if resampling.draws:  # none come of a single person
        flat = bootstrap_columns(
            lambda weights: table.figures(weights).ravel(), table.units, draws=resampling.draws, seed=resampling.seed
        )
        width = once.shape[1]
        intervals = [flat[place * width : (place + 1) * width] for place in range(len(points))]
    asked = bool(resampling.draws)
    found = tuple(
        _point(table, place, point, once[place], intervals[place] if asked else None, kind)
        for place, point in enumerate(points)
    )
    return GroupFigures(found, _notes(table, found, points, kind))


@dataclass(frozen=True, eq=False)
class _Side:
    """Trials of one kind by cell: the cell, count and errors of each entry, and whether each cell has a rate."""

    cell: Rows  # [N]
    count: Floats  # [N]
    errors: list[tuple[Rows, Floats]]  # of each point, the entries with errors, and how many
    trials: Floats  # [K]
    wrong: Floats  # [P, K]
    defined: Flags  # [P, K]
    unknown: int  # trials with a side of unknown group


@dataclass(frozen=True, eq=False)
class _Table:
    """Both kinds of trials, over one numbering of cells and of people."""

    names: Sequence[str]
    cells: list[tuple[int, int]]  # the groups of each cell: first (g, g) of each group, then those of two
    sides: tuple[_Side | None, _Side | None]
    units: Units  # of the entries of both sides, in their order

    @staticmethod
    def of(names: Sequence[str], matches: Trials | None, misses: Trials | None, rates: Sequence[float]) -> _Table:
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
        return _Table(names, cells, (false_match, None if misses is None else next(sides)), units)

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
        unequal = [list(_unequal(m[:groups], n[:groups]).values()) for m, n in zip(*rates, strict=True)]
        return np.concatenate([*rates, np.array(unequal)], axis=1)


def _merged(
    trials: Trials, known: Flags, number: Rows, first: Rows, second: Rows, cells: int
) -> tuple[_Side, Rows, Rows]:
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
    side = _Side(
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


def _with_support(side: _Side, rates: Sequence[float]) -> _Side:
    """The side, whose cells have no rate where they have fewer trials than the point's rate needs."""
    least = np.array([least_count(rate) if rate > 0 else 1 for rate in rates])
    return replace(side, defined=side.trials[None, :] >= least[:, None])


def _rates(side: _Side, weights: Floats, cells: int) -> Floats:
    """[P, K], NaN where a cell has no rate."""
    totals = _sums(side.cell, weights * side.count, cells)
    wrong = [_sums(side.cell[rows], weights[rows] * errors, cells) for rows, errors in side.errors]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(side.defined & (totals > 0), np.array(wrong) / totals, np.nan)


def _unequal(matches: Floats, misses: Floats) -> dict[str, float]:
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


def _point(
    table: _Table, place: int, point: Point, values: Floats, intervals: list[Interval] | None, kind: Kind
) -> ByGroup:
    size = len(table.cells)
    found: list[list[GroupRate | None]] = []
    for number, side in enumerate(table.sides):
        column = slice(number * size, (number + 1) * size)
        own = None if intervals is None else intervals[column]
        found.append([None] * size if side is None else _cell_rates(side, place, point, values[column], own))
    cells = tuple(
        Cell(tuple(table.names[group] for group in dict.fromkeys(groups)), match, miss)
        for groups, match, miss in zip(table.cells, *found, strict=True)
    )
    rates = values[: len(table.names)], values[size : size + len(table.names)]
    own = None if intervals is None else intervals[2 * size :]
    return ByGroup(point.at, kind, point.threshold, cells, tuple(_differentials(table, rates, own, kind)))


def _differentials(
    table: _Table, rates: tuple[Floats, Floats], intervals: list[Interval] | None, kind: Kind
) -> Iterator[Number]:
    """What compares the groups, of the rates that the protocol has."""
    for index, (name, value) in enumerate(_unequal(*rates).items()):
        which, _, what = name.partition(" ")
        number = Number(name, value)
        if what:
            place = 0 if which == "false_match" else 1
            if table.sides[place] is None:
                continue
            number = Number(f"{list(RATES[kind].values())[place]} {what}", value)
        elif None in table.sides:
            continue
        if math.isnan(value):
            zero = what.startswith("max") and (~np.isnan(rates[place])).sum() > 1
            why = "all rates are zero" if zero else "fewer than two groups have the rates"
            # one NaN object, so that a result equals the one read again
            yield replace(number, value=math.nan, no_interval=f"undefined: {why}")
        elif math.isinf(value):
            yield replace(number, no_interval="infinite: a group has no error")
        elif intervals is None:
            yield number
        else:
            yield with_interval(number, {number.name: intervals[index]} if intervals else {})


def _cell_rates(
    side: _Side, place: int, point: Point, values: Floats, intervals: list[Interval] | None
) -> list[GroupRate | None]:
    rates: list[GroupRate | None] = []
    for cell, value in enumerate(values.tolist()):
        trials, errors = round(side.trials[cell]), round(side.wrong[place, cell])
        if not side.defined[place, cell]:
            needs = f"{trials:,} trials; a rate of {rate_label(point.rate)} needs"
            note = f"undefined: {needs} {least_count(point.rate):,}" if trials else "undefined: no trials"
            rates.append(GroupRate(trials, errors, math.nan, None, note))
            continue
        number = Number("", value)
        if intervals is not None:
            number = with_interval(number, {"": intervals[cell]} if intervals else {})
        note = number.no_interval
        if not errors:
            note = f"no error among {trials:,}: the rate may be as high as {min(1.0, 3 / trials):.2g} (rule of 3)"
        elif trials < RULE_OF_30:
            note = "; ".join(filter(None, (note, f"rough: fewer than {RULE_OF_30} trials")))
        rates.append(GroupRate(trials, errors, value, number.interval, note))
    return rates


def _notes(table: _Table, found: Sequence[ByGroup], points: Sequence[Point], kind: Kind) -> tuple[str, ...]:
    """Groups that are too small, and trials that belong to no known group."""
    notes = []
    for number, (side, word) in enumerate(zip(table.sides, TRIALS[kind], strict=True)):
        if side is None:
            continue
        name = list(RATES[kind].values())[number]
        for group, called in enumerate(table.names):
            at = [point.at for place, point in enumerate(points) if not side.defined[place, group]]
            if at:
                count = round(side.trials[group])
                notes.append(
                    f"group {called} is too small for the {name} at {', '.join(at)}: {count:,} {word} "
                    f"{'trial' if count == 1 else 'trials'}; it is left out of what compares the groups there"
                    + f"; add {word} trials within the group" * (not count)
                )
        if side.unknown:
            notes.append(f"{side.unknown:,} {word} trials with an image of unknown group are in no rate by group")
    return tuple(notes)
