"""Lists of images without headings.

MXNet's `.lst`, by tabs: `index label path`, or the face recipes' `aligned path label [box landmarks]`. MagFace's, by
spaces or tabs: `path 0 label 0`; or `path label`, as many tools write it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.data.sources.csv_list import read_listed
from angulus.data.sources.items import Item, SourceOptions, points
from angulus.evaluation.lists.text import malformed, read_lines

_NAME = r"([^\t]+\.(?:jpe?g|png|webp|bmp|tiff?|gif|heic|avif))"
_BY_PATH = re.compile(_NAME + r"[ \t]+(?:0[ \t]+(\S+)[ \t]+0|(\S+))[ \t]*", re.I)


class Line(NamedTuple):
    """One image of a list: its key if the list has keys, path, label, and landmarks if it has them."""

    key: int | None
    path: str
    label: str
    landmarks: NDArray[np.float32] | None = None


def read(path: Path, options: SourceOptions) -> Iterator[Item]:
    """The images that a list names, in its order; `InputError` names file and line."""
    top = (options.root or path.parent).resolve()
    for number, text in enumerate(read_lines(path), 1):
        try:
            line = _parse(path, number, text)
        except InputError as error:
            yield options.left_out(f"line {number}", error)
            continue
        yield read_listed(top, line.path, line.label, landmarks=line.landmarks)


def read_keys(path: Path) -> dict[int, str]:
    """Key -> path of a list with keys, empty if it has none or is missing; `InputError` names file and line."""
    if not path.is_file():
        return {}
    lines = (_parse(path, number, text) for number, text in enumerate(read_lines(path), 1))
    return {line.key: line.path for line in lines if line.key is not None}


def _parse(path: Path, number: int, text: str) -> Line:
    """One line. If the second cell is a number it is the label, as MXNet's own tool writes lists."""
    cells = text.split("\t")
    if len(cells) == 3 and (key := digits(cells[0])) is not None and (label := whole(cells[1])) is not None:
        return Line(key, cells[2], label)
    face_label = whole(cells[2]) if len(cells) in (3, 7, 17) and cells[0] in ("0", "1") else None
    if face_label is not None:
        return Line(None, cells[1], face_label, _landmarks(path, number, cells[7:]))
    by_path = _BY_PATH.fullmatch(text)
    if by_path is None:
        tabs = "`index label path` or `aligned path label`, the latter with a box and landmarks or without, by tabs"
        raise malformed(path, number, f"{tabs}; or `path 0 label 0` or `path label`", text)
    stated = by_path[2] or by_path[3]
    return Line(None, by_path[1], whole(stated) or stated)


def digits(text: str) -> int | None:
    """A whole number written in up to 18 digits 0 to 9; None for anything else.

    >>> digits("12"), digits("\u00b2"), digits("9" * 5000)
    (12, None, None)
    """
    text = text.strip()
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def whole(text: str) -> str | None:
    """A label such as `7` or `7.000000` as its digits; None if it is not a whole number.

    >>> whole("7.000000"), whole("9007199254740993"), whole("7.5")
    ('7', '9007199254740993', None)
    """
    exact = digits(text)
    if exact is not None:
        return str(exact)  # a float would round it from 2 ** 53
    try:
        value = float(text)
    except ValueError:
        return None
    return str(int(value)) if math.isfinite(value) and value == int(value) else None


def _landmarks(path: Path, number: int, cells: list[str]) -> NDArray[np.float32] | None:
    if not cells:
        return None
    try:
        return points([float(cell) for cell in cells], planar=True)
    except ValueError as error:
        raise malformed(path, number, "ten landmark numbers, x1 ... x5 y1 ... y5", "\t".join(cells)) from error
