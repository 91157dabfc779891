"""Charts and rows of images as PNG files, drawn with matplotlib."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatter, NullLocator, PercentFormatter

from angulus.core import checks, files
from angulus.report.chart import (
    GREY,
    PROBIT_TICKS,
    Axis,
    Chart,
    Panels,
    Series,
    probit,
    probit_inverse,
    shorten_lines,
)

MARKERS = {"": "None", "dot": "o", "ring": "o", "cross": "x", "plus": "+", "tick": "|"}
LINES = {"solid": "-", "dash": "--", "dot": ":"}


def render_png(content: Chart | Panels, path: Path) -> None:
    """Draw one chart, or the panels of one picture, into a PNG file."""
    save(draw(content), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    files.write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130, bbox_inches="tight"))


def draw(content: Chart | Panels) -> Figure:
    """One chart, or the panels of one picture; their shared legend fills the first unused panel, or lies below all."""
    single = isinstance(content, Chart)
    panels = Panels([content], size=_single_size(content)) if isinstance(content, Chart) else content
    count = len(panels.charts)
    columns = min(panels.columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(panels.size[0] * columns, panels.size[1] * rows), layout="constrained")
    spaces = [chart.z is not None for chart in panels.charts] + [False] * (rows * columns - count)
    axes = [
        figure.add_subplot(rows, columns, place, projection="3d" if space else None)
        for place, space in enumerate(spaces, start=1)
    ]
    for axis, chart in zip(axes, panels.charts, strict=False):
        _draw_panel(axis, chart, own_legend=not panels.legend)
        axis.tick_params(labelsize=10 if single else 8)
    for axis in axes[count:]:
        axis.axis("off")
    if panels.legend:
        handles, names = axes[0].get_legend_handles_labels()
        options: dict[str, Any] = {"title": panels.legend, "markerscale": 3}
        if len(axes) > count:
            axes[count].legend(handles, names, loc="center", ncols=2, **options)
        else:
            figure.legend(handles, names, loc="outside lower center", ncols=10, **options)
    return figure


def _single_size(chart: Chart) -> tuple[float, float]:
    """Width and height in inches: more width for many bars, a square for equal axes."""
    if any(series.kind == "map" for series in chart.series) and chart.x.names:
        count = len(chart.series[0].x)
        return max(5.2, 1.6 + 0.75 * count), max(4.4, 1.2 + 0.6 * count)
    if chart.x.names:
        return max(6.4, 0.16 * len(chart.series[0].x) * (1 + len(chart.series))), 4.2
    if chart.y.names:
        return 6.4, 1.2 + 0.55 * len({name for series in chart.series for name in series.y})
    return (5.2, 4.4) if chart.equal else (6.4, 4.6)


def _draw_panel(axis: Axes, chart: Chart, *, own_legend: bool) -> None:
    right = axis.twinx() if chart.right is not None else None
    shown = [series for series in chart.series if not series.hidden]
    bars = [series for series in shown if series.kind == "bars"]
    for series in shown:
        side = right if series.right and right is not None else axis
        if series.kind == "map":
            _draw_map(axis, series)
        elif series.kind == "bars":
            place = 0 if chart.overlaid else bars.index(series)
            _draw_bars(side, series, place, 1 if chart.overlaid else len(bars))
        elif series.kind == "band":
            assert series.low is not None and series.high is not None
            looks: dict[str, Any] = {"color": series.colour, "alpha": series.opacity, "linewidth": 0}
            side.fill_between(series.x, series.low, series.high, **looks)
        else:
            _draw_marks(side, series)
    if chart.mark is not None:
        axis.axvline(chart.mark, color="grey", linestyle=":", linewidth=1)
    axis.set_title(chart.title)
    _set_axis(axis, "x", chart.x)
    _set_axis(axis, "y", chart.y)
    if chart.z is not None:
        _set_axis(axis, "z", chart.z)
        axis.locator_params(nbins=5)
    if right is not None and chart.right is not None:  # the labels take the colours of what they belong to
        _set_axis(right, "y", chart.right)
        axis.yaxis.label.set_color(next(series.colour for series in shown if not series.right))
        right.yaxis.label.set_color(next(series.colour for series in shown if series.right))
    if chart.y.names and not any(series.kind == "map" for series in shown):
        axis.margins(y=0.15)
        names = list(dict.fromkeys(name for series in shown for name in series.y))
        axis.set_yticks(range(len(names)), [shorten_lines(name) for name in names])
    if chart.equal:
        axis.set_aspect("equal")
    elif not bars and not any(series.kind == "map" for series in shown):
        axis.grid(alpha=0.3, which="both")
    named = [series for series in shown if series.in_legend and series.kind != "map"]
    if own_legend and right is None and (len(named) > 1 or (bars and named)):
        axis.legend(fontsize=8)


def _draw_map(axis: Axes, series: Series) -> None:
    """A colour map, with its texts in the cells."""
    assert series.z is not None
    places: list[Any] = [series.x, series.y]
    for number, (values, set_ticks) in enumerate(((series.x, axis.set_xticks), (series.y, axis.set_yticks))):
        if isinstance(values[0], str):
            places[number] = np.arange(len(values))
            set_ticks(places[number], [shorten_lines(name) for name in values])
    mesh = axis.pcolormesh(*places, series.z, vmin=0, vmax=series.top, cmap="viridis", shading="auto")
    axis.figure.colorbar(mesh, ax=axis, label=series.name)
    for text, (row, column) in zip(series.texts, np.ndindex(series.z.shape), strict=False):
        dark = series.z[row, column] < series.top / 2
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _draw_bars(axis: Axes, series: Series, place: int, count: int) -> None:
    """The bars of one series, those at `place` of the `count` bars that stand side by side."""
    if len(series.x) and isinstance(series.x[0], str):
        width = 0.8 / count
        positions = np.arange(len(series.x)) + (place - (count - 1) / 2) * width
        axis.set_xticks(range(len(series.x)), series.x, fontsize=8)
    else:
        positions = np.asarray(series.x, dtype=np.float64)
        width = series.width or (positions[1] - positions[0] if len(positions) > 1 else 0.8)
    looks: dict[str, Any] = {"color": series.colour, "alpha": series.opacity}
    if series.hatched:
        looks = {"fill": False, "edgecolor": series.colour, "hatch": "////", "linewidth": 0.8}
    if series.low is not None and series.high is not None:
        heights = np.asarray(series.y, dtype=np.float64)
        ends = np.maximum([heights - series.low, series.high - heights], 0)
        looks |= {"yerr": ends, "error_kw": {"ecolor": GREY, "elinewidth": 1, "capsize": 2}}
    axis.bar(positions, series.y, width, label=series.name if series.in_legend else None, **looks)


def _draw_marks(axis: Axes, series: Series) -> None:
    """Lines and symbols."""
    label = series.name if series.in_legend else None
    looks: dict[str, Any] = {"color": series.colour, "label": label, "alpha": series.opacity}
    places: list[Any] = [series.x, series.y] if series.z is None else [series.x, series.y, series.z]
    if series.low is not None and series.high is not None:
        axis.hlines(series.y, series.low, series.high, color=series.colour, linewidth=2)
    elif series.kind == "points" and series.symbol == "dot":
        axis.scatter(*places, **(looks | {"s": series.size, "linewidths": 0}))
        return
    looks |= {"linewidth": series.width or 1.5, "marker": MARKERS[series.symbol], "markersize": series.size}
    if series.symbol == "ring":
        looks["markerfacecolor"] = "none" if series.low is None else "white"
    looks["linestyle"] = "none" if series.kind == "points" else LINES[series.dash]
    if series.kind == "steps":
        looks["drawstyle"] = "steps-post"
    axis.plot(*places, **looks)


def _set_axis(panel: Axes, name: str, axis: Axis) -> None:
    panel.set(**{f"{name}label": axis.label})
    if axis.log:
        panel.set(**{f"{name}scale": "log"})
    if axis.probit:
        getattr(panel, f"set_{name}scale")("function", functions=(probit, probit_inverse))
    low, high = (None if axis.log and end == 0 else end for end in (axis.low, axis.high))
    panel.set(**{f"{name}lim": (low, high)})
    ticks = panel.xaxis if name == "x" else panel.yaxis
    if axis.whole:  # 2, not 2 x 10^0
        ticks.set_major_formatter(LogFormatter())
        ticks.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    if axis.probit:
        ticks.set_major_locator(FixedLocator(PROBIT_TICKS))
        ticks.set_minor_locator(NullLocator())
        ticks.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    if axis.percent:
        ticks.set_major_formatter(PercentFormatter(1, decimals=0))


def draw_extremes(
    pixels: np.ndarray, norms: np.ndarray, labels: np.ndarray, predictions: np.ndarray, title: str, count: int = 12
) -> Figure:
    """The `count` images with the highest and the lowest norms, each with its norm; wrong ones in red. CM Fig. 1.

    Pixels are uint8 [N, channels, height, width], the others [N].
    """
    if pixels.ndim != 4 or not norms.shape == labels.shape == predictions.shape == pixels.shape[:1] or not len(norms):
        raise checks.InputError(
            "pixels must be [N, channels, height, width], and norms, labels and predictions [N], with N >= 1; got "
            f"{list(pixels.shape)}, {list(norms.shape)}, {list(labels.shape)} and {list(predictions.shape)}"
        )
    count = min(count, len(norms))
    order = np.argsort(norms, kind="stable")
    figure = Figure(figsize=(1.05 * count, 3.1), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for panels, name, rows in zip(
        axes, ("highest norms", "lowest norms"), (order[::-1][:count], order[:count]), strict=True
    ):
        for axis, row in zip(panels, rows, strict=True):
            axis.imshow(np.moveaxis(pixels[row], 0, -1).squeeze(), cmap="gray", vmin=0, vmax=255)
            wrong = labels[row] != predictions[row]
            classes = f"{labels[row]} → {predictions[row]}" if wrong else f"{labels[row]}"
            axis.set_xlabel(f"{norms[row]:.2f}\n{classes}", fontsize=8, color="tab:red" if wrong else "black")
            axis.set(xticks=[], yticks=[])
        panels[0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure
