"""A detector's marks, the lesions to be found, and the cases that were searched, from CSV files with named columns."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_SIZES = ("diameter", "radius")
_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_UNMEASURED = ("", "-1")  # cells of a size; LUNA16 writes -1


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions in cases: cases [N] of str; centres [N, D] float64, x, y and, if D is 3, z, in the user's unit."""

    cases: NDArray[np.str_]
    centres: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.cases)


@dataclass(frozen=True, eq=False)
class Marks(Positions):
    """A detector's marks with their scores [N], finite, higher for more suspicious; patients [N] of str, or None."""

    scores: NDArray[np.float64]
    patients: NDArray[np.str_] | None = None


@dataclass(frozen=True, eq=False)
class Lesions(Positions):
    """What is to be found, or ignored.

    diameters [N] > 0 in the unit of the centres, NaN if not measured; ignore [N] of bool: marks on these count neither
    as hits nor as errors; patients [N] of str, or None.
    """

    diameters: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    patients: NDArray[np.str_] | None = None


@dataclass(frozen=True, eq=False)
class Cases:
    """The cases: names [C] of str, each once; patients [C] of str ("" where unknown), or None; whether a list says so.

    Without a list they are those that a mark or a lesion names, and cases with neither are not known.
    """

    names: NDArray[np.str_]
    patients: NDArray[np.str_] | None = None
    listed: bool = True


def read_marks(
    path: Path, columns: Mapping[str, str] | None = None, report: Callable[[str], None] = lambda line: None
) -> Marks:
    """Read marks: case, x, y, optionally z and patient, score; a heading alone is a detector that marks nothing.

    Args:
        path: the file; its first line names the columns, separated by commas, tabs or semicolons.
        columns: by key of `NAMES`, the name of its column in this file, where it is another one.
        report: gets a line that says which columns were read.

    Raises:
        InputError: names the file and the line: a column that is missing, is there twice or could be either of two; a
            line with another number of cells; an empty case; a coordinate or a score that is no finite number.
    """
    table = _Table(path, _read(path), ("case", "x", "y", "score"), ("z", "patient"), columns or {}, report)
    return Marks(table.text("case"), table.centres(), table.numbers("score"), table.optional_text("patient"))


def read_lesions(
    path: Path,
    columns: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda line: None,
    *,
    sized: bool = True,
) -> Lesions:
    """Read lesions: case, x, y, optionally z, ignore and patient, and a diameter or a radius.

    A size that is empty or -1 was not measured and becomes NaN; `ignore` is 1, true or yes, or 0, false, no or empty.

    Args:
        path, columns, report: as in `read_marks`.
        sized: whether the size is needed, as it is unless one distance holds for all.

    Raises:
        InputError: as `read_marks`; no lesion; a size <= 0; a lesion that is listed twice.
    """
    needs = ("case", "x", "y", *(("diameter or radius",) if sized else ()))
    table = _Table(path, _read(path), needs, ("z", *_SIZES, "ignore", "patient"), columns or {}, report)
    if not table.rows:
        raise InputError(f"{os.fspath(path)} must hold lesions after its heading; got none")
    found = Lesions(
        table.text("case"), table.centres(), table.diameters(), table.flags("ignore"), table.optional_text("patient")
    )
    _refuse_repeats(path, found, table.lines)
    return found


def read_cases(
    path: Path, columns: Mapping[str, str] | None = None, report: Callable[[str], None] = lambda line: None
) -> Cases:
    """Read the list of all cases: case and optionally patient; or one case per line, with or without a heading.

    Raises:
        InputError: as `read_marks`; no case, or a case twice.
    """
    rows, columns = _read(path), columns or {}
    first_cell = rows[0][1][0]
    if len(rows[0][1]) == 1 and first_cell.lower() not in NAMES["case"] and first_cell != columns.get("case"):
        rows = [(0, ["case"]), *rows]
    table = _Table(path, rows, ("case",), ("patient",), columns, report)
    names, lines, patients = table.text("case").tolist(), table.lines, table.optional_text("patient")
    if not names:
        raise InputError(f"{os.fspath(path)} must hold cases after its heading; got none")
    first: dict[str, int] = {}
    for name, line in zip(names, lines, strict=True):
        if first.setdefault(name, line) != line:
            raise malformed(path, line, f"a case that is not listed before, as in line {first[name]}", name)
    return Cases(text_array(names), patients)


