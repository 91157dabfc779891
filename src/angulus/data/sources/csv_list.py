"""A CSV that lists images: columns `path` and `identity`, and if it has them `id`, `score` and ten of landmarks."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from angulus.checks import InputError, nearest
from angulus.data.sources.common import Item, LeftOut, points, row_or_left_out, too_long
from angulus.lists.text import malformed, read_lines

COLUMNS = ("path", "identity", "id", "score")
_POINTS = ("le", "re", "n", "lm", "rm")  # left eye, right eye, nose, left and right corner of the mouth
LANDMARKS = (
    tuple(f"{name}_{axis}" for name in _POINTS for axis in "xy"),
    tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy"),
    tuple(f"{name}_{axis}" for name in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"),
)


def read(path: Path, root: Path | None = None) -> Iterator[Item]:
    """The images that a list names, in its order; commas or tabs, gzipped where the name ends in .gz.

    Landmark columns are le_x, le_y, re_x, re_y, n_x, n_y, lm_x, lm_y, rm_x, rm_y, or x1, y1 ... x5, y5, or CelebA's
    lefteye_x ... rightmouth_y; all ten or none, in pixels of the listed image. Other columns are named as left out.

    Args:
        path: the list; its first line names the columns.
        root: the folder that paths are relative to, and that they must not leave; the list's own if None.

    Raises:
        checks.InputError: names file and line: no header, a cell too few or many, a number that is none.
    """
    names, lines = read_cells(path)
    marks = _landmark_columns(path, names)
    for name in ("path", "identity"):
        if name not in names:
            raise InputError(
                f"{path} must name its columns in the first line, {name!r} among them; got {', '.join(names)[:80]!r}"
                + nearest(name, names)
            )
    unused = [name for name in names if name not in COLUMNS and name not in marks]
    if unused:
        yield LeftOut(path.name, f"its columns {', '.join(unused)} have no place in records", image=False)
    top = (root or path.parent).resolve()
    for number, cell in lines:
        values = [_number(path, number, name, cell[name]) for name in marks]
        score = _number(path, number, "score", cell["score"]) if cell.get("score") else None
        found = read_listed(top, cell["path"])
        if isinstance(found, LeftOut):
            yield found
        else:
            landmarks = points(values) if marks else None
            id = cell.get("id") or None
            yield row_or_left_out(cell["path"], found, cell["identity"], id=id, landmarks=landmarks, score=score)


def read_cells(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns' names, and each line's number and cells by name; commas or tabs, gzipped where it ends in .gz.

    Raises:
        checks.InputError: names file and line: a cell too few or many.
    """
    lines = read_lines(path)
    separator = "\t" if "\t" in lines[0] else ","
    names = next(csv.reader([lines[0]], delimiter=separator))
    return names, _cells(path, names, csv.reader(lines[1:], delimiter=separator))


def _cells(path: Path, names: list[str], reader: Any) -> Iterator[tuple[int, dict[str, str]]]:
    for cells in reader:
        number = reader.line_num + 1
        if len(cells) != len(names):
            raise malformed(path, number, f"{len(names)} cells, as the first line has", f"{len(cells)}")
        yield number, dict(zip(names, cells, strict=True))


def read_listed(top: Path, name: str) -> bytes | LeftOut:
    """The bytes of a listed file that lies under `top` (which is resolved), or why it is left out."""
    try:
        full = Path(os.path.normpath(top / name))  # links in the folder may lead out of it; `..` in a list may not
        if not full.is_relative_to(top):
            return LeftOut(name, f"its path leaves {top}; pass the folder that holds all as root")
        if not full.is_file():
            return LeftOut(name, f"there is no such file in {top}")
        reason = too_long(full.stat().st_size)
        return LeftOut(name, reason) if reason else full.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return LeftOut(name, f"it cannot be read: {error}")


def _landmark_columns(path: Path, names: list[str]) -> tuple[str, ...]:
    for marks in LANDMARKS:
        missing = [name for name in marks if name not in names]
        if not missing:
            return marks
        if len(missing) < len(marks):
            raise InputError(f"{path} must have all ten landmark columns or none; it lacks {', '.join(missing)}")
    return ()


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise malformed(path, line, f"a finite number under {name}", text)
    return value
