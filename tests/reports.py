"""What reports are made of in tests: quick runs of a few digits with dangerous names, and results with images."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import people
import tiny
from angulus.data import Splits
from angulus.data.sets.images import Images
from angulus.evaluation.protocols import groups, pairs
from angulus.evaluation.protocols.result import Result
from angulus.experiments.run import run
from angulus.report.chart import Chart
from angulus.report.render_plotly import render_plotly

EVIL = "<script>evil()</script>"
NAMES = (
    EVIL,
    "</script><script>evil()</script>",
    '"><img src=x onerror=evil()>',
    "'];evil();//",
    "<a href='javascript:evil()'>click</a>",
    "%{x} &lt;b&gt; {{ 7*7 }}",
    "six\u2028\u202e",
    "<!--",
    "]]>",
    "9",
)


def splits() -> Splits:
    """The few digits, their classes called what would run if a page let it."""
    plain = tiny.splits()
    train, test = (Images(each.pixels, each.labels, NAMES) for each in (plain.train, plain.test))
    return Splits(plain.name, train, test, f"digits {EVIL}")


def train(folder: Path, *overrides: str) -> Path:
    """A run in that folder, in a tenth of a second."""
    run(tiny.validated(*overrides), folder, splits=splits())
    return folder


def result(folder: Path, name: str = "crowd", *, grouped: bool = False) -> Path:
    """A saved result of pairs, or of pairs in two groups."""
    crowd = people.crowd()
    listed = people.crowd_pairs(crowd, grouped=grouped)
    found: Result = (groups if grouped else pairs).evaluate(crowd, listed, draws=20)
    found.save(folder / f"{name}.json")
    return folder / f"{name}.json"


def photos(folder: Path) -> Path:
    """An image for each of the crowd, by its id, each of a grey of its own."""
    for place, name in enumerate(people.crowd().ids.tolist()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 40, 3), 5 * place, np.uint8))
    return folder


VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements with their attributes and the text in them, in order; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, said in self._open:
            said.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(said)) for name, attrs, said in self.elements if name == tag]


def charts(page: Page) -> list[dict[str, Any]]:
    """What the page gives plotly to draw."""
    (data,) = (said for attrs, said in page.all("script") if attrs.get("type") == "application/json")
    return json.loads(data)["charts"]


def traces(chart: Chart) -> list[dict[str, Any]]:
    """What plotly is given of one chart."""
    return render_plotly(chart)["traces"]


def layout(chart: Chart) -> dict[str, Any]:
    """How plotly lays it out."""
    return render_plotly(chart)["layout"]
