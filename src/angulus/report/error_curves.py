"""Curves of errors by a threshold, a rank or a size, such as ROC and DET, built from arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.report import terms
from angulus.report.chart import RUN, Axis, Chart, Series, line_style, probit, probit_inverse, summarize

MOST_FMR, MOST_FNMR = 0.5, 0.99  # on probit axes
FEW_POINTS = 12  # up to which each point of a curve is marked: one alone would not be visible

Lines = Sequence[tuple[str, NDArray[Any], NDArray[Any]]]
Runs = Mapping[str, str]  # the run of each name that belongs to one; any other name is itself a run, or a lone result
NO_RUNS: Runs = MappingProxyType({})


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
RATE, MISSES = Axis("false match rate (FMR)", probit=True), Axis("false non-match rate (FNMR)")
PROBIT_MISSES = replace(MISSES, probit=True)
RANK, FOUND = Axis("rank", log=True, whole=True), Axis("identified within the rank")
FALSE_POSITIVES, SENSITIVITY = Axis("false positives per case", log=True), Axis("sensitivity")
DISCARDED = Axis("share of lowest quality discarded")
GONE_READING = "{y} after {x:.4g} are discarded"
FP_READING = "sensitivity {y} at {x:.4g} false positives per case"
SIZE, MISSED = Axis("people in the gallery, N", log=True), Axis("false negative identification rate (FNIR)", low=0)
CURVES = {
    "roc": CurveKind("ROC: true accepts by false matches", FMR, TAR, 1e-2, "TAR {y} at FMR {x:.4g}", steps=True),
    "det": CurveKind("DET: false non-matches by false matches", RATE, PROBIT_MISSES, 1e-2, "FNMR {y} at FMR {x:.4g}"),
    "cmc": CurveKind("CMC: identified within a rank", RANK, FOUND, 1, "{y} at rank {x:g}"),
    "froc": CurveKind("FROC: sensitivity by false positives", FALSE_POSITIVES, SENSITIVITY, 1, FP_READING, steps=True),
    "discard": CurveKind("Error versus discard: FNMR at a fixed FMR", DISCARDED, MISSES, 0.2, GONE_READING, steps=True),
    "fnir": CurveKind("FNIR by gallery size", SIZE, MISSED, math.inf, "FNIR {y} at N = {x:,g}"),
}


@dataclass(frozen=True)
class CurvePoint:
    """A number of a table that lies on a curve, at (x, y), with its name and value as the table prints them."""

    x: float
    y: float
    label: str
    value: str


@dataclass(frozen=True, eq=False)
class Band:
    """Intervals of y at some x of a curve."""

    x: NDArray[np.float64]  # [K]
    low: NDArray[np.float64]  # [K]
    high: NDArray[np.float64]  # [K]
    words: str  # what they are, in a sentence


NO_BANDS: Mapping[str, Band] = MappingProxyType({})


def group_of(name: str, runs: Runs) -> str:
    """The group of series that a name is shown and hidden with: its run."""
    return RUN + runs.get(name, name)


def error_curves(
    kind: str,
    lines: Lines,
    title: str = "",
    points: Mapping[str, Sequence[CurvePoint]] = MappingProxyType({}),
    runs: Runs = NO_RUNS,
    bands: Mapping[str, Band] = NO_BANDS,
) -> Chart:
    """ROC, DET, CMC, FROC or error-versus-discard curves.

    A logarithmic axis leaves out what is not above 0, a probit axis also what is not below 1; if that is everything, as
    for the DET of a model without errors, the axis is linear. A curve passes through its `points`, which are numbers of
    a table, and rings mark them. `bands` are the intervals of some of the curves.
    """
    look = CURVES[checks.choice("kind", kind, CURVES)]
    lines = [(name, *_insert(x, y, points.get(name, ()))) for name, x, y in lines]
    axes = look.x, look.y
    for linear in ((look.x, _linear(look.y)), (_linear(look.x), _linear(look.y))):
        if not any(_drawable(x, y, *axes).any() for _, x, y in lines):
            axes = linear
    shown_points = [(x[member], y[member]) for _, x, y in lines for member in [_drawable(x, y, *axes)]]
    banded = [bands[name] for name, *_ in lines if name in bands]
    shown_points += [(band.x, end) for band in banded for end in (band.low, band.high)]
    axes = _probit_limits(axes, *map(np.concatenate, zip(*shown_points, strict=True)))
    curves, marks, summary = [], [], []
    bands_drawn: list[Series] = []
    for number, (name, x, y) in enumerate(lines):
        shown = _drawable(x, y, *axes)
        own = points.get(name, ())
        marked = shown.sum() <= FEW_POINTS and not own  # rings mark it already, and their hover must be on top
        looks = {**line_style(number), "symbol": "dot" if marked else "", "size": 4}
        style: Any = "steps" if look.steps else "line"
        looks |= {"hover": "({x:.4g}, {y:.4g})", "group": group_of(name, runs)}
        series = Series(style, name, x[shown], y[shown], **looks)
        if axes[0].probit:  # plotly knows only the places on such an axis
            texts = [f"({one:.4g}, {other:.4g})" for one, other in zip(x[shown], y[shown], strict=True)]
            series = replace(series, texts=texts, hover="{text}")
        curves.append(series)
        if name in bands:
            bands_drawn.append(_fill(bands[name], series, axes[1]))
        if own:
            marks.append(_rings(series, [point for point in own if point.x > 0 and point.y > 0]))
        row = int(np.searchsorted(x, look.read_at, side="right")) - 1
        exact = next((point.value for point in own if point.x == look.read_at), f"{y[row]:.4g}")
        reading = look.reading.format(x=x[row], y=exact) if row >= 0 else f"no point at or below {look.read_at:g}"
        summary.append(f"{name}: {reading}")
    note = " ".join([terms.CURVES[kind], *dict.fromkeys(band.words for band in banded)])
    return Chart(title or look.title, bands_drawn + curves + marks, *axes, summary=summarize(summary), note=note)


def _insert(x: NDArray[Any], y: NDArray[Any], points: Sequence[CurvePoint]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The coordinates of a curve, and those of the points at their places among them."""
    rising = sorted(points, key=lambda point: point.x)
    rows = np.searchsorted(x, [point.x for point in rising], side="right")
    return np.insert(x, rows, [point.x for point in rising]), np.insert(y, rows, [point.y for point in rising])


