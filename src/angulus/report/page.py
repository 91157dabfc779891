"""A report as one HTML page that needs no other file and no network; plotly's JavaScript in it draws the charts."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from angulus import __version__
from angulus.report.chart import Chart
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
    kind: str = "charts"


@dataclass(frozen=True)
class Album:
    """Groups of captioned thumbnails, by title, which fold together."""

    title: str
    groups: dict[str, list[Captioned]]
    unfolded: bool = False
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
    blocks: list[Table | Charts | Album | Folded] = field(default_factory=list)


def render(title: str, about: str, sections: Sequence[Section], left_out: Sequence[str] = ()) -> str:
    """The page as HTML, with the sentences of `left_out` at the top.

    Names and recipes may hold anything: they are shown as they are and never run. The template escapes them, the JSON
    of the charts has no `<`, and the page's security policy runs only its own two scripts and loads nothing.
    """
    charts: list[Chart] = []

    def number(chart: Chart) -> int:
        charts.append(chart)
        return len(charts) - 1

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
        sections=[section for section in sections if section.blocks],
        number=number,
        charts=lambda: Markup(_json([render_plotly(chart) for chart in charts])),  # after all have been numbered
        policy=_policy(library, script),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        version=__version__,
    )
    return page + "\n"


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
