"""Charts of norms, error curves, logs, groups and weights, built from arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.evaluation.metrics import quality
from angulus.evaluation.metrics.discard import error_versus_discard
from angulus.evaluation.protocols.result import Curve, Number
from angulus.report.chart import COLOURS, Axis, Chart, Panels, Series, line_style, summarize

RIGHT, WRONG = COLOURS[0], COLOURS[3]
MOST_ROWS = 500  # of a log
MOST_GROUPS = 30  # bars of one chart
FEW_POINTS = 12  # up to which each point of a curve is marked: one alone would not be visible

Lines = Sequence[tuple[str, NDArray[Any], NDArray[Any]]]
Judged = Sequence[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]  # (name, norms [N], whether correct [N])


@dataclass(frozen=True)
class CurveKind:
    """How curves of one kind are drawn, and how the summary reads the point at or below an x."""

    title: str
    x: Axis
    y: Axis
    read_at: float
    reading: str
    steps: bool = False  # each y holds up to the next x


FMR, TAR = Axis("false match rate (FMR, FAR, FPIR)", log=True), Axis("true accept rate (TAR, TPIR)")
RATE, MISSES = Axis("false match rate", log=True), Axis("false non-match rate")
RANK, FOUND = Axis("rank", log=True, whole=True), Axis("identified within the rank")
FALSE_POSITIVES, SENSITIVITY = Axis("false positives per scan", log=True), Axis("sensitivity")
DISCARDED = Axis("share of lowest quality discarded")
AT_FALSE_POSITIVES = "sensitivity {y} at {x:.4g} false positives per scan"
CURVES = {
    "roc": CurveKind("ROC: true accepts by false matches", FMR, TAR, 1e-2, "TAR {y} at FMR {x:.4g}", steps=True),
    "det": CurveKind(
        "DET: false non-matches by false matches", RATE, replace(MISSES, log=True), 1e-2, "FNMR {y} at FMR {x:.4g}"
    ),
    "cmc": CurveKind("CMC: identified within a rank", RANK, FOUND, 1, "{y} at rank {x:g}"),
    "froc": CurveKind(
        "FROC: sensitivity by false positives", FALSE_POSITIVES, SENSITIVITY, 1, AT_FALSE_POSITIVES, steps=True
    ),
    "discard": CurveKind("Error versus discard", DISCARDED, MISSES, 0.2, "{y} after {x:.4g} are discarded", steps=True),
}


@dataclass(frozen=True)
class CurvePoint:
    """A number of a table that lies on a curve, at (x, y), with its name and value as the table prints them."""

    x: float
    y: float
    label: str
    value: str


def norm_histogram(name: str, norms: NDArray[np.float64], correct: NDArray[np.bool_]) -> Chart:
    """Histograms of the norm of right and of wrong samples, each as a share of its own group. FI Fig. 3."""
    if norms.ndim != 1 or norms.shape != correct.shape or not len(norms):
        raise checks.InputError(
            f"norms and correct must be [N] each with N >= 1; got {list(norms.shape)} and {list(correct.shape)}"
        )
    edges = np.linspace(0, float(norms.max()) or 1.0, 31)
    series, summary = [], []
    looks = ((correct, "right", RIGHT, 0.65), (~correct, "wrong", WRONG, 1))
    for member, group, colour, opacity in looks:
        count = int(member.sum())
        if not count:
            summary.append(f"none is {group}")
            continue
        shares = np.histogram(norms[member], edges)[0] / count
        series.append(
            Series(
                "bars",
                f"{group} ({count:,})",
                (edges[1:] + edges[:-1]) / 2,
                shares,
                colour=colour,
                opacity=opacity,
                hatched=group == "wrong",
                hover="norm {x:.3g}: {y:.1%}",
            )
        )
        low, middle, high = np.quantile(norms[member], [0.05, 0.5, 0.95])
        summary.append(f"{count:,} {group}, median norm {middle:.3g}, 90 % of them from {low:.3g} to {high:.3g}")
    axes = Axis("feature norm ‖x‖"), Axis("share of the group", low=0)
    return Chart(name, series, *axes, summary=summarize(summary), overlaid=True)


def norm_bins(name: str, norms: NDArray[np.float64], correct: NDArray[np.bool_]) -> Chart:
    """Accuracy (bars) and number of samples (line) by feature norm, in bins of equal width. FI Fig. 1."""
    bins = quality.norm_bins(norms, correct, edges="width")
    centres = np.array([(each.low + each.high) / 2 for each in bins])
    accuracy = np.array([100 * each.accuracy for each in bins])
    width = 0.9 * (bins[0].high - bins[0].low)
    series = [
        Series("bars", "accuracy", centres, accuracy, colour=RIGHT, width=width, hover="norm {x:.3g}: {y:.1f} %"),
        Series(
            "line",
            "samples",
            centres,
            np.array([each.count for each in bins]),
            colour=WRONG,
            symbol="dot",
            size=3,
            hover="norm {x:.3g}: {y} samples",
            right=True,
        ),
    ]
    axes = Axis("feature norm ‖x‖"), Axis("accuracy in %", low=0, high=105)
    return Chart(name, series, *axes, right=Axis("samples", low=0))


def accuracy_by_norm(judged: Judged) -> Chart:
    """Accuracy in ten bins of equal count, at the share of samples with smaller norms. FI Fig. 1."""
    series, summary = [], []
    for number, (name, norms, correct) in enumerate(judged):
        bins = [each for each in quality.norm_bins(norms, correct) if each.count]
        counts = np.array([each.count for each in bins])
        middle = (np.cumsum(counts) - counts / 2) / len(norms)
        accuracy = np.array([each.accuracy for each in bins])
        texts = [f"norm {each.low:.3g} to {each.high:.3g}, {each.count:,} samples" for each in bins]
        hover = "{y:.2%} right<br>{text}"
        series.append(
            Series("line", name, middle, accuracy, symbol="dot", texts=texts, hover=hover, **line_style(number))
        )
        summary.append(f"{name}: {accuracy[0]:.1%} right in the lowest bin, {accuracy[-1]:.1%} in the highest")
    axes = Axis("share of samples with a smaller norm"), Axis("accuracy")
    return Chart("Accuracy by norm", series, *axes, summary=summarize(summary))


def error_by_discard(judged: Judged) -> Chart:
    """The error that remains as the samples of lowest norm are discarded."""
    lines = []
    for name, norms, correct in judged:
        errors = error_versus_discard(norms, ~correct)
        curve = Curve("discard", name, errors.discarded, errors.fnmr).thinned()
        lines.append((name, curve.x, curve.y))
    axes = {"x": Axis("share of lowest norm discarded"), "y": Axis("error of those kept")}
    return replace(error_curves("discard", lines), **axes)


def error_curves(
    kind: str, lines: Lines, title: str = "", points: Mapping[str, Sequence[CurvePoint]] = MappingProxyType({})
) -> Chart:
    """ROC, DET, CMC, FROC or error-versus-discard curves.

    A logarithmic axis leaves out what is not above 0; if that is everything, as for the DET of a model without errors,
    the axis is linear.

    Args:
        kind: a key of `CURVES`.
        lines: (name, x [K], y [K]) of each curve.
        title: instead of the kind's.
        points: numbers of a table, by the name of a curve: the curve passes through them and they are marked.
    """
    look = CURVES[checks.choice("kind", kind, CURVES)]
    lines = [(name, *_insert(x, y, points.get(name, ()))) for name, x, y in lines]
    axes = {"x": look.x, "y": look.y}
    for name in ("y", "x"):
        if not any(_drawable(x, y, axes["x"], axes["y"]).any() for _, x, y in lines):
            axes[name] = replace(axes[name], log=False)
    curves, marks, summary = [], [], []
    for number, (name, x, y) in enumerate(lines):
        shown = _drawable(x, y, axes["x"], axes["y"])
        series = Series(
            "steps" if look.steps else "line",
            name,
            x[shown],
            y[shown],
            symbol="dot" if shown.sum() <= FEW_POINTS else "",
            size=4,
            hover="({x:.4g}, {y:.4g})",
            group=str(number),
            **line_style(number),
        )
        curves.append(series)
        own = points.get(name, ())
        if own:
            marks.append(_rings(series, [point for point in own if point.x > 0 and point.y > 0]))
        row = int(np.searchsorted(x, look.read_at, side="right")) - 1
        exact = next((point.value for point in own if point.x == look.read_at), f"{y[row]:.4g}")
        reading = look.reading.format(x=x[row], y=exact) if row >= 0 else f"no point at or below {look.read_at:g}"
        summary.append(f"{name}: {reading}")
    return Chart(title or look.title, curves + marks, **axes, summary=summarize(summary))


def _insert(x: NDArray[Any], y: NDArray[Any], points: Sequence[CurvePoint]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The coordinates of a curve, and those of the points at their places among them."""
    rising = sorted(points, key=lambda point: point.x)
    rows = np.searchsorted(x, [point.x for point in rising], side="right")
    return np.insert(x, rows, [point.x for point in rising]), np.insert(y, rows, [point.y for point in rising])


