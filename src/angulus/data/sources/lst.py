"""MXNet's `.lst` of images: `index label path`, or the face recipes' `aligned path label [box landmarks]`, by tabs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.data.sources.common import Item, LeftOut, points, row_or_left_out
from angulus.data.sources.csv_list import read_listed
from angulus.lists.text import malformed, read_lines


@dataclass(frozen=True, eq=False)
class Line:
    """One image of a list: its key if the list has keys, path, label, and landmarks if it has them."""

    key: int | None
    path: str
    label: str
    landmarks: NDArray[np.float32] | None = None


def read(path: Path, root: Path | None = None) -> Iterator[Item]:
    """The images that a list names, in its order.

    Args:
        path: the list.
        root: the folder that paths are relative to, and that they must not leave; the list's own if None.

    Raises:
        checks.InputError: names file and line.
    """
    top = (root or path.parent).resolve()
    for line in lines(path):
        found = read_listed(top, line.path)
        if isinstance(found, LeftOut):
            yield found
        else:
            yield row_or_left_out(line.path, found, line.label, landmarks=line.landmarks)


def lines(path: Path) -> Iterator[Line]:
    """The lines of a list. Where the second cell is a number it is the label, as MXNet's own tool writes lists.

    Raises:
        checks.InputError: names file and line.
    """
    for number, text in enumerate(read_lines(path), 1):
        cells = text.split("\t")
        if len(cells) == 3 and cells[0].isdigit() and (label := whole(cells[1])) is not None:
            yield Line(int(cells[0]), cells[2], label)
            continue
        named = whole(cells[2]) if len(cells) in (3, 7, 17) and cells[0] in ("0", "1") else None
        if named is None:
            rule = "`index label path` or `aligned path label`, the latter with a box and landmarks or without, by tabs"
            raise malformed(path, number, rule, text)
        yield Line(None, cells[1], named, _landmarks(path, number, cells[7:]))


def whole(text: str) -> str | None:
    """A label such as `7` or `7.000000` as its digits; None if it is no whole number.

    >>> whole("7.000000"), whole("7.5")
    ('7', None)
    """
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