def complete(marks: Marks, lesions: Lesions, cases: Cases | None) -> Cases:
    """The cases with what marks and lesions say about them: their names without a list, and their patients.

    Raises:
        InputError: marks and lesions of different numbers of axes; a case of two patients.
    """
    axes = [positions.centres.shape[1] for positions in (marks, lesions)]
    if axes[0] != axes[1] and len(marks) and len(lesions):
        which = "marks" if axes[0] == 3 else "lesions"
        raise InputError(f"marks and lesions must both have z or both have none; only the {which} have")
    if cases is None:
        cases = Cases(np.unique(np.concatenate([lesions.cases, marks.cases]).astype(np.str_)), listed=False)
    if cases.patients is not None:
        return cases
    known: dict[str, str] = {}
    for table in (lesions, marks):
        if table.patients is not None:
            for case, patient in zip(table.cases.tolist(), table.patients.tolist(), strict=True):
                if patient and known.setdefault(case, patient) != patient:
                    raise InputError(f"a case must be of one patient; {case!r} is of {known[case]!r} and {patient!r}")
    if not known:
        return cases
    return Cases(cases.names, text_array([known.get(name, "") for name in cases.names.tolist()]), cases.listed)


class _Table:
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
            raise InputError(f"{os.fspath(path)} must name each column once; got {twice!r} twice")
        keys = [key for name in needed for key in (_SIZES if " " in name else (name,))]
        self.places = {key: self._place(key, columns) for key in dict.fromkeys([*keys, *optional])}
        if self.places.get("patient") == self.places.get("case"):
            self.places["patient"] = None
        for name in needed:
            if all(self.places[key] is None for key in (_SIZES if " " in name else (name,))):
                raise self._missing(name)
        sizes = [key for key in _SIZES if self.places.get(key) is not None]
        if len(sizes) == 2:
            chosen = [key for key in sizes if key in columns]
            if len(chosen) != 1:
                raise InputError(
                    f"{os.fspath(path)} has a diameter and a radius, {', '.join(map(self.column, sizes))}; name the "
                    f"one to read: --column diameter={self.column('diameter')}"
                )
            self.places["radius" if chosen == ["diameter"] else "diameter"] = None
        self.lines, self.rows = [number for number, _ in rows[1:]], [cells for _, cells in rows[1:]]
        read = [key for key, place in self.places.items() if place is not None]
        renamed = [f"{key} is {self.column(key)}" for key in read if self.column(key) != key]
        absent = [key for key in optional if self.places[key] is None]
        unused = [
            f"{name}{nearest(name, absent)}" for name in filter(None, self.names) if name not in map(self.column, read)
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
        if key in _SIZES:
            sizes = [place for place, name in enumerate(lower) if name.startswith(key)]
            if len(sizes) > 1:
                several = ", ".join(self.names[place] for place in sizes)
                raise InputError(
                    f"{os.fspath(self.path)} has several columns of a {key}: {several}; name the one to read: --column "
                    f"{key}={self.names[sizes[0]]}"
                )
            return sizes[0] if sizes else None
        return next((lower.index(name) for name in NAMES[key] if name in lower), None)

    def _missing(self, name: str) -> InputError:
        keys = _SIZES if " " in name else (name,)
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
                raise malformed(self.path, line, f"a row with a {key} under {self.column(key)}", "")
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
                raise malformed(self.path, line, f"a row with a finite number under {self.column(key)}{hint}", cell)
            values.append(value)
        return np.array(values, dtype=np.float64)

    def centres(self) -> NDArray[np.float64]:
        """The coordinates [N, D]."""
        axes = ("x", "y") if self.places["z"] is None else ("x", "y", "z")
        return np.stack([self.numbers(axis) for axis in axes], axis=1)

    def diameters(self) -> NDArray[np.float64]:
        """The diameters [N], of a column of diameters or of radii; all NaN without either."""
        key = next((key for key in _SIZES if self.places[key] is not None), None)
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
                raise malformed(self.path, line, f"a row with 1 or 0 under {self.column(key)}", cell)
        return np.array([_FLAGS[cell.lower()] for _, cell in self._cells(key)], dtype=bool)


def check_columns(columns: Mapping[str, str], paths: Sequence[Path]) -> None:
    """Refuse names of columns for what is not read, and names that none of the files has."""
    for key, name in columns.items():
        if key not in NAMES:
            raise InputError(f"--column must name one of {', '.join(NAMES)}; got {key!r}{nearest(key, NAMES)}")
        there = [cell.strip() for path in paths for cell in first_line(path).split(separator_of(first_line(path)))]
        if name not in there:
            files = ", ".join(os.fspath(path) for path in paths)
            raise InputError(f"--column {key} must name a column of {files}; got {name!r}{nearest(name, there)}")


def _read(path: Path) -> list[tuple[int, list[str]]]:
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


def _refuse_repeats(path: Path, lesions: Lesions, lines: Sequence[int]) -> None:
    """Refuse a lesion that is listed twice, for it would count twice."""
    first: dict[tuple[str, tuple[float, ...]], int] = {}
    for row in np.flatnonzero(~lesions.ignore).tolist():
        where = str(lesions.cases[row]), tuple(lesions.centres[row].tolist())
        if first.setdefault(where, lines[row]) != lines[row]:
            rule = f"a lesion that is not listed before; line {first[where]} has the same case and place"
            raise malformed(path, lines[row], rule, f"{where[0]}, {shown(list(where[1]))}")
