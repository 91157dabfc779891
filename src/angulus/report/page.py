"""A report as one HTML page that needs no other file and no network; plotly's JavaScript in it draws the charts."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from angulus import __version__
from angulus.report import legends
from angulus.report.chart import Chart, Sheet
from angulus.report.render_plotly import render_plotly
from angulus.report.thumbnails import Captioned


@dataclass(frozen=True)
class Table:
    """Rows of text below a head; the first cell of each row is its name."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()  # sentences below it
    words: bool = False  # the cells are words instead of numbers
    folded: bool = False  # a reader has to unfold it
    kind: str = "table"  # for the template


@dataclass(frozen=True)
class Charts:
    """Charts side by side; `epochs` are the stops of a slider, `lengths` adds a switch that sets all lengths to 1."""

    charts: Sequence[Chart]
    epochs: Sequence[str] = ()
    lengths: bool = False
    title: str = ""  # charts with a title are folded
    kind: str = "charts"


@dataclass(frozen=True)
class Words:
    """Sentences, the first of them large."""

    lines: Sequence[str]
    title: str = ""
    kind: str = "words"


@dataclass(frozen=True)
class Album:
    """Groups of captioned thumbnails, by title, which fold together."""

    title: str
    groups: dict[str, list[Captioned]]
    unfolded: bool = False
    rows: bool = False  # each of several thumbnails has a row of its own
    kind: str = "album"


@dataclass(frozen=True)
class Folded:
    """Text shown as it is, such as a recipe, which a reader unfolds."""

    title: str
    text: str
    kind: str = "folded"


@dataclass(frozen=True)
class Section:
    """A part of the page, shown if it has blocks."""

    anchor: str
    title: str
    intro: str
    blocks: list[Table | Charts | Words | Album | Folded] = field(default_factory=list)


def render(title: str, about: str, sections: Sequence[Section], left_out: Sequence[str] = ()) -> str:
    """The page as HTML, with the sentences of `left_out` at the top.

    Names and recipes may hold anything: they are shown as they are and never run. The template escapes them, the JSON
    of the charts has no `<`, and the page's security policy runs only its own two scripts and loads nothing.
    """
    sections = [section for section in sections if section.blocks]
    looks = legends.assign([chart for section in sections for chart in _charts(section)])
    sections = [replace(section, blocks=[_dressed(block, looks) for block in section.blocks]) for section in sections]
    drawn = _DrawnCharts()

    from plotly.offline import get_plotlyjs

    folder = resources.files("angulus.report")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    library: str = get_plotlyjs()
    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = env.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        about=about,
        left_out=left_out,
        sections=sections,
        number=drawn.add,
        height=_height,
        legend=legends.page_entries(looks),
        block_legend=legends.block_entries,
        charts=drawn.to_json,  # after all have been numbered
        policy=_policy(library, script),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        version=__version__,
    )
    return page + "\n"


@dataclass(frozen=True)
class _DrawnCharts:
    """The charts that the template has placed so far, and the sheets of pictures that they share."""

    charts: list[dict[str, Any]] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)

    def add(self, chart: Chart) -> int:
        """Draw a chart; returns its number."""
        self.charts.append(render_plotly(chart))
        if chart.samples is not None and chart.samples.sheet is not None:
            if chart.samples.sheet not in self.sheets:
                self.sheets.append(chart.samples.sheet)
            self.charts[-1]["samples"]["sheet"] = self.sheets.index(chart.samples.sheet)
        return len(self.charts) - 1

    def to_json(self) -> Markup:
        """All of them, for page.js."""
        return Markup(_json({"charts": self.charts, "sheets": [asdict(sheet) for sheet in self.sheets]}))


def _dressed(block: Any, looks: legends.Looks) -> Any:
    """The block; charts with the colours of the page's runs."""
    return replace(block, charts=legends.dress(block.charts, looks)) if isinstance(block, Charts) else block


def _charts(section: Section) -> list[Chart]:
    return [chart for block in section.blocks if isinstance(block, Charts) for chart in block.charts]


def _height(chart: Chart) -> float:
    """Of the drawing, in rem: three for each name on the y axis."""
    names = {name for series in chart.series for name in series.y} if chart.y.names else ()
    return 5 + 3.2 * len(names) if names else 24


def _policy(*scripts: str) -> str:
    """A content security policy that runs these scripts only, and loads nothing."""
    sums = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{sum_}'" for sum_ in sums)
    return (
        f"default-src 'none'; script-src {allowed}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON without any `<`, so that it may stand in a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