def _drawable(x: NDArray[Any], y: NDArray[Any], x_axis: Axis, y_axis: Axis) -> NDArray[np.bool_]:
    """Which points the axes can show."""
    return np.asarray(((x > 0) | (not x_axis.log)) & ((y > 0) | (not y_axis.log)))


def _rings(curve: Series, points: Sequence[CurvePoint]) -> Series:
    """Rings on a curve at the points that a table names."""
    return replace(
        curve,
        kind="points",
        x=np.array([point.x for point in points]),
        y=np.array([point.y for point in points]),
        symbol="ring",
        size=7,
        texts=[point.label for point in points],
        hover="{text}",
        in_legend=False,
    )


def lines(
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    symbol: bool = False,
    mark: float | None = None,
    summary: str = "",
) -> Chart:
    """Curves by name, (x [K], y [K]) each.

    Args:
        curves: the coordinates by name.
        title, x_label, y_label: of the chart and its axes.
        symbol: whether each point is marked.
        mark: an x at which a dotted line is drawn.
        summary: what the chart shows, in words.
    """
    hover = f"{x_label} {{x}}: {{y:.4g}}"
    series = [
        Series("line", name, x, y, symbol="dot" if symbol else "", hover=hover, **line_style(number))
        for number, (name, (x, y)) in enumerate(curves.items())
    ]
    return Chart(title, series, Axis(x_label), Axis(y_label), mark=mark, summary=summary)


