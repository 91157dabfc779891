"""Error rates by group at common thresholds: of each group, of pairs of groups, and how unequal they are.

Every protocol that knows groups hands its trials to `measure_groups`, as counts by groups and people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics.intervals import Flags, Floats, Interval, Rows, Samples, bootstrap_columns
from angulus.evaluation.metrics.verification import least_count
from angulus.evaluation.protocols.figures import RULE_OF_30, Resampling, rate_label, with_interval
from angulus.evaluation.protocols.group_rates import RATES, ByGroup, Cell, GroupFigures, GroupRate, Kind
from angulus.evaluation.protocols.group_trials import Side, Table, Trials, compare_rates, number_groups
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
    table = Table.of(names, matches, misses, [point.rate for point in points])
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


def _point(
    table: Table, place: int, point: Point, values: Floats, intervals: list[Interval] | None, kind: Kind
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
    table: Table, rates: tuple[Floats, Floats], intervals: list[Interval] | None, kind: Kind
) -> Iterator[Number]:
    """What compares the groups, of the rates that the protocol has."""
    for index, (name, value) in enumerate(compare_rates(*rates).items()):
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
    side: Side, place: int, point: Point, values: Floats, intervals: list[Interval] | None
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


def _notes(table: Table, found: Sequence[ByGroup], points: Sequence[Point], kind: Kind) -> tuple[str, ...]:
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
                    + f"; add {word} trials within the group"
                    * (not count)
                )
        if side.unknown:
            notes.append(f"{side.unknown:,} {word} trials with an image of unknown group are in no rate by group")
    return tuple(notes)
