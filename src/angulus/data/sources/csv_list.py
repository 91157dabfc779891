"""A CSV that lists images: columns `path` and `identity`, and optionally `id`, `score` and ten of landmarks."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from angulus.core.checks import InputError, nearest
from angulus.data.records import Place
from angulus.data.sources import items
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions
from angulus.evaluation.lists.cells import separator_of, split_rows
from angulus.evaluation.lists.text import malformed, read_lines

PATHS = ("path", "image", "file", "filename", "file_name", "image_path", "img")
_POINTS = ("le", "re", "n", "lm", "rm")  # left eye, right eye, nose, left and right corner of the mouth
_LANDMARKS = (
    tuple(f"{name}_{axis}" for name in _POINTS for axis in "xy"),
    tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy"),
    tuple(f"{name}_{axis}" for name in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"),
)

Lines = Iterator[tuple[int, dict[str, str] | LeftOut]]


class _Headings(NamedTuple):
    """The headings to read, None if there is none."""

    path: str
    identity: str
    id: str | None
    score: str | None
    landmarks: tuple[str, ...]


def read(path: Path, options: SourceOptions) -> Iterator[Item]:
    """The images that a list names, in its order; by commas, tabs or semicolons, gzipped if the name ends in .gz.

    The path may also be called image, file, filename, file_name, image_path or img, and the identity as in Parquet
    files; case does not matter. Landmark columns are le_x, le_y, re_x, re_y, n_x, n_y, lm_x, lm_y, rm_x, rm_y, or
    x1, y1 ... x5, y5, or CelebA's lefteye_x ... rightmouth_y; all ten or none, in pixels of the listed image. Other
    columns are named as left out.
    """
    names, lines = read_cells(path, options)
    marks = _landmark_columns(path, names)
    check_columns(options, path, names)
    image = options.image_column or _column(path, names, "path", PATHS)
    needed = image, options.label_column or _column(path, names, "identity", items.IDENTITIES)
    id = options.id_column or items.column_of(path, names, "id")
    headings = _Headings(*needed, id, items.column_of(path, names, "score"), marks)
    top = (options.root or path.parent).resolve()
    asked = (options.image_column, options.label_column)
    return itertools.chain(_remarks(path, names, headings, asked), _read(path, lines, headings, top, options))


def _read(path: Path, lines: Lines, headings: _Headings, top: Path, options: SourceOptions) -> Iterator[Item]:
    for number, cell in lines:
        if isinstance(cell, LeftOut):
            yield cell
            continue
        try:
            values = [_number(path, number, name, cell[name]) for name in headings.landmarks]
            stated = cell[headings.score] if headings.score else ""
            score = _number(path, number, "score", stated) if stated else None
        except InputError as error:
            yield options.left_out(f"line {number}", error)
            continue
        name, id = cell[headings.path], (cell[headings.id] if headings.id else "") or None
        landmarks = items.points(values) if values else None
        yield read_listed(top, name, cell[headings.identity], id=id, landmarks=landmarks, score=score)


def read_cells(path: Path, options: SourceOptions | None = None) -> tuple[list[str], Lines]:
    """The columns' names, and each line's number and cells by name.

    Cells are separated by tabs if the first line has one, else by commas or semicolons, whichever it has more of.
    """
    options = options or SourceOptions()
    lines = read_lines(path)
    rows = cells_of(path, lines, separator_of(lines[0]), options)
    _, names = next(rows)
    if isinstance(names, LeftOut):
        raise InputError(names.reason)
    names = [name.strip() for name in names]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} must name each column once; got {twice!r} {names.count(twice)} times")

    def by_name() -> Lines:
        for number, cells in rows:
            if isinstance(cells, LeftOut):
                yield number, cells
            elif len(cells) == len(names):
                yield number, dict(zip(names, cells, strict=True))
            else:
                error = malformed(path, number, f"{len(names)} cells, as the first line has", f"{len(cells)}")
                yield number, options.left_out(f"line {number}", error)

    return names, by_name()


def cells_of(
    path: Path, lines: Sequence[str], separator: str, options: SourceOptions
) -> Iterator[tuple[int, list[str] | LeftOut]]:
    """Each line's number, from 1, and its cells; a malformed line is left out, or refused, as the options say."""
    for number, cells in split_rows(path, lines, separator):
        yield number, options.left_out(f"line {number}", cells) if isinstance(cells, InputError) else cells


def check_column(option: str, name: str | None, path: Path, names: Sequence[str]) -> None:
    """Refuse an option that names a column which a file does not have."""
    if name is not None and name not in names:
        there = f"; its columns are {', '.join(names):.300}"
        raise InputError(f"{option} must be a column of {path}; got {name!r}{nearest(name, names)}{there}")


def check_columns(options: SourceOptions, path: Path, names: Sequence[str]) -> None:
    """Refuse columns that the options name and a file does not have."""
    for option in ("id_column", "image_column", "label_column"):
        check_column(option, getattr(options, option), path, names)


def name_it(option: str) -> str:
    """How to name a column that has none of the usual names."""
    return f"or name the column: data.{option} in a recipe, --{option.replace('_', '-')} of angulus convert"


def _column(path: Path, names: Sequence[str], wanted: str, also: tuple[str, ...]) -> str:
    column = items.column_of(path, names, wanted, also)
    if column is None:
        others = f"; other names that are known: {', '.join(name for name in also if name != wanted)}"
        rule = f"{path} must name its columns in the first line, {wanted!r} among them"
        option = "image_column" if wanted == "path" else "label_column"
        got = f"got {', '.join(names)[:80]!r}{nearest(wanted, names) or others}"
        raise InputError(f"{rule}; {got}; {name_it(option)}")
    return column


def _remarks(path: Path, names: Sequence[str], headings: _Headings, asked: Sequence[str | None]) -> Iterator[Item]:
    used = (headings.path, headings.identity, headings.id, headings.score)
    read_as = zip(used, ("path", "identity", "id", "score"), strict=True)
    renamed = [f"{name!r} is taken as {wanted}" for name, wanted in read_as if name not in (None, wanted, *asked)]
    if renamed:
        yield Remark(path.name, f"column {', '.join(renamed)}")
    yield from unused_columns(path, names, (*used, *headings.landmarks))


def unused_columns(path: Path, names: Sequence[str], used: Sequence[str | None]) -> Iterator[LeftOut]:
    """One item that names the columns that records have no place for, if there are any."""
    unused = [name for name in names if name not in used]
    if unused:
        yield LeftOut(path.name, f"its columns {', '.join(unused)} have no place in records", image=False)


def read_listed(top: Path, name: str, identity: str, **labels: Any) -> Item:
    """The row of a listed file, with labels as `row_or_left_out` takes them; it must lie under `top` (resolved)."""
    try:
        full = Path(os.path.normpath(top / name))  # links in the folder may lead out of it; `..` in a list may not
        if "\\" in name and not full.exists():
            full = Path(os.path.normpath(top / items.slashed(name)))  # written on Windows
        if not full.is_relative_to(top):
            return LeftOut(name, f"its path leaves {top}; pass the folder that holds all as root")
        if not full.is_file():
            return LeftOut(name, f"there is no such file in {top}; root names another folder")
        size = full.stat().st_size
        if reason := items.too_long(size):
            return LeftOut(name, reason)
        return items.row_or_left_out(name, full.read_bytes(), identity, place=Place(full, 0, size), **labels)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return LeftOut(name, f"it cannot be read: {error}")


def _landmark_columns(path: Path, names: list[str]) -> tuple[str, ...]:
    for marks in _LANDMARKS:
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
