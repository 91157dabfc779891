"""Charts of norms, logs, groups and weights, built from arrays; `error_curves` has the curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.image_quality import error_versus_discard
from angulus.evaluation.protocols.group_rates import ByGroup
from angulus.evaluation.protocols.result import Curve, Number
from angulus.report import terms
from angulus.report.chart import COLOURS, RUN, Axis, Chart, Panels, Series, line_style, summarize
from angulus.report.error_curves import FEW_POINTS, NO_RUNS, Runs, error_curves, group_of

RIGHT, WRONG = COLOURS[0], COLOURS[3]
MOST_ROWS = 500  # of a log
MOST_GROUPS = 30  # bars of one chart
LEAST_KEPT, LEAST_ERRORS = 30, 10  # samples and errors among them, for the error of those kept

Judged = Sequence[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]  # (name, norms [N], whether correct [N])


@dataclass(frozen=True)
class Dot:
    """A number of one variant with its interval."""

    name: str
    value: float
    low: float  # NaN without an interval
    high: float
    number: int = 0  # of its colour
    mark: str = ""  # such as "best"
    open: bool = False  # drawn as a ring: no conclusion follows from it
    values: Sequence[float] = ()  # what it is the mean of
    run: str = ""  # that it belongs to; "" is the one of its name


def interval_dots(title: str, label: str, dots: Sequence[Dot], note: str) -> Chart:
    """Numbers as dots on lines that are their intervals, the first on top; small ticks are what a number is a mean of.

    `label` names the numbers. Intervals of percentages end at 0 and 100.
    """
    limits = (0.0, 100.0) if label.endswith("%") else (-math.inf, math.inf)
    series: list[Series] = []
    summary: list[str] = []
    for dot in reversed(dots):
        place = f"{dot.name}\n{dot.mark}" if dot.mark else dot.name
        known = not math.isnan(dot.low)
        low, high = np.clip([dot.low, dot.high], *limits).tolist()
        words = f"{dot.value:.4g}" + (f", 95 % interval {low:.4g} to {high:.4g}" if known else ", no interval")
        looks: dict[str, Any] = {"colour": COLOURS[dot.number % 10], "in_legend": False}
        looks |= {"group": RUN + (dot.run or dot.name)}
        ticks: dict[str, Any] = {"symbol": "tick", "size": 9, "opacity": 0.6, "hover": "one seed: {x:.2f}"}
        if dot.values:
            series.append(Series("points", dot.name, dot.values, [place] * len(dot.values), **looks, **ticks))
        looks |= {"low": np.array([low]), "high": np.array([high]), "texts": [words], "hover": "{text}"}
        looks |= {"symbol": "ring" if dot.open else "dot", "size": 11}
        series.append(Series("points", dot.name, [dot.value], [place], **looks))
        summary.insert(0, f"{dot.name}: {words}" + (f" ({dot.mark})" if dot.mark else ""))
    x = Axis(label)
    if all(math.isnan(dot.low) and len(dot.values) < 2 for dot in dots):  # nothing else gives the axis a scale
        x = _whole_range(x, [dot.value for dot in dots], 100 if label.endswith("%") else 1)
    return Chart(title, series, x, Axis(names=True), summary=summarize(summary), note=note)


def _whole_range(axis: Axis, values: Sequence[float], top: float = 1) -> Axis:
    """An axis of shares from 0 to `top`; unchanged if the values are no shares."""
    fits = all(0 <= value <= top for value in values)
    return replace(axis, low=-0.02 * top, high=1.02 * top) if fits else axis


def norm_histogram(name: str, norms: NDArray[np.float64], correct: NDArray[np.bool_], runs: Runs = NO_RUNS) -> Chart:
    """Histograms of the norm of right and of wrong samples, each as a share of its own group. FI Fig. 3."""
    if norms.ndim != 1 or norms.shape != correct.shape or not len(norms):
        raise InputError(f"norms and correct must be [N >= 1]; got {list(norms.shape)} and {list(correct.shape)}")
    edges = np.linspace(0, float(norms.max()) or 1.0, 31)
    series, summary = [], []
    right: dict[str, Any] = {"colour": RIGHT, "opacity": 0.65}
    wrong: dict[str, Any] = {"colour": WRONG, "hatched": True}
    for member, group, looks in ((correct, "right", right), (~correct, "wrong", wrong)):
        count = int(member.sum())
        if not count:
            summary.append(f"none is {group}")
            continue
        centres, shares = (edges[1:] + edges[:-1]) / 2, np.histogram(norms[member], edges)[0] / count
        label, hover = f"{group} ({count:,})", "norm {x:.3g}: {y:.1%}"
        series.append(Series("bars", label, centres, shares, **looks, hover=hover, group=group))
        low, middle, high = np.quantile(norms[member], [0.05, 0.5, 0.95])
        summary.append(f"{count:,} {group}, median norm {middle:.3g}, 90 % of them from {low:.3g} to {high:.3g}")
    axes = Axis("feature norm ‖x‖"), Axis("share of the group", low=0)
    return Chart(name, series, *axes, summary=summarize(summary), overlaid=True, group=group_of(name, runs))


def norm_bins(name: str, norms: NDArray[np.float64], correct: NDArray[np.bool_]) -> Chart:
    """Accuracy (bars) and number of samples (line) by feature norm, in bins of equal width. FI Fig. 1."""
    bins = image_quality.norm_bins(norms, correct, edges="width")
    centres, accuracy, counts = np.array([((b.low + b.high) / 2, 100 * b.accuracy, b.count) for b in bins]).T
    bars: dict[str, Any] = {"colour": RIGHT, "width": 0.9 * (bins[0].high - bins[0].low)}
    line: dict[str, Any] = {"colour": WRONG, "symbol": "dot", "size": 3, "right": True}
    series = [
        Series("bars", "accuracy", centres, accuracy, **bars, hover="norm {x:.3g}: {y:.1f} %"),
        Series("line", "samples", centres, counts, **line, hover="norm {x:.3g}: {y} samples"),
    ]
    axes = Axis("feature norm ‖x‖"), Axis("accuracy in %", low=0, high=105)
    return Chart(name, series, *axes, right=Axis("samples", low=0))


def accuracy_by_norm(judged: Judged, runs: Runs = NO_RUNS) -> Chart:
    """Accuracy in ten bins of equal count, at the share of samples with smaller norms. FI Fig. 1."""
    series, summary = [], []
    for number, (name, norms, correct) in enumerate(judged):
        bins = [bin_ for bin_ in image_quality.norm_bins(norms, correct) if bin_.count]
        counts = np.array([bin_.count for bin_ in bins])
        x = (np.cumsum(counts) - counts / 2) / len(norms)
        accuracy = np.array([bin_.accuracy for bin_ in bins])
        texts = [f"norm {bin_.low:.3g} to {bin_.high:.3g}, {bin_.count:,} samples" for bin_ in bins]
        hover = "{y:.2%} right<br>{text}"
        looks = {"symbol": "dot", "group": group_of(name, runs), **line_style(number)}
        series.append(Series("line", name, x, accuracy, texts=texts, hover=hover, **looks))
        summary.append(f"{name}: {accuracy[0]:.1%} right in the lowest bin, {accuracy[-1]:.1%} in the highest")
    accuracies = np.concatenate([one.y for one in series])
    y = Axis("accuracy") if np.ptp(accuracies) else _whole_range(Axis("accuracy"), accuracies.tolist())
    axes = Axis("share of samples with a smaller norm"), y
    note = "Ten bins with equally many samples. A line that rises means that short features are less reliable."
    return Chart("Accuracy by norm", series, *axes, summary=summarize(summary), note=note)


def error_by_discard(judged: Judged, runs: Runs = NO_RUNS) -> Chart:
    """The error of those kept as the samples of lowest norm are discarded, up to where the rest is noise."""
    lines = []
    for name, norms, correct in judged:
        errors = error_versus_discard(norms, ~correct)
        left = len(norms) * (1 - errors.discarded)
        kept = (left >= LEAST_KEPT - 0.5) & (left * errors.fnmr >= LEAST_ERRORS - 0.5)
        end = max(1, len(kept) if kept.all() else int(np.argmin(kept)))  # a curve starts with all samples
        curve = Curve("discard", name, errors.discarded[:end], errors.fnmr[:end]).thinned()
        lines.append((name, curve.x, curve.y))
    x, y = Axis("share of lowest norm discarded"), Axis("error of those kept")
    rates = np.concatenate([rates for *_, rates in lines])
    y = y if np.ptp(rates) else _whole_range(y, rates.tolist())
    chart = error_curves("discard", lines, "Error of those kept, as the lowest norms are discarded", runs=runs)
    note = f"{chart.note} A curve ends where fewer than {LEAST_KEPT} samples or {LEAST_ERRORS} errors are left."
    return replace(chart, x=x, y=y, note=note)


def lines(
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    symbol: bool = False,
    mark: float | None = None,
) -> Chart:
    """Curves by name, (x [K], y [K]) each, with a `symbol` at each point and a dotted line at the x of `mark`."""
    hover = f"{x_label} {{x}}: {{y:.4g}}"
    series = [
        Series("line", name, x, y, symbol="dot" if symbol else "", hover=hover, **line_style(number))
        for number, (name, (x, y)) in enumerate(curves.items())
    ]
    return Chart(title, series, Axis(x_label), Axis(y_label), mark=mark)


def training_log(key: str, logs: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> Chart:
    """One logged number by step, from the rows (name, rows) of each run's log."""
    curves, summary = [], []
    for number, (name, rows) in enumerate(logs):
        rows = [row for row in rows if key in row]
        if not rows:
            continue
        chosen = np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int))
        steps, values = (np.array([rows[row][column] for row in chosen], dtype=float) for column in ("step", key))
        looks = {"symbol": "dot" if len(steps) <= FEW_POINTS else "", "group": RUN + name, **line_style(number)}
        curves.append(Series("line", name, steps, values, hover="step {x}: {y:.4g}", **looks))
        ends = f"from {values[0]:.4g} to {values[-1]:.4g}" if len(values) > 1 else f"{values[0]:.4g}, logged once"
        summary.append(f"{name}: {ends}")
    term = terms.explain_statistic(key)
    title = term.title[:1].upper() + term.title[1:]
    return Chart(title, curves, Axis("step"), Axis(term.title), summary=summarize(summary), note=term.meaning)


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], *, title: str, y_label: str) -> Chart:
    """Bars of several groups side by side, one cluster per name."""
    series = [
        Series("bars", group, names, values, hover="{x}: {y:.4g}", colour=COLOURS[number % 10])
        for number, (group, values) in enumerate(groups.items())
    ]
    values = [value for group in groups.values() for value in group]
    low, high = min(values), max(values)
    # long bars alone differ too little from 0 on: the axis then begins a little below the shortest
    bottom = 0.0 if low < 0.8 * high else low - (high - low or high * 0.01) / 2
    return Chart(title, series, Axis(names=True), Axis(y_label, low=bottom))


def group_errors(
    title: str,
    kind: str,
    groups: Sequence[str],
    accuracies: Sequence[tuple[str, Sequence[Number]]],
    runs: Runs = NO_RUNS,
) -> Chart:
    """The error 1 − accuracy of each group with its interval; of many groups, those with the largest mean error.

    `kind` says what a group is, such as "class"; each series is (name, accuracy of each group).
    """
    rates = np.array([[1 - number.value for number in numbers] for _, numbers in accuracies])
    shown = list(range(len(groups)))
    if len(groups) > MOST_GROUPS:
        shown = sorted(np.argsort(-np.nan_to_num(rates).mean(axis=0), kind="stable")[:MOST_GROUPS].tolist())
    series, summary = [], []
    for index, ((name, numbers), error) in enumerate(zip(accuracies, rates, strict=True)):
        names = [groups[place] for place in shown]
        looks: dict[str, Any] = {"colour": COLOURS[index % 10], "hatched": index >= 10, "group": group_of(name, runs)}
        bars = Series("bars", name, names, error[shown], **looks, hover="{x}: error {y:.2%}")
        intervals = [numbers[place].interval for place in shown]
        if any(intervals):
            missing = (math.nan, math.nan)
            ends = [(1 - interval.high, 1 - interval.low) if interval else missing for interval in intervals]
            bars = replace(bars, low=np.array(ends)[:, 0], high=np.array(ends)[:, 1])
        series.append(bars)
        if not np.isnan(error).all():
            worst = int(np.nanargmax(error))
            mean = f"mean {np.nanmean(error):.2%}"
            summary.append(f"{name}: highest for {kind} {groups[worst]}, {error[worst]:.2%}, {mean}")
    rest = f" Shown are the {MOST_GROUPS} of {len(groups):,} with the largest mean error."
    words = summarize(summary) + (rest if len(shown) < len(groups) else "")
    axes = Axis(kind, names=True), Axis("error", low=0, percent=True)
    note = "Share of wrong decisions. Thin lines are the intervals, where there are any."
    return Chart(title, series, *axes, summary=words, note=note)


