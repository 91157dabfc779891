"""A chart as data, without any drawing library; `render_png` and `render_plotly` draw it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLOURS = (  # matplotlib's tab10
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
GREY = "#888888"  # visible on light and on dark
DASHES: tuple[Literal["solid", "dash", "dot"], ...] = ("solid", "dash", "dot")
MOST_IN_SUMMARY = 6  # lines that a summary describes one by one
MOST_LETTERS = 28  # of a name in a legend
PROBIT_TICKS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)  # rates
RUN = "run:"  # begins the group of all series of one run or variant, on all charts of a page
CLASS = "class:"  # begins the group of all series of one class, on the charts next to each other

Values = NDArray[Any] | Sequence[Any]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    label: str = ""
    log: bool = False  # a logarithmic scale
    probit: bool = False  # a scale on which normal scores give straight lines, see `probit`; for rates in (0, 1)
    low: float | None = None  # its limits; None fits them to the data
    high: float | None = None
    percent: bool = False  # ticks are percentages
    whole: bool = False  # its numbers are whole, such as ranks
    names: bool = False  # it has one place per name instead of numbers


@dataclass(frozen=True, eq=False)
class Series:
    """One line, one set of points or bars, one band, or one colour map of a chart."""

    # "steps" is a line that keeps each y up to the next x; a "band" fills the place from `low` to `high`
    kind: Literal["line", "steps", "points", "bars", "band", "map"]
    name: str
    x: Values  # [K]; bars may have names; NaN interrupts a line
    y: Values  # [K]
    z: NDArray[Any] | None = None  # [K] in space; of a map its values in [0, top], [len(y), len(x)], NaN where unknown
    top: float = 1  # of a map: the value at the end of its colours
    colour: str = COLOURS[0]  # as hex
    dash: Literal["solid", "dash", "dot"] = "solid"
    # of points, or of a line that marks its points
    symbol: Literal["", "dot", "ring", "cross", "plus", "tick"] = ""
    size: float = 5  # of the symbol, in pixels of the page
    width: float | None = None  # of a line in pixels, of bars in units of x; None is the default and lets bars touch
    opacity: float = 1
    hatched: bool = False  # bars are hatched instead of filled
    # [K], the ends of an interval along y at each bar or x of a band, or along x at each of the points; NaN where it
    # has none
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    texts: Sequence[str] = ()  # [K], for `hover`; of a map what its cells say, row by row
    hover: str = ""  # what the page shows under the pointer, such as "step {x}: {y:.4g}" or "{text}"
    group: str = ""  # its entry in a page's legend, which switches all series of the group; "" is its name
    in_legend: bool = True  # whether it has an entry; it may be switched by the group's anyway
    samples: Values = ()  # [K], the place in `Chart.samples` of what each point stands for
    right: bool = False  # belongs to the axis on the right
    hidden: bool = False  # the page shows it only when all features are drawn at length 1


@dataclass(frozen=True, eq=False)
class Sheet:
    """Small square pictures on one image, row by row."""

    source: str  # its data URI
    side: int  # of a picture, in pixels
    columns: int


@dataclass(frozen=True, eq=False)
class Samples:
    """What a page shows under the pointer of points that stand for images; each column has one value per image."""

    ids: Sequence[str]
    classes: Sequence[str]  # names, by label
    labels: NDArray[Any]
    predictions: NDArray[Any]
    norms: NDArray[Any]
    degrees: NDArray[Any]
    angle: str  # what the degrees are measured to
    sheet: Sheet | None = None  # the pictures, in the same order


@dataclass(frozen=True, eq=False)
class Chart:
    """One chart: series, drawn in their order, and axes; z makes it one in space, right adds a second y axis."""

    title: str
    series: Sequence[Series]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    z: Axis | None = None
    right: Axis | None = None
    summary: str = ""  # what it shows, in words, for readers who do not see it
    note: str = ""  # what its axes mean
    group: str = ""  # the entry of a page's legend that switches the whole chart
    overlaid: bool = False  # bars of several series lie over each other, as in histograms, instead of side by side
    equal: bool = False  # one unit is equally long on all axes
    mark: float | None = None  # an x at which a dotted line is drawn
    digits: int = 5  # significant digits of the coordinates in the page
    frames: Sequence[Sequence[Sequence[Values]]] = ()  # coordinates that replace the series', by epoch, series and axis
    frame_samples: Sequence[Values] = ()  # by series, the `Series.samples` of all frames
    samples: Samples | None = None


@dataclass(frozen=True, eq=False)
class Panels:
    """Charts that share one picture."""

    charts: Sequence[Chart]
    columns: int = 3  # charts per row, at most
    size: tuple[float, float] = (3.6, 3.5)  # width and height of one chart, in inches
    legend: str = ""  # the title of one legend for all; "" gives each chart its own


def probit(rates: ArrayLike) -> NDArray[np.float64]:
    """Where rates lie on a probit axis: Φ⁻¹(rate), of the standard normal distribution's Φ.

    Source: A. Martin et al., "The DET Curve in Assessment of Detection Task Performance", Eurospeech 1997.

    >>> probit([0.5, 0.8413447460685429]).round(6).tolist()
    [0.0, 1.0]
    """
    from scipy import special  # slow to import, and only these axes need it

    return np.asarray(special.ndtri(np.asarray(rates, dtype=np.float64)))


def probit_inverse(places: ArrayLike) -> NDArray[np.float64]:
    """The rates at these places of a probit axis: Φ(place)."""
    from scipy import special

    return np.asarray(special.ndtr(np.asarray(places, dtype=np.float64)))


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


def shorten_lines(name: str) -> str:
    """A name whose lines are each cut to what a tick has room for."""
    return "\n".join(map(shorten, name.split("\n")))


def summarize(parts: Iterable[str]) -> str:
    """Parts of a sentence; of many, the first few.

    >>> summarize("abc"), summarize("abcdefgh")
    ('a; b; c.', 'a; b; c; d; e; f; and 2 more.')
    """
    parts = list(parts)
    more = [f"and {len(parts) - MOST_IN_SUMMARY} more"] if len(parts) > MOST_IN_SUMMARY else []
    return "; ".join(parts[:MOST_IN_SUMMARY] + more) + "."
