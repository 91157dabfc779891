"""CSV files whose first line names their columns: the columns that detections are read from."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError, nearest, shown
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.cells import separator_of, split_rows
from angulus.evaluation.lists.text import first_line, malformed, read_lines

Path = str | os.PathLike[str]

# By what a column holds: the names it is known by, in any case. A size is any column that begins with "diameter" or
# "radius". The names of a case go from the smallest part to the largest: of scan and patient, the scan is the case.
NAMES: dict[str, tuple[str, ...]] = {
    "case": (
        *("case", "case_id", "image", "image_id", "slide", "slide_id", "file", "filename", "scan", "scan_id"),
        *("seriesuid", "series_uid", "series", "study", "study_id", "patient", "patient_id"),
    ),
    "x": ("x", "coordx", "x_mm", "x_px", "center_x", "centre_x"),
    "y": ("y", "coordy", "y_mm", "y_px", "center_y", "centre_y"),
    "z": ("z", "coordz", "z_mm", "center_z", "centre_z"),
    "score": ("score", "probability", "prob", "confidence", "likelihood"),
    "diameter": (),
    "radius": (),
    "ignore": ("ignore", "ignored", "excluded"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
}
SIZES = ("diameter", "radius")
_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_MISSPELT = 0.8  # how alike a column that is not read and a name must be: a note is no misspelt "ignore"
_UNMEASURED = ("", "-1")  # cells of a size; LUNA16 writes -1


class Table:
    """The rows of a file, with the place of each column that is read."""

    def __init__(
        self,
        path: Path,
        rows: Sequence[tuple[int, list[str]]],
        needed: Sequence[str],
        optional: Sequence[str],
        columns: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self.path = path
        self.names = rows[0][1]
        twice = next((name for name in self.names if name and self.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{os.fspath(path)} must name each column once; got {shown(twice)} twice")
        keys = [key for name in needed for key in (SIZES if " " in name else (name,))]
        self.places = {key: self._place(key, columns) for key in dict.fromkeys([*keys, *optional])}
        if self.places.get("patient") == self.places.get("case"):
            self.places["patient"] = None
        for name in needed:
            if all(self.places[key] is None for key in (SIZES if " " in name else (name,))):
                raise self._missing(name)
        sizes = [key for key in SIZES if self.places.get(key) is not None]
        if len(sizes) == 2:
            chosen = [key for key in sizes if key in columns]
            if len(chosen) != 1:
                raise InputError(
                    f"{os.fspath(path)} has a diameter and a radius, {', '.join(map(self.column, sizes))[:200]}; name "
                    f"the one to read: --column diameter={self.column('diameter')[:80]}"
                )
            self.places["radius" if chosen == ["diameter"] else "diameter"] = None
        self.lines, self.rows = [number for number, _ in rows[1:]], [cells for _, cells in rows[1:]]
        read = [key for key, place in self.places.items() if place is not None]
        renamed = [f"{key} is {self.column(key)}" for key in read if self.column(key) != key]
        absent = [key for key in optional if self.places[key] is None]
        unused = [
            f"{name}{nearest(name, absent, least=_MISSPELT)}"
            for name in filter(None, self.names)
            if name not in map(self.column, read)
        ]
        if renamed or unused:
            said = [", ".join(renamed)] * bool(renamed) + [f"not read: {', '.join(unused)}"] * bool(unused)
            report(f"{os.fspath(path)}: {'; '.join(said)}")

    def column(self, key: str) -> str:
        """The name of a column that is read."""
        place = self.places[key]
        return "" if place is None else self.names[place]

    def _place(self, key: str, columns: Mapping[str, str]) -> int | None:
        if key in columns and columns[key] in self.names:
            return self.names.index(columns[key])
        lower = [name.lower() for name in self.names]
        if key in SIZES:
            sizes = [place for place, name in enumerate(lower) if name.startswith(key)]
            if len(sizes) > 1:
                several = ", ".join(self.names[place] for place in sizes)[:200]
                raise InputError(
                    f"{os.fspath(self.path)} has several columns of a {key}: {several}; name the one to read: --column "
                    f"{key}={self.names[sizes[0]][:80]}"
                )
            return sizes[0] if sizes else None
        return next((lower.index(name) for name in NAMES[key] if name in lower), None)

    def _missing(self, name: str) -> InputError:
        keys = SIZES if " " in name else (name,)
        known = [word for key in keys for word in NAMES[key] or (key,)]
        close = next(filter(None, (get_close_matches(word, self.names, n=1) for word in known)), ["NAME"])[0]
        meant = f"if it is {close!r}" if close != "NAME" else "if it has another name"
        way = f"{meant}, add --column {keys[0]}={close}" + ("; or give one --distance for all" * (" " in name))
        return InputError(
            f"{os.fspath(self.path)} must name a column of the {name}, such as {', '.join(known[:6])}, in its first "
            f"line, between commas, tabs or semicolons; got {', '.join(self.names)[:200]!r}; {way}"
        )

    def _cells(self, key: str) -> Iterator[tuple[int, str]]:
        place = self.places[key]
        assert place is not None
        return ((line, cells[place]) for line, cells in zip(self.lines, self.rows, strict=True))

    def text(self, key: str) -> NDArray[np.str_]:
        """A column of names, none of them empty."""
        for line, cell in self._cells(key):
            if not cell:
                raise malformed(self.path, line, f"a row with a {key} under {self.column(key)[:80]}", "")
        return text_array([cell for _, cell in self._cells(key)])

    def optional_text(self, key: str) -> NDArray[np.str_] | None:
        """A column of names, "" where one is empty, or None if there is no such column."""
        return None if self.places[key] is None else text_array([cell for _, cell in self._cells(key)])

    def numbers(self, key: str, empty: Sequence[str] = ()) -> NDArray[np.float64]:
        """A column of finite numbers; NaN for the cells of `empty`."""
        values = []
        for line, cell in self._cells(key):
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if cell in empty:
                value = math.nan
            elif not math.isfinite(value):
                hint = " (with a decimal point)" if "," in cell else ""
                raise malformed(
                    self.path, line, f"a row with a finite number under {self.column(key)[:80]}{hint}", cell
                )
            values.append(value)
        return np.array(values, dtype=np.float64)

    def centres(self) -> NDArray[np.float64]:
        """The coordinates [N, D]."""
        axes = ("x", "y") if self.places["z"] is None else ("x", "y", "z")
        return np.stack([self.numbers(axis) for axis in axes], axis=1)

    def diameters(self) -> NDArray[np.float64]:
        """The diameters [N], of a column of diameters or of radii; all NaN without either."""
        key = next((key for key in SIZES if self.places[key] is not None), None)
        if key is None:
            return np.full(len(self.rows), math.nan)
        values = self.numbers(key, _UNMEASURED)
        if (values <= 0).any():
            row = int(np.flatnonzero(values <= 0)[0])
            rule = f"a lesion with a {key} > 0, or empty or -1 where it was not measured"
            raise malformed(self.path, self.lines[row], rule, float(values[row]))
        return values if key == "diameter" else 2 * values

    def flags(self, key: str) -> NDArray[np.bool_]:
        """A column of flags [N]; all False without it."""
        if self.places[key] is None:
            return np.zeros(len(self.rows), dtype=bool)
        for line, cell in self._cells(key):
            if cell.lower() not in _FLAGS:
                raise malformed(self.path, line, f"a row with 1 or 0 under {self.column(key)[:80]}", cell)
        return np.array([_FLAGS[cell.lower()] for _, cell in self._cells(key)], dtype=bool)


def check_columns(columns: Mapping[str, str], files: Sequence[tuple[Path, Collection[str]]]) -> None:
    """Refuse names of columns for what is not read, and names that no file has from which such a column is read.

    `files` are their paths, each with the keys of `NAMES` that are read from it.
    """
    for key, name in columns.items():
        if key not in NAMES:
            raise InputError(f"--column must name one of {', '.join(NAMES)}; got {key!r}{nearest(key, NAMES)}")
        paths = [path for path, keys in files if key in keys]
        if not paths:
            raise InputError(f"--column {key} names a column of a file that is not given; got {name!r}; leave it out")
        headings = [[cell.strip() for cell in first_line(path).split(separator_of(first_line(path)))] for path in paths]
        there = [cell for heading in headings for cell in heading]
        if name not in there:
            free = [cell for cell in there if not _is_known(cell, {*NAMES} - {key}) or _is_known(cell, {key})]
            listed = "; ".join(
                f"{os.fspath(path)} has {', '.join(heading)[:200]}"
                for path, heading in zip(paths, headings, strict=True)
            )
            rule = f"--column {key} must name a column of {', '.join(os.fspath(path) for path in paths)}"
            raise InputError(f"{rule}; got {name!r}{nearest(name, free)}; {listed}")


def _is_known(column: str, keys: Collection[str]) -> bool:
    """Whether a column is read as one of the keys without being named."""
    lower = column.lower()
    return any(lower.startswith(key) if key in SIZES else lower in NAMES[key] for key in keys)


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells, without the spaces around them, as many in each line as in the first."""
    lines, rows = read_lines(path), []
    for number, cells in split_rows(path, lines, separator_of(lines[0])):
        if isinstance(cells, InputError):
            raise cells
        rows.append((number, [cell.strip() for cell in cells]))
        if len(cells) != len(rows[0][1]):
            width = len(rows[0][1])
            raise malformed(path, number, f"{width} cell{'s' * (width != 1)}, as the first line has", len(cells))
    return rows