def group_heat_map(point: ByGroup, title: str = "") -> Chart:
    """The false match rate of all groups and pairs of groups at one operating point, group by group."""
    name, names = point.rates["false_match"], point.groups
    values = point.matrix("false_match")
    known = values[~np.isnan(values)]
    texts = ["–" if math.isnan(value) else f"{value:.2g}" for value in values.ravel().tolist()]
    top = float(known.max(initial=0)) or 1.0
    series = Series("map", name, names, names, values, top=top, texts=texts, in_legend=False)
    rates = [(cell, cell.false_match) for cell in point.cells if cell.false_match is not None]
    ranked = sorted((rate.value, cell.groups) for cell, rate in rates if not math.isnan(rate.value))
    summary = [f"{' and '.join(groups)}: {name} {value:.3g}" for value, groups in reversed(ranked)]
    note = (
        f"{name} of pairs of two people of these groups, at the one threshold of {point.at}. On the diagonal both are "
        "of one group. A dash: too few pairs to know."
    )
    axes = Axis("group", names=True), Axis("group", names=True)
    return Chart(title or f"{name} by group at {point.at}", [series], *axes, summary=summarize(summary), note=note)


def weight_histograms(models: Sequence[tuple[str, Mapping[str, NDArray[Any]]]]) -> Panels:
    """Densities of weights, with one row per model and one column per layer. FI Fig. 7.

    The charts of a column have the same x axis; the layer stands above the first, the model left of each row.
    """
    charts = []
    for row, (name, weights) in enumerate(models):
        for column, (layer, values) in enumerate(weights.items()):
            reach = max(float(np.abs(others[layer]).max()) for _, others in models) or 1.0
            heights, edges = np.histogram(values, np.linspace(-reach, reach, 81), density=True)
            series = Series("bars", name, (edges[1:] + edges[:-1]) / 2, heights, in_legend=False)
            title, label = "" if row else layer, "" if column else name
            charts.append(Chart(title, [series], Axis(low=-reach, high=reach), Axis(label, low=0), overlaid=True))
    return Panels(charts, columns=len(models[0][1]), size=(3.4, 2.0))


