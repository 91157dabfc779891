"""A CSV that lists images: columns `path` and `identity`, and if it has them `id`, `score` and ten of landmarks."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from angulus.core.checks import InputError, nearest
from angulus.data.sources.common import (
    IDENTITIES,
    Item,
    LeftOut,
    Remark,
    column_of,
    points,
    row_or_left_out,
    slashed,
    too_long,
)
from angulus.data.sources.damage import OnError
from angulus.data.sources.separated import cells_of
from angulus.evaluation.lists.text import malformed, read_lines

PATHS = ("path", "image", "file", "filename", "file_name", "image_path", "img")
_POINTS = ("le", "re", "n", "lm", "rm")  # left eye, right eye, nose, left and right corner of the mouth
LANDMARKS = (
    tuple(f"{name}_{axis}" for name in _POINTS for axis in "xy"),
    tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy"),
    tuple(f"{name}_{axis}" for name in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"),
)


def read(
    path: Path, root: Path | None = None, id_column: str | None = None, on_error: OnError | None = None
) -> Iterator[Item]:
    """The images that a list names, in its order; by commas, tabs or semicolons, gzipped where the name ends in .gz.

    The path may also be called image, file, filename, file_name, image_path or img, and the identity as in Parquet
    files; capitals do not matter. Landmark columns are le_x, le_y, re_x, re_y, n_x, n_y, lm_x, lm_y, rm_x, rm_y, or
    x1, y1 ... x5, y5, or CelebA's lefteye_x ... rightmouth_y; all ten or none, in pixels of the listed image. Other
    columns are named as left out.

    Args:
        path: the list; its first line names the columns.
        root: the folder that paths are relative to, and that they must not leave; the list's own if None.
        id_column: the column of the rows' ids; None: `id`, or without it the path.
        on_error: what becomes of a line that cannot be read.

    Raises:
        checks.InputError: names file and line: no header, a cell too few or many, a number that is none.
    """
    on_error = on_error or OnError()
    names, lines = read_cells(path, on_error)
    marks = _landmark_columns(path, names)
    where, shown = _column(path, names, "path", PATHS), _column(path, names, "identity", IDENTITIES)
    if id_column is not None and id_column not in names:
        raise InputError(f"id_column must be a column of {path}; got {id_column!r}" + nearest(id_column, names))
    id_name, score_name = id_column or column_of(path, names, "id"), column_of(path, names, "score")
    columns = _Columns(where, shown, id_name, score_name, marks)
    remarks = _remarks(path, names, (where, shown, id_name, score_name, *marks))
    return itertools.chain(remarks, _listed(path, lines, columns, (root or path.parent).resolve(), on_error))


@dataclass(frozen=True)
class _Columns:
    """The headings that are read, None where there is none."""

    path: str
    identity: str
    id: str | None
    score: str | None
    landmarks: tuple[str, ...]


def _listed(
    path: Path,
    lines: Iterator[tuple[int, dict[str, str] | LeftOut]],
    columns: _Columns,
    top: Path,
    on_error: OnError,
) -> Iterator[Item]:
    for number, cell in lines:
        if isinstance(cell, LeftOut):
            yield cell
            continue
        try:
            values = [_number(path, number, name, cell[name]) for name in columns.landmarks]
            stated = cell[columns.score] if columns.score else ""
            score = _number(path, number, "score", stated) if stated else None
        except InputError as error:
            yield on_error.left_out(f"line {number}", error)
            continue
        found = read_listed(top, cell[columns.path])
        if isinstance(found, LeftOut):
            yield found
        else:
            id = (cell[columns.id] if columns.id else "") or None
            landmarks = points(values) if values else None
            yield row_or_left_out(
                cell[columns.path], found, cell[columns.identity], id=id, landmarks=landmarks, score=score
            )


def read_cells(
    path: Path, on_error: OnError | None = None
) -> tuple[list[str], Iterator[tuple[int, dict[str, str] | LeftOut]]]:
    """The columns' names, and each line's number and cells by name.

    Cells are parted by tabs where the first line has one, else by whichever of commas and semicolons it has more of.

    Raises:
        checks.InputError: names file and line: a cell too few or many, a quote that is not closed or stray.
    """
    on_error = on_error or OnError()
    lines = read_lines(path)
    first = lines[0]
    separator = "\t" if "\t" in first else ";" if first.count(";") > first.count(",") else ","
    rows = cells_of(path, lines, separator, on_error)
    _, names = next(rows)
    if isinstance(names, LeftOut):
        raise InputError(names.reason)
    names = [name.strip() for name in names]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} must name each column once; got {twice!r} {names.count(twice)} times")
    return names, _by_name(path, names, rows, on_error)


def _by_name(
    path: Path, names: list[str], rows: Iterator[tuple[int, list[str] | LeftOut]], on_error: OnError
) -> Iterator[tuple[int, dict[str, str] | LeftOut]]:
    for number, cells in rows:
        if isinstance(cells, LeftOut):
            yield number, cells
        elif len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        else:
            error = malformed(path, number, f"{len(names)} cells, as the first line has", f"{len(cells)}")
            yield number, on_error.left_out(f"line {number}", error)


def _column(path: Path, names: Sequence[str], wanted: str, also: tuple[str, ...]) -> str:
    found = column_of(path, names, wanted, also)
    if found is None:
        raise InputError(
            f"{path} must name its columns in the first line, {wanted!r} among them; got {', '.join(names)[:80]!r}"
            + (
                nearest(wanted, names)
                or f"; other names that are known: {', '.join(name for name in also if name != wanted)}"
            )
        )
    return found


def _remarks(path: Path, names: Sequence[str], used: Sequence[str | None]) -> Iterator[Item]:
    read_as = zip(used, ("path", "identity", "id", "score"), strict=False)
    renamed = [f"{name} as {wanted}" for name, wanted in read_as if name is not None and name != wanted]
    if renamed:
        yield Remark(path.name, f"of its columns, {', '.join(renamed)} is read")
    unused = [name for name in names if name not in used]
    if unused:
        yield LeftOut(path.name, f"its columns {', '.join(unused)} have no place in records", image=False)


def read_listed(top: Path, name: str) -> bytes | LeftOut:
    """The bytes of a listed file that lies under `top` (which is resolved), or why it is left out."""
    try:
        full = Path(os.path.normpath(top / name))  # links in the folder may lead out of it; `..` in a list may not
        if "\\" in name and not full.exists():
            full = Path(os.path.normpath(top / slashed(name)))  # written on Windows
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