def _drawable(x: NDArray[Any], y: NDArray[Any], x_axis: Axis, y_axis: Axis) -> NDArray[np.bool_]:
    """Which points the axes can show."""
    shown = np.ones(len(x), dtype=bool)
    for axis, values in ((x_axis, x), (y_axis, y)):
        shown &= (values > 0) | (not (axis.log or axis.probit))
        shown &= (values < 1) | (not axis.probit)
    return shown


def _linear(axis: Axis) -> Axis:
    return replace(axis, log=False, probit=False)


def _probit_limits(axes: tuple[Axis, Axis], x: NDArray[Any], y: NDArray[Any]) -> tuple[Axis, Axis]:
    """Probit axes that leave out FMRs above ½, where nobody sets a threshold, unless there are no others."""
    x_axis, y_axis = axes
    if x_axis.probit:
        most = MOST_FMR if x.min() <= MOST_FMR else float(x.max())
        x, y = x[x <= most], y[x <= most]
        x_axis = replace(x_axis, low=0.7 * float(x.min()), high=_beyond(most))
    if y_axis.probit:
        y_axis = replace(y_axis, low=0.5 * float(y[y > 0].min()), high=_beyond(min(float(y.max()), MOST_FNMR)))
    return x_axis, y_axis


def _beyond(rate: float) -> float:
    """A little farther on a probit axis."""
    return float(probit_inverse(probit(rate) + 0.1))


def _fill(band: Band, curve: Series, y_axis: Axis) -> Series:
    """The band of a curve, in its colour; a probit axis has no room for 0 and 1."""
    low, high = band.low, band.high
    if y_axis.low is not None and y_axis.high is not None:
        low, high = (np.clip(end, y_axis.low, y_axis.high) for end in (low, high))
    looks: dict[str, Any] = {"symbol": "", "texts": (), "hover": "", "in_legend": False, "opacity": 0.22}
    return replace(curve, kind="band", x=band.x, y=low, low=low, high=high, **looks)


def _rings(curve: Series, points: Sequence[CurvePoint]) -> Series:
    """Rings on a curve at the points that a table names."""
    x, y = (np.array([getattr(point, axis) for point in points]) for axis in ("x", "y"))
    # up to size 6 plotly gives a ring the hover; of a larger one, to the line below it
    looks: dict[str, Any] = {"kind": "points", "symbol": "ring", "size": 6, "in_legend": False}
    return replace(curve, x=x, y=y, **looks, texts=[point.label for point in points], hover="{text}")
