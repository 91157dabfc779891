"""The charts of a report: what plotly is to draw, each with a summary in words for those who do not see it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike, NDArray

from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.image_quality import error_versus_discard
from angulus.evaluation.protocols.result import Curve, Number
from angulus.report import plots
from angulus.report.model import Model

Trace = dict[str, Any]
Lines = Sequence[tuple[str, NDArray[Any], NDArray[Any]]]

COLOURS = [to_hex(colour) for colour in plots.PALETTE]
GREY = "#888888"  # seen on light and on dark
RIGHT, WRONG = COLOURS[0], COLOURS[3]
MOST_LISTED = 6  # lines that a summary goes into
MOST_ROWS = 500  # of a log that are drawn
MOST_LETTERS = 28  # of a name in a legend
MOST_GROUPS = 30  # bars of one chart
KINDS = {
    "roc": "ROC: true accepts by false matches",
    "det": "DET: false non-matches by false matches",
    "cmc": "CMC: identified within a rank",
    "froc": "FROC: sensitivity by false positives",
    "discard": "Error versus discard",
}
PLACES = {  # up to where a summary reads a curve, and how it says the point that it finds
    "roc": (1e-2, "TAR {y} at FMR {x:.4g}"),
    "det": (1e-2, "FNMR {y} at FMR {x:.4g}"),
    "cmc": (1, "{y} at rank {x:g}"),
    "froc": (1, "sensitivity {y} at {x:.4g} false positives per scan"),
    "discard": (0.2, "{y} after {x:.4g} are discarded"),
}


@dataclass(frozen=True)
class Figure:
    """A number of a table that is read off a curve, at (x, y): how the table says it, named and by itself."""

    x: float
    y: float
    named: str
    said: str


@dataclass(frozen=True, eq=False)
class Chart:
    """One chart.

    Attributes:
        title: above it.
        summary: what it shows, in a sentence or two.
        traces, layout: plotly's.
        frames: of features, by epoch and then by trace, the coordinates [x, y] or [x, y, z] that take a trace's place.
    """

    title: str
    summary: str
    traces: list[Trace]
    layout: dict[str, Any]
    frames: list[list[list[list[float | None]]]] = field(default_factory=list)


def text(name: object) -> str:
    """A name for plotly, which takes <, > and & for markup; a long one is cut, for legends have little room.

    >>> text("a < b"), text("a very long name that no legend has room for")
    ('a &lt; b', 'a very long name that no le…')
    """
    name = str(name)
    return html.escape(name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…", quote=False)


def short(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """Numbers to so many significant digits, and null for what is not finite.

    >>> short([0.123456789, float("nan")])
    [0.12346, None]
    """
    listed = np.asarray(values, dtype=np.float64).ravel().tolist()
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in listed]


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence, of many the first few.

    >>> listed("abc"), listed("abcdefgh")
    ('a; b; c.', 'a; b; c; d; e; f; and 2 more.')
    """
    parts = list(parts)
    more = [f"and {len(parts) - MOST_LISTED} more"] if len(parts) > MOST_LISTED else []
    return "; ".join(parts[:MOST_LISTED] + more) + "."


def norm_histogram(name: str, norms: NDArray[np.float64], correct: NDArray[np.bool_]) -> Chart:
    """Histograms of the norm, right and wrong samples apart, each as a share of its own kind. FI Fig. 3."""
    edges = np.linspace(0, float(norms.max()) or 1.0, 31)
    traces, said = [], []
    looks = ((correct, "right", RIGHT, "", 0.65), (~correct, "wrong", WRONG, "/", 1))
    for member, kind, colour, pattern, opacity in looks:
        count = int(member.sum())
        if not count:
            said.append(f"none is {kind}")
            continue
        shares = np.histogram(norms[member], edges)[0] / count
        traces.append(
            {
                "type": "bar",
                "name": f"{kind} ({count:,})",
                "x": short((edges[1:] + edges[:-1]) / 2),
                "y": short(shares),
                "opacity": opacity,
                "marker": {"color": colour, "pattern": {"shape": pattern}},
                "hovertemplate": f"norm %{{x:.3g}}: %{{y:.1%}} of the {kind}<extra></extra>",
            }
        )
        low, middle, high = np.quantile(norms[member], [0.05, 0.5, 0.95])
        said.append(f"{count:,} {kind}, median norm {middle:.3g}, 90 % of them from {low:.3g} to {high:.3g}")
    layout = _axes("feature norm ‖x‖", "share of its kind") | {"barmode": "overlay", "bargap": 0}
    return Chart(name, listed(said), traces, layout)


