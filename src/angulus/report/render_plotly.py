"""Charts as the data from which plotly's JavaScript draws them in a page."""

import html
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from angulus.report.chart import GREY, PROBIT_TICKS, Axis, Chart, Samples, Series, probit, shorten, shorten_lines

SYMBOLS = {
    "dot": "circle",
    "ring": "circle-open",
    "cross": "x-thin-open",
    "plus": "cross-thin-open",
    "tick": "line-ns-open",
}
SYMBOLS_IN_SPACE = SYMBOLS | {"cross": "diamond-open", "plus": "cross"}  # space has fewer symbols


def render_plotly(chart: Chart) -> dict[str, Any]:
    """Traces, layout, frames and samples of a chart, as plain values for JSON; the page draws the legends."""
    axes = "xyz" if chart.z is not None else "xy"
    frames = [
        [[_short(column, chart.digits) for column in columns] for columns in series_columns]
        for series_columns in chart.frames
    ]
    drawn: dict[str, Any] = {
        "traces": [_trace(series, axes, chart) for series in chart.series],
        "layout": _layout(chart),
        "frames": frames,
    }
    if chart.samples is not None:
        drawn["samples"] = _samples(chart.samples)
        drawn["frame_samples"] = [np.asarray(places, dtype=int).tolist() for places in chart.frame_samples]
    return drawn


def _samples(samples: Samples) -> dict[str, Any]:
    return {
        "ids": list(samples.ids),
        "classes": list(samples.classes),
        "labels": samples.labels.tolist(),
        "predictions": samples.predictions.tolist(),
        "norms": _short(samples.norms, 4),
        "degrees": _short(samples.degrees, 3),
        "angle": samples.angle,
    }


def _short(values: ArrayLike, digits: int) -> list[float | None]:
    """Numbers to so many significant digits; null for what is not finite.

    >>> _short([0.123456789, float("nan")], 5)
    [0.12346, None]
    """
    numbers = np.asarray(values, dtype=np.float64).ravel().tolist()
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in numbers]


