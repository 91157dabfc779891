"""Saved results: those of one protocol side by side in one table, their curves in one chart, through their figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from angulus.evaluation.protocols import groups, scored
from angulus.evaluation.protocols.result import KINDS, Curve, Number, Result, shown, span
from angulus.report import charts
from angulus.report.charts import Chart, Figure
from angulus.report.page import Table
from angulus.report.tables import NONE

Results = Mapping[str, Result]  # by the names that the report gives them

FEATURES = {  # by the flip rule that a model's name ends in
    "none": "of each image alone, without its mirror image",
    "sum": "of each image with its mirror image's added",
    "concat": "of each image with its mirror image's beside them",
}
SAME_LIST = (*scored.COLUMNS[:3], "labels")  # what tells whether two results are of the same samples
ON_CURVE = {"roc": "TAR@FAR=", "det": "TAR@FAR=", "froc": "sensitivity@FP/scan="}  # figures that lie on a curve


def by_protocol(measured: Results) -> dict[str, dict[str, Result]]:
    """The results by what they measure, each kind in the order in which they were given."""
    found: dict[str, dict[str, Result]] = {}
    for name, result in measured.items():
        found.setdefault(result.protocol, {})[name] = result
    return found


def tables(measured: Results) -> list[Table]:
    """A table a protocol: of one result a row a figure, of several a row a result."""
    return [
        _beside(protocol, some) if len(some) > 1 else _alone(*next(iter(some.items())))
        for protocol, some in by_protocol(measured).items()
    ]


def features(result: Result) -> str:
    """Which features a result is of, in a sentence; "" where it is of none."""
    flip = str(result.choices.get("flip", "none"))
    if "model" in result.about:
        said = FEATURES.get(str(result.about["model"]).rpartition("-")[2], f"of {result.about['model']}")
    elif "flip" in result.choices or any("norm" in number.name for number in result.numbers):
        said = "as they stand in their file; which model and flip rule made them is not recorded"
    else:
        return ""
    return f"Features: {said}{'' if flip == 'none' else f'; scores: {flip}, norms without'}."


def curves(measured: Results) -> list[Chart]:
    """A chart for each kind of curve of each protocol, with the curves of all its results."""
    drawn = []
    for kind in KINDS:
        lines: dict[str, list[Any]] = {}
        figures: dict[str, list[Figure]] = {}
        for name, result in measured.items():
            for each in result.curves:
                if each.kind == kind:
                    label = name if each.name == result.protocol else f"{name}, {each.name}"
                    lines.setdefault(result.protocol, []).append((label, each.x, each.y))
                    figures[label] = _figures(result, each)
        for protocol, found in lines.items():
            title = charts.KINDS[kind] + (f", {protocol}" if len(lines) > 1 else "")
            drawn.append(charts.curve(kind, found, title, figures))
    return drawn


def group_errors(measured: Results) -> list[Chart]:
    """Errors of the groups of people, the results that have the same groups beside each other."""
    found: dict[tuple[str, ...], list[tuple[str, list[Number]]]] = {}
    for name, result in measured.items():
        if result.protocol == groups.PROTOCOL:
            names = tuple(np.unique(result.samples["groups"]).tolist())
            found.setdefault(names, []).append((name, [result.number(f"accuracy {each}") for each in names]))
    return [charts.errors("Error by group", "group", names, series) for names, series in found.items()]


def _alone(name: str, result: Result) -> Table:
    asked = {
        "interval": any(number.interval for number in result.numbers),
        "threshold": any(number.threshold is not None for number in result.numbers),
        "±": any(number.spread is not None for number in result.numbers),
    }
    level = next((number.interval.level for number in result.numbers if number.interval), 0.95)
    heads = {"interval": f"{level:.0%} interval", "threshold": "threshold", "±": "±"}
    rows = []
    for number in result.numbers:
        cells = {
            "interval": span(number),
            "threshold": "" if number.threshold is None else shown(number.threshold),
            "±": "" if number.spread is None else shown(number.spread),
        }
        rows.append([number.name, shown(number.value), *(cells[each] for each in heads if asked[each])])
    head = ["number", "value", *(said for each, said in heads.items() if asked[each])]
    caption = name if name == result.protocol else f"{name}: {result.protocol}"
    notes = (_counts(result), features(result), *result.notes)
    return Table(caption, head, rows, tuple(filter(None, notes)))


def _beside(protocol: str, results: Results) -> Table:
    """A row a result; a figure's threshold and spread stand in columns beside it, where any result has them."""
    head, columns = ["result"], []
    for name in dict.fromkeys(number.name for result in results.values() for number in result.numbers):
        column = [_number(result, name) for result in results.values()]
        head.append(name)
        columns.append([NONE if number is None else _with_interval(number) for number in column])
        for what in ("spread", "threshold"):
            values = [None if number is None else getattr(number, what) for number in column]
            if any(value is not None for value in values):
                head.append(f"{name}, {'±' if what == 'spread' else what}")
                columns.append([NONE if value is None else shown(value) for value in values])
    rows = [[name, *cells] for name, *cells in zip(results, *columns, strict=True)]
    return Table(f"{protocol}: {len(results)} results", head, rows, tuple(_beside_notes(results)))