def probability_map(axis: NDArray[Any], probability: NDArray[Any], *, title: str) -> Chart:
    """A probability [K, K] (rows along y) over the plane of 2-D features, at the K values of both axes. NF Fig. 2."""
    series = Series("map", "probability", axis, axis, probability)
    return Chart(title, [series], Axis("x₁"), Axis("x₂"), equal=True)


def pair_histograms(histograms: NDArray[Any], same: NDArray[np.bool_], *, title: str) -> Chart:
    """Histograms [P, bins] of the frame cosines of pairs of videos, one thin line per pair. NF Fig. 9."""
    edges = np.linspace(-1, 1, histograms.shape[1] + 1)
    centres = [*((edges[:-1] + edges[1:]) / 2), math.nan]  # NaN ends the line of a pair
    series = []
    for member, name, colour in ((same, "same person", RIGHT), (~same, "different people", WRONG)):
        rows = histograms[member]
        if len(rows):
            y = np.pad(rows.astype(float), ((0, 0), (0, 1)), constant_values=math.nan).ravel()
            label = f"{name} ({len(rows)} pairs)"
            series.append(Series("line", label, np.tile(centres, len(rows)), y, colour=colour, width=0.7, opacity=0.2))
    return Chart(title, series, Axis("cosine of two frames"), Axis("share of the frame pairs"))