def _escape(text: str) -> str:
    """Text for plotly, which takes <, > and & for markup, and needs markup for a new line."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _trace(series: Series, axes: str, chart: Chart) -> dict[str, Any]:
    columns = _places(series, chart, axes)
    trace: dict[str, Any] = {
        "type": {"bars": "bar", "map": "heatmap"}.get(series.kind, "scatter3d" if "z" in axes else "scatter"),
        "name": _escape(shorten(series.name)),
        **{axis: _coordinates(values, chart.digits) for axis, values in columns.items()},
    }
    if series.kind == "map":
        assert series.z is not None
        cells = np.array([_escape(text) for text in series.texts]).reshape(series.z.shape if series.texts else 0)
        said = {"text": cells.tolist(), "texttemplate": "%{text}"} if series.texts else {}
        values = [_short(row, chart.digits) for row in series.z]
        return trace | {"z": values, "zmin": 0, "zmax": series.top, "hoverongaps": False} | said
    if len(series.samples):
        trace |= {"hoverinfo": "none", "customdata": np.asarray(series.samples, dtype=int).tolist()}  # page.js shows it
    elif series.hover:
        trace["hovertemplate"] = re.sub(r"\{", "%{", series.hover)
    else:
        trace["hoverinfo"] = "skip"
    optional = {
        "text": [_escape(text) for text in series.texts],
        "meta": series.group or (series.name if series.in_legend else ""),
        "yaxis": "y2" if series.right else "",
    }
    trace |= {key: value for key, value in optional.items() if value}
    if series.hidden:
        trace["visible"] = False
    if series.kind == "band":
        return trace | {"mode": "none", "fill": "toself", "fillcolor": series.colour, "opacity": series.opacity}
    return trace | (_bars(series) if series.kind == "bars" else _marks(series, space="z" in axes))


def _places(series: Series, chart: Chart, axes: str) -> dict[str, Any]:
    """The coordinates on each axis: plotly has no probit axes, so there rates become their places."""
    columns = {axis: getattr(series, axis) for axis in axes}
    if series.kind == "band":  # once along its upper end, and back along the lower one
        assert series.low is not None and series.high is not None
        columns = {
            "x": np.concatenate([series.x, series.x[::-1]]),
            "y": np.concatenate([series.high, series.low[::-1]]),
        }
    return {axis: probit(values) if getattr(chart, axis).probit else values for axis, values in columns.items()}


def _coordinates(values: Any, digits: int) -> list[Any]:
    if len(values) and isinstance(values[0], str):
        return [_escape(name) for name in values]
    return _short(values, digits)


def _short_ticks(names: Sequence[str]) -> dict[str, Any]:
    """Ticks with shortened names; the places keep the whole ones, since two may begin alike."""
    short = {name: shorten_lines(name) for name in names}
    if all(name == text for name, text in short.items()):
        return {}
    return {"tickvals": [_escape(name) for name in short], "ticktext": [_escape(text) for text in short.values()]}


def _bars(series: Series) -> dict[str, Any]:
    bars: dict[str, Any] = {
        "opacity": series.opacity,
        "marker": {"color": series.colour, "pattern": {"shape": "/" if series.hatched else ""}},
    }
    if series.width is not None:
        bars["width"] = series.width
    if series.low is not None and series.high is not None:
        heights = np.asarray(series.y, dtype=np.float64)
        ends = {
            "array": _short(np.maximum(series.high - heights, 0), 5),
            "arrayminus": _short(np.maximum(heights - series.low, 0), 5),
        }
        bars["error_y"] = {**ends, "thickness": 1, "width": 2, "color": GREY}
    return bars


def _marks(series: Series, *, space: bool) -> dict[str, Any]:
    """Lines and symbols."""
    looks: dict[str, Any] = {"mode": "markers" if series.kind == "points" else "lines"}
    if series.kind != "points":
        looks["line"] = {"color": series.colour, "dash": series.dash}
        looks["line"] |= {"shape": "hv"} if series.kind == "steps" else {}
        looks["line"] |= {"width": series.width} if series.width is not None else {}
        looks["mode"] += "+markers" if series.symbol else ""
    elif series.symbol:
        looks["marker"] = {
            "color": series.colour,
            "size": series.size,
            "symbol": (SYMBOLS_IN_SPACE if space else SYMBOLS)[series.symbol],
        }
        looks["marker"] |= {"line": {"width": 2}} if series.symbol in ("ring", "tick") else {}
        looks["marker"] |= {"opacity": series.opacity} if series.opacity < 1 else {}
        if series.low is not None and series.high is not None:
            values = np.asarray(series.x, dtype=np.float64)
            ends = {"array": _short(series.high - values, 5), "arrayminus": _short(values - series.low, 5)}
            looks["error_x"] = {**ends, "thickness": 3, "width": 0, "color": series.colour}
    return looks


def _layout(chart: Chart) -> dict[str, Any]:
    axes = {"xaxis": _axis(chart.x, [series.x for series in chart.series])}
    axes["yaxis"] = _axis(chart.y, [series.y for series in chart.series])
    if chart.z is not None:
        scene = {**axes, "zaxis": _axis(chart.z, []), "aspectmode": "cube"}
        return {"scene": scene, "margin": {"l": 0, "r": 0, "b": 0}}
    layout: dict[str, Any] = axes
    if chart.equal:
        axes["xaxis"] |= {"constrain": "domain"}
        axes["yaxis"] |= {"constrain": "domain", "scaleanchor": "x", "scaleratio": 1}
    if chart.right is not None:
        layout["yaxis2"] = {**_axis(chart.right, []), "overlaying": "y", "side": "right"}
    if any(series.kind == "bars" for series in chart.series):
        layout["barmode"] = "overlay" if chart.overlaid else "group"
        if chart.overlaid:
            layout["bargap"] = 0
    if chart.mark is not None:
        line = {"color": GREY, "dash": "dot", "width": 1}
        layout["shapes"] = [
            {"type": "line", "x0": chart.mark, "x1": chart.mark, "y0": 0, "y1": 1, "yref": "paper", "line": line}
        ]
    return layout


def _axis(axis: Axis, columns: Sequence[Any]) -> dict[str, Any]:
    layout: dict[str, Any] = {"title": {"text": axis.label}}
    if axis.low is not None and axis.high is not None:
        ends = [axis.low, axis.high]
        layout["range"] = _short(probit(ends) if axis.probit else ends, 4)
    elif axis.low == 0:
        layout["rangemode"] = "tozero"
    if axis.names:
        layout |= {"type": "category"} | _short_ticks([name for column in columns for name in column])
    if axis.percent:
        layout["tickformat"] = ".0%"
    if axis.probit:
        layout |= {"tickvals": _short(probit(PROBIT_TICKS), 5), "ticktext": [f"{rate:g}" for rate in PROBIT_TICKS]}
    if axis.log:
        values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns])
        wide = float(values.max()) > 20 * float(values.min())
        layout |= {"type": "log", "exponentformat": "power"} | ({"dtick": 1} if wide else {})
    return layout