def _beside_notes(results: Results) -> list[str]:
    """What all the results have in common, and where they differ."""
    notes = _together({name: _brackets(result) for name, result in results.items()})
    notes += _together({name: _counts(result) for name, result in results.items()})
    if len({_samples(result) for result in results.values()}) > 1:
        notes.append("They are not of the same samples: the rows do not tell which model is the better one.")
    notes += _together({name: features(result) for name, result in results.items()})
    for choice in dict.fromkeys(each for result in results.values() for each in result.choices):
        said = {name: _plain(result.choices.get(choice, "not said")) for name, result in results.items()}
        if choice != "intervals" and len(set(said.values())) > 1:
            notes.append(f"They differ in {choice}: {'; '.join(f'{name}: {each}' for name, each in said.items())}.")
    for note in dict.fromkeys(note for result in results.values() for note in result.notes):
        of = [name for name, result in results.items() if note in result.notes]
        notes.append(note if len(of) == len(results) else f"{', '.join(of)}: {note}")
    return [note for note in notes if note]


def _brackets(result: Result) -> str:
    intervals = any(number.interval for number in result.numbers)
    return f"In brackets: {result.choices.get('intervals', 'intervals')}." if intervals else ""


def _together(said: Mapping[str, str]) -> list[str]:
    """What is said of all, once; else of each by its name."""
    once = set(said.values())
    return list(once) if len(once) == 1 else [f"{name}: {each}" for name, each in said.items() if each]


def _samples(result: Result) -> Any:
    """What two results share if they are of the same samples."""
    columns = [name for name in SAME_LIST if name in result.samples]
    if not columns:
        return str(sorted(result.counts.items()))
    return tuple((name, result.samples[name].tobytes()) for name in columns)


def _number(result: Result, name: str) -> Number | None:
    return next((number for number in result.numbers if number.name == name), None)


def _with_interval(number: Number) -> str:
    return shown(number.value) + (f" {span(number, form='[{}, {}]')}" if number.interval else "")


def _counts(result: Result) -> str:
    return ", ".join(f"{count:,} {of}" for of, count in result.counts.items()) + "."


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figures(result: Result, curve: Curve) -> list[Figure]:
    """The figures of a result's table that are read off its curve, at their rates."""
    start = ON_CURVE.get(curve.kind)
    if start is None or curve.name != result.protocol:
        return []
    found = []
    for number in result.numbers:
        rate = number.name.removeprefix(start)
        if rate != number.name and np.isfinite(number.value):
            y, said = number.value, f"{number.name}: {shown(number.value)}"
            if curve.kind == "det":
                y, said = 1 - y, f"FNMR at FMR {rate}: {shown(1 - y)}"
            found.append(Figure(float(rate), y, said, shown(y)))
    return found