def norm_bins(judged: Sequence[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]) -> Chart:
    """Accuracy by norm in ten bins of equal count, at the share of samples with smaller norms. FI Fig. 1."""
    traces, said = [], []
    for number, (name, norms, correct) in enumerate(judged):
        bins = [each for each in image_quality.norm_bins(norms, correct) if each.count]
        counts = np.array([each.count for each in bins])
        middle = (np.cumsum(counts) - counts / 2) / len(norms)
        ranges = [f"norm {each.low:.3g} to {each.high:.3g}, {each.count:,} samples" for each in bins]
        traces.append(
            _line(name, number, middle, np.array([each.accuracy for each in bins]), markers=True)
            | {"text": ranges, "hovertemplate": "%{y:.2%} right<br>%{text}"}
        )
        said.append(f"{name}: {bins[0].accuracy:.1%} right in the lowest bin, {bins[-1].accuracy:.1%} in the highest")
    layout = _axes("share of samples with a smaller norm", "accuracy")
    return Chart("Accuracy by norm", listed(said), traces, layout)


def norm_discard(judged: Sequence[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]) -> Chart:
    """The error that is left as the samples of lowest norm are discarded."""
    found = [(name, error_versus_discard(norms, ~correct)) for name, norms, correct in judged]
    curves = [Curve("discard", name, each.discarded, each.fnmr).thinned() for name, each in found]
    chart = curve("discard", [(each.name, each.x, each.y) for each in curves])
    chart.layout["yaxis"]["title"] = {"text": "error of those kept"}
    chart.layout["xaxis"]["title"] = {"text": "share of lowest norm discarded"}
    return chart


def curve(
    kind: str, lines: Lines, title: str = "", figures: Mapping[str, Sequence[Figure]] = MappingProxyType({})
) -> Chart:
    """Curves of one kind.

    Args:
        kind: which axes.
        lines: (name, x [K], y [K]) each; of a long curve some of the points.
        title: of the chart, in place of the kind's.
        figures: by the name of a line what a table reads off it: it goes through these points, which are marked.
    """
    lines = [(name, *_through(x, y, figures.get(name, ()))) for name, x, y in lines]
    settings, masks = plots.curve_axes(kind, lines)
    place, said_at = PLACES[kind]
    traces, marks, said = [], [], []
    for number, ((name, x, y), shown) in enumerate(zip(lines, masks, strict=True)):
        shape = "hv" if kind in ("roc", "froc", "discard") else "linear"
        line = _line(name, number, x[shown], y[shown], shape=shape, markers=int(shown.sum()) == 1)
        traces.append(line | {"legendgroup": f"{number}", "hovertemplate": "(%{x:.4g}, %{y:.4g})"})
        own = figures.get(name, ())
        if own:
            marks.append(_marks(name, number, [each for each in own if each.x > 0 and each.y > 0]))
        row = int(np.searchsorted(x, place, side="right")) - 1
        exact = next((each.said for each in own if each.x == place), None)
        at = said_at.format(x=x[row], y=exact or f"{y[row]:.4g}")
        said.append(f"{name}: " + (at if row >= 0 else f"no point at or below {place:g}"))
    traces += marks
    layout = _axes(settings["xlabel"], settings["ylabel"])
    for axis in ("x", "y"):
        layout[f"{axis}axis"] |= {"type": settings.get(f"{axis}scale", "linear")}
        if layout[f"{axis}axis"]["type"] == "log":
            seen = np.concatenate([trace[axis] for trace in traces])
            wide = float(seen.max()) > 20 * float(seen.min())
            layout[f"{axis}axis"] |= {"exponentformat": "power"} | ({"dtick": 1} if wide else {})
    return Chart(title or KINDS[kind], listed(said), traces, layout)