def training_log(key: str, logs: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> Chart:
    """One logged number by step, from the rows (name, rows) of each run's log."""
    curves, summary = [], []
    for number, (name, rows) in enumerate(logs):
        rows = [row for row in rows if key in row]
        if not rows:
            continue
        chosen = np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int))
        steps, values = (np.array([rows[row][column] for row in chosen], dtype=float) for column in ("step", key))
        curves.append(Series("line", name, steps, values, hover="step {x}: {y:.4g}", **line_style(number)))
        summary.append(f"{name}: from {values[0]:.4g} to {values[-1]:.4g}")
    title = key.replace("_", " ")
    return Chart(title, curves, Axis("step"), Axis(title), summary=summarize(summary))


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
    title: str, kind: str, groups: Sequence[str], accuracies: Sequence[tuple[str, Sequence[Number]]]
) -> Chart:
    """The error 1 − accuracy of each group with its interval; of many groups, those with the largest mean error.

    Args:
        title: of the chart.
        kind: what a group is, such as "class".
        groups: their names.
        accuracies: (name of the series, accuracy of each group).
    """
    rates = np.array([[1 - number.value for number in numbers] for _, numbers in accuracies])
    shown = list(range(len(groups)))
    if len(groups) > MOST_GROUPS:
        shown = sorted(np.argsort(-rates.mean(axis=0), kind="stable")[:MOST_GROUPS].tolist())
    series, summary = [], []
    for index, ((name, numbers), error) in enumerate(zip(accuracies, rates, strict=True)):
        bars = Series(
            "bars",
            name,
            [groups[place] for place in shown],
            error[shown],
            colour=COLOURS[index % 10],
            hatched=index >= 10,
            hover="{x}: error {y:.2%}",
        )
        intervals = [numbers[place].interval for place in shown]
        if any(intervals):
            missing = (math.nan, math.nan)
            ends = [(1 - interval.high, 1 - interval.low) if interval else missing for interval in intervals]
            bars = replace(bars, low=np.array(ends)[:, 0], high=np.array(ends)[:, 1])
        series.append(bars)
        worst = int(np.argmax(error))
        summary.append(f"{name}: highest for {kind} {groups[worst]}, {error[worst]:.2%}, mean {error.mean():.2%}")
    rest = f" Shown are the {MOST_GROUPS} of {len(groups):,} with the largest mean error."
    words = summarize(summary) + (rest if len(shown) < len(groups) else "")
    return Chart(title, series, Axis(kind, names=True), Axis("error", low=0, percent=True), summary=words)


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
    """Histograms of the frame similarities of pairs of videos, one thin line per pair. NF Fig. 9.

    Args:
        histograms: [P, bins], over cosines from −1 to 1.
        same: [P], whether a pair shows one person.
        title: of the chart.
    """
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
