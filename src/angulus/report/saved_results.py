"""Tables and charts of saved results: those of one protocol share a table and their curves share a chart."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from angulus.core.wording import counted
from angulus.evaluation.protocols import groups, scored
from angulus.evaluation.protocols.group_rates import conclusions, difference_rows, rate_rows, titles, undefined
from angulus.evaluation.protocols.result import KINDS, Curve, Number, Result, shown, span
from angulus.report import charts
from angulus.report.chart import Chart
from angulus.report.error_curves import CURVES, NO_BANDS, NO_RUNS, Band, CurvePoint, Runs, error_curves
from angulus.report.page import Table
from angulus.report.tables import NONE
from angulus.report.terms import explain_figures

Results = Mapping[str, Result]  # by their names in the report

FEATURES = {  # by the flip rule at the end of a model's name
    "none": "of each image alone, without its mirror image",
    "sum": "of each image plus those of its mirror image",
    "concat": "of each image, followed by those of its mirror image",
}
LIST_COLUMNS = (*scored.COLUMNS[:3], "labels")  # two results with equal ones are of the same samples
ON_CURVE = {"roc": "TAR@FAR=", "det": "TAR@FAR=", "froc": "sensitivity@FP/"}  # how numbers on a curve begin
EQUAL = "Equal groups have ratios of 1, Gini and GARBE 0, and FDR 1."


def result_tables(results: Results) -> list[Table]:
    """One table per protocol: a single result has one row per number, several have one row per result."""
    by_protocol: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        by_protocol.setdefault(result.protocol, {})[name] = result
    return [
        _table_of_many(protocol, group) if len(group) > 1 else _table_of_one(*next(iter(group.items())))
        for protocol, group in by_protocol.items()
    ]


def describe_features(result: Result) -> str:
    """Which features a result was computed from, in a sentence; "" if from none."""
    flip = str(result.choices.get("flip", "none"))
    if "model" in result.about:
        source = FEATURES.get(str(result.about["model"]).rpartition("-")[2], f"of {result.about['model']}")
    elif "flip" in result.choices or any("norm" in number.name for number in result.numbers):
        source = "as their file holds them; it does not record the model and its flip rule"
    else:
        return ""
    return f"Features: {source}{'' if flip == 'none' else f'; scores: {flip}, norms without'}."


def result_curves(results: Results, runs: Runs = NO_RUNS, bands: Mapping[str, Band] = NO_BANDS) -> list[Chart]:
    """One chart for each kind of curve of each protocol, with the curves of all its results.

    `runs` has the run of each result that belongs to one, and `bands` the intervals of their DETs.
    """
    drawn = []
    for kind in KINDS:
        lines: dict[str, list[Any]] = {}
        runs_of_curves: dict[str, str] = {}
        points: dict[str, list[CurvePoint]] = {}
        for name, result in results.items():
            for curve in result.curves:
                if curve.kind == kind:
                    label = name if curve.name == result.protocol else f"{name}, {curve.name}"
                    lines.setdefault(result.protocol, []).append((label, curve.x, curve.y))
                    points[label], runs_of_curves[label] = _points_of_table(result, curve), runs.get(name, name)
        for protocol, curves in lines.items():
            title = CURVES[kind].title + (f", {protocol}" if len(lines) > 1 else "")
            own = bands if kind == "det" else NO_BANDS
            drawn.append(error_curves(kind, curves, title, points, runs_of_curves, own))
    return drawn


def errors_by_group(results: Results, runs: Runs = NO_RUNS) -> list[Chart]:
    """Errors of groups of people; results with the same groups share a chart."""
    by_groups: dict[tuple[str, ...], list[tuple[str, list[Number]]]] = {}
    for name, result in results.items():
        if result.protocol == groups.PROTOCOL and "groups" in result.samples:
            names = tuple(np.unique(result.samples["groups"]).tolist())
            accuracies = [result.number(f"accuracy {group}") for group in names]
            by_groups.setdefault(names, []).append((name, accuracies))
    return [charts.group_errors("Error by group", "group", names, rows, runs) for names, rows in by_groups.items()]


def group_tables(results: Results) -> list[Table]:
    """Of each result and operating point: error rates by group, and how unequal the groups are."""
    tables = []
    for name, result in results.items():
        for point in result.by_group:
            rates, unequal = titles(point)
            tables.append(Table(f"{name}: {rates}", *rate_rows(point), (*conclusions(point), *undefined(point))))
            head, rows = difference_rows(point)
            if rows:
                tables.append(Table(f"{name}: {unequal}", head, rows, (EQUAL,)))
    return tables


def group_maps(results: Results) -> list[Chart]:
    """A heat map of the false match rate, group by group, of each result and operating point that compares groups.

    A point at which no group has enough pairs for the rate has none: its table says so.
    """
    return [
        charts.group_heat_map(point, f"{name}: {point.rates['false_match']} by group at {point.at}")
        for name, result in results.items()
        for point in result.by_group
        if any(len(cell.groups) > 1 for cell in point.cells) and np.isfinite(point.matrix("false_match")).any()
    ]


def _table_of_one(name: str, result: Result) -> Table:
    numbers = result.overall()
    level = next((number.interval.level for number in numbers if number.interval), None)
    columns = {
        f"{100 * (level or 0):.0f} % interval": [span(number) for number in numbers] if level else [],
        "threshold": [_optional(number.threshold) for number in numbers],
        "±": [_optional(number.spread) for number in numbers],
    }
    columns = {head: cells for head, cells in columns.items() if any(cells)}
    names = [[number.name, shown(number.value)] for number in numbers]
    rows = [[*row, *cells] for row, *cells in zip(names, *columns.values(), strict=True)]
    caption = name if name == result.protocol else f"{name}: {result.protocol}"
    meanings = explain_figures(number.name for number in numbers)
    notes = (_counts(result), meanings, describe_features(result), *result.notes)
    return Table(caption, ["number", "value", *columns], rows, tuple(filter(None, notes)))


def _optional(value: float | None) -> str:
    return "" if value is None else shown(value)


def _table_of_many(protocol: str, results: Results) -> Table:
    """One row per result; thresholds and spreads have columns next to their number if any result has them."""
    head, columns = ["result"], []
    for name in dict.fromkeys(number.name for result in results.values() for number in result.overall()):
        numbers = [next((one for one in result.numbers if one.name == name), None) for result in results.values()]
        head.append(name)
        columns.append([NONE if number is None else _with_interval(number) for number in numbers])
        for attribute, label in (("spread", "±"), ("threshold", "threshold")):
            cells = [_optional(getattr(number, attribute, None)) for number in numbers]
            if any(cells):
                head.append(f"{name}, {label}")
                columns.append([cell or NONE for cell in cells])
    rows = [[name, *cells] for name, *cells in zip(results, *columns, strict=True)]
    return Table(f"{protocol}: {len(results)} results", head, rows, tuple(_notes_of_many(results)))


def _notes_of_many(results: Results) -> list[str]:
    """What all the results have in common, and where they differ."""
    notes = _once({name: _brackets(result) for name, result in results.items()})
    notes += _once({name: _counts(result) for name, result in results.items()})
    notes.append(explain_figures(number.name for result in results.values() for number in result.numbers))
    if len({_samples(result) for result in results.values()}) > 1:
        notes.append("They are not of the same samples: the rows do not show which model is better.")
    notes += _once({name: describe_features(result) for name, result in results.items()})
    for choice in dict.fromkeys(choice for result in results.values() for choice in result.choices):
        values = {name: _plain(result.choices.get(choice, "not recorded")) for name, result in results.items()}
        if choice != "intervals" and len(set(values.values())) > 1:
            notes.append(f"They differ in {choice}: {'; '.join(f'{name}: {value}' for name, value in values.items())}.")
    for note in dict.fromkeys(note for result in results.values() for note in result.notes):
        names = [name for name, result in results.items() if note in result.notes]
        notes.append(note if len(names) == len(results) else f"{', '.join(names)}: {note}")
    return [note for note in notes if note]


def _brackets(result: Result) -> str:
    intervals = any(number.interval for number in result.numbers)
    return f"In brackets: {result.choices.get('intervals', 'intervals')}." if intervals else ""


def _once(sentences: Mapping[str, str]) -> list[str]:
    """The sentence that all names share, or else each sentence with its name."""
    distinct = set(sentences.values())
    return list(distinct) if len(distinct) == 1 else [f"{name}: {text}" for name, text in sentences.items() if text]


def _samples(result: Result) -> Any:
    """A value that is equal for results of the same samples."""
    columns = [name for name in LIST_COLUMNS if name in result.samples]
    if not columns:
        return str(sorted(result.counts.items()))
    return tuple((name, result.samples[name].tobytes()) for name in columns)


def _with_interval(number: Number) -> str:
    return shown(number.value) + (f" {span(number, form='[{}, {}]')}" if number.interval else "")


def _counts(result: Result) -> str:
    return ", ".join(counted(count, name) for name, count in result.counts.items()) + "."


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _points_of_table(result: Result, curve: Curve) -> list[CurvePoint]:
    """The numbers of a result's table that lie on its curve."""
    start = ON_CURVE.get(curve.kind)
    if start is None or curve.name != result.protocol:
        return []
    points = []
    for number in result.numbers:
        if number.name.startswith(start) and np.isfinite(number.value):
            rate, _, kind = number.name.partition("=")[2].partition(", ")
            if kind:  # of a part of the pairs only
                continue
            y, label = number.value, f"{number.name}: {shown(number.value)}"
            if curve.kind == "det":
                y, label = 1 - y, f"FNMR at FMR {rate}: {shown(1 - y)}"
            points.append(CurvePoint(float(rate), y, label, shown(y)))
    return points
