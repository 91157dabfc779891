"""A chart as data, without any drawing library; `render_png` and `render_plotly` draw it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

COLOURS = (  # matplotlib's tab10
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
GREY = "#888888"  # visible on light and on dark
DASHES: tuple[Literal["solid", "dash", "dot"], ...] = ("solid", "dash", "dot")
MOST_IN_SUMMARY = 6  # lines that a summary describes one by one
MOST_LETTERS = 28  # of a name in a legend

Values = NDArray[Any] | Sequence[Any]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: printed next to it.
        log: whether its scale is logarithmic.
        low, high: its limits; None fits them to the data.
        percent: whether its ticks are percentages.
        whole: whether its numbers are whole, such as ranks.
        names: whether it has one place per name instead of numbers.
    """

    label: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None
    percent: bool = False
    whole: bool = False
    names: bool = False


@dataclass(frozen=True, eq=False)
class Series:
    """One line, one set of points or bars, or one colour map of a chart.

    Attributes:
        kind: what is drawn; "steps" is a line that keeps each y up to the next x.
        name: its name in the legend.
        x, y, z: [K] coordinates, z only in space; NaN interrupts a line. The z of a map is [len(y), len(x)] in [0, 1].
        colour: as hex, such as "#1f77b4".
        dash: of a line.
        symbol: of points, or of a line that marks its points; "" marks none.
        size: of the symbol, in pixels of the page.
        width: of a line in pixels, or of bars in units of x; None is the default, and lets bars touch.
        opacity: from 0 to 1.
        hatched: whether bars are hatched instead of filled.
        low, high: [K], the ends of an interval at each bar, NaN where it has none.
        texts: [K] for `hover`.
        hover: what the page shows under the pointer, such as "step {x}: {y:.4g}" or "{text}"; "" shows nothing.
        group: series of one group are switched on and off together in the page's legend.
        in_legend: whether the legend lists it.
        right: whether it belongs to the axis on the right.
        hidden: whether the page shows it only when all features are drawn at length 1.
    """

    kind: Literal["line", "steps", "points", "bars", "map"]
    name: str
    x: Values
    y: Values
    z: NDArray[Any] | None = None
    colour: str = COLOURS[0]
    dash: Literal["solid", "dash", "dot"] = "solid"
    symbol: Literal["", "dot", "ring", "cross", "plus"] = ""
    size: float = 5
    width: float | None = None
    opacity: float = 1
    hatched: bool = False
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    texts: Sequence[str] = ()
    hover: str = ""
    group: str = ""
    in_legend: bool = True
    right: bool = False
    hidden: bool = False


@dataclass(frozen=True, eq=False)
class Chart:
    """One chart.

    Attributes:
        title: printed above it.
        series: what it shows, drawn in this order.
        x, y: its axes.
        z: the third axis of a chart in space.
        right: a second y axis, on the right.
        summary: what it shows, in a sentence or two, for readers who do not see it.
        overlaid: whether the bars of several series lie over each other, as histograms do, or side by side.
        equal: whether one unit is equally long on all axes.
        mark: an x at which a dotted line is drawn.
        digits: significant digits of the coordinates in the page.
        frames: coordinates that replace those of the series, by epoch, series and axis.
    """

    title: str
    series: Sequence[Series]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    z: Axis | None = None
    right: Axis | None = None
    summary: str = ""
    overlaid: bool = False
    equal: bool = False
    mark: float | None = None
    digits: int = 5
    frames: Sequence[Sequence[Sequence[Values]]] = ()


@dataclass(frozen=True, eq=False)
class Panels:
    """Charts that share one picture.

    Attributes:
        charts: in reading order.
        columns: charts per row, at most.
        size: width and height of one chart, in inches.
        legend: the title of one legend for all; "" gives each chart its own.
    """

    charts: Sequence[Chart]
    columns: int = 3
    size: tuple[float, float] = (3.6, 3.5)
    legend: str = ""


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of the line with this number: ten colours, first solid, then dashed, then dotted."""
    return {"colour": COLOURS[number % 10], "dash": DASHES[number // 10 % 3]}


def shorten(name: object) -> str:
    """A name cut to what a legend has room for.

    >>> shorten("a very long name that no legend has room for")
    'a very long name that no le…'
    """
    name = str(name)
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def summarize(parts: Iterable[str]) -> str:
    """Parts of a sentence; of many, the first few.

    >>> summarize("abc"), summarize("abcdefgh")
    ('a; b; c.', 'a; b; c; d; e; f; and 2 more.')
    """
    parts = list(parts)
    more = [f"and {len(parts) - MOST_IN_SUMMARY} more"] if len(parts) > MOST_IN_SUMMARY else []
    return "; ".join(parts[:MOST_IN_SUMMARY] + more) + "."
