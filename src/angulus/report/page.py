"""A report as one HTML page that needs no other file and no network: charts by plotly, which the page holds."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from angulus import __version__
from angulus.core import files
from angulus.report.charts import Chart
from angulus.report.pictures import Picture


@dataclass(frozen=True)
class Table:
    """Rows of text below a head; the first cell of each row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: bool = False  # whether the cells are words, not numbers
    folded: bool = False  # whether a reader unfolds it
    kind: str = "table"


@dataclass(frozen=True)
class Charts:
    """Charts side by side; with `epochs`, names of the frames, a slider moves through them all at once."""

    charts: Sequence[Chart]
    epochs: Sequence[str] = ()
    lengths: bool = False  # whether there is a switch that draws every feature at length 1
    kind: str = "charts"


@dataclass(frozen=True)
class Gallery:
    """Images with a line below each."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Album:
    """Galleries that fold together."""

    title: str
    galleries: Sequence[Gallery]
    unfolded: bool = False
    kind: str = "album"


@dataclass(frozen=True)
class Folded:
    """Text as it is, such as a recipe, which a reader unfolds."""

    title: str
    text: str
    kind: str = "folded"


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    intro: str
    blocks: list[Table | Charts | Album | Folded] = field(default_factory=list)


def write(title: str, about: str, sections: Sequence[Section], path: Path, left_out: Sequence[str] = ()) -> None:
    """Write the page, atomically."""
    page = render(title, about, sections, left_out)
    files.write_atomically(path, lambda file: file.write(page.encode(errors="backslashreplace")))


def render(title: str, about: str, sections: Sequence[Section], left_out: Sequence[str] = ()) -> str:
    """The page as HTML; what is `left_out`, a sentence each, is said above all else.

    Whatever names and recipes hold is shown as it is and never run: the template escapes, data for the charts are JSON
    without any `<`, and the page's own policy lets only its two scripts run and nothing be fetched.
    """
    numbered: list[Chart] = []

    def number(chart: Chart) -> int:
        numbered.append(chart)
        return len(numbered) - 1

    folder = resources.files("angulus.report")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    library = _plotly()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    body = template.render(
        title=title,
        about=about,
        left_out=left_out,
        sections=[each for each in sections if each.blocks],
        number=number,
        charts=lambda: Markup(_json([_plain(chart) for chart in numbered])),  # after all have been numbered
        policy=_policy(library, script),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        version=__version__,
    )
    return body + "\n"


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def _policy(*scripts: str) -> str:
    """A content security policy by which these scripts run, and nothing else does or is loaded."""
    sums = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in sums)
    return (
        f"default-src 'none'; script-src {allowed}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _plain(chart: Chart) -> dict[str, Any]:
    return {"traces": chart.traces, "layout": chart.layout, "frames": chart.frames}


def _json(value: Any) -> str:
    """JSON that may stand in a script element: it holds no `<`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
