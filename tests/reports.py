"""What reports are made of in tests: quick runs of a few digits with dangerous names, and results with images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import people
import tiny
from angulus.data import Splits
from angulus.data.images import Images
from angulus.protocols import groups, pairs
from angulus.protocols.result import Result
from angulus.run import run

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