def log(key: str, models: Sequence[Model]) -> Chart:
    """One logged number over the steps."""
    traces, said = [], []
    for number, model in enumerate(models):
        rows = [row for row in model.log if key in row]
        if not rows:
            continue
        chosen = np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int))
        steps, values = (np.array([rows[row][name] for row in chosen], dtype=float) for name in ("step", key))
        traces.append(_line(model.name, number, steps, values) | {"hovertemplate": "step %{x}: %{y:.4g}"})
        said.append(f"{model.name}: from {values[0]:.4g} to {values[-1]:.4g}")
    title = key.replace("_", " ")
    return Chart(title, listed(said), traces, _axes("step", title))


def errors(title: str, of: str, groups: Sequence[str], series: Sequence[tuple[str, Sequence[Number]]]) -> Chart:
    """Error 1 − accuracy of each group, with its interval: (name, the accuracy of each group) a series.

    Of many groups the chart shows those with the largest mean error.
    """
    rates = np.array([[1 - number.value for number in numbers] for _, numbers in series])
    shown = list(range(len(groups)))
    if len(groups) > MOST_GROUPS:
        shown = sorted(np.argsort(-rates.mean(axis=0), kind="stable")[:MOST_GROUPS].tolist())
    traces, said = [], []
    for index, ((name, numbers), error) in enumerate(zip(series, rates, strict=True)):
        trace = {
            "type": "bar",
            "name": text(name),
            "x": [text(groups[place]) for place in shown],
            "y": short(error[shown]),
            "marker": {"color": COLOURS[index % 10], "pattern": {"shape": "" if index < 10 else "/"}},
            "hovertemplate": "%{x}: error %{y:.2%}",
        }
        bars = [numbers[place].interval for place in shown]
        if any(bars):
            ends = np.array([(1 - bar.low, 1 - bar.high) if bar else (math.nan, math.nan) for bar in bars])
            above, below = np.maximum(ends[:, 0] - error[shown], 0), np.maximum(error[shown] - ends[:, 1], 0)
            trace["error_y"] = {
                "array": short(above),
                "arrayminus": short(below),
                "thickness": 1,
                "width": 2,
                "color": GREY,
            }
        traces.append(trace)
        worst = int(np.argmax(error))
        said.append(f"{name}: highest for {of} {groups[worst]}, {error[worst]:.2%}, mean {error.mean():.2%}")
    rest = (
        f" The {MOST_GROUPS} of {len(groups):,} with the largest mean error are drawn."
        if len(shown) < len(groups)
        else ""
    )
    layout = _axes(of, "error") | {"barmode": "group", "legend": {"yref": "paper", "y": 1.02, "yanchor": "bottom"}}
    layout["xaxis"] |= {"type": "category"}
    layout["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    return Chart(title, listed(said) + rest, traces, layout)


def _line(
    name: str, number: int, x: NDArray[Any], y: NDArray[Any], *, shape: str = "linear", markers: bool = False
) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers" if markers else "lines",
        "name": text(name),
        "x": short(x),
        "y": short(y),
        "line": {"color": COLOURS[number % 10], "dash": ("solid", "dash", "dot")[number // 10 % 3], "shape": shape},
    }


def _through(x: NDArray[Any], y: NDArray[Any], figures: Sequence[Figure]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points of a curve and those of the figures, in their order."""
    rising = sorted(figures, key=lambda each: each.x)
    rows = np.searchsorted(x, [each.x for each in rising], side="right")
    return np.insert(x, rows, [each.x for each in rising]), np.insert(y, rows, [each.y for each in rising])


def _marks(name: str, number: int, figures: Sequence[Figure]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": text(name),
        "legendgroup": f"{number}",
        "showlegend": False,
        "x": short([each.x for each in figures]),
        "y": short([each.y for each in figures]),
        "text": [text(each.named) for each in figures],
        "marker": {"color": COLOURS[number % 10], "size": 7, "symbol": "circle-open", "line": {"width": 2}},
        "hovertemplate": "%{text}",
    }


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
