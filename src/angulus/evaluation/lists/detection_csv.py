"""A detector's marks, the lesions to be found, and the cases that were searched, from CSV files with named columns."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError, shown
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.named_columns import NAMES, SIZES, Path, Table, read_rows
from angulus.evaluation.lists.text import malformed

# what is read from each file: the columns that it needs, and those that it may have
MARKS = ("case", "x", "y", "score"), ("z", "patient")
LESIONS = ("case", "x", "y"), ("z", *SIZES, "ignore", "patient")
CASES = ("case",), ("patient",)


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
    table = Table(path, read_rows(path), *MARKS, columns or {}, report)
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
    needed, optional = LESIONS
    sizes = ("diameter or radius",) if sized else ()
    table = Table(path, read_rows(path), (*needed, *sizes), optional, columns or {}, report)
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
    rows, columns = read_rows(path), columns or {}
    first_cell = rows[0][1][0]
    if len(rows[0][1]) == 1 and first_cell.lower() not in NAMES["case"] and first_cell != columns.get("case"):
        rows = [(0, ["case"]), *rows]
    table = Table(path, rows, *CASES, columns, report)
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


def _refuse_repeats(path: Path, lesions: Lesions, lines: Sequence[int]) -> None:
    """Refuse a lesion that is listed twice, for it would count twice."""
    first: dict[tuple[str, tuple[float, ...]], int] = {}
    for row in np.flatnonzero(~lesions.ignore).tolist():
        where = str(lesions.cases[row]), tuple(lesions.centres[row].tolist())
        if first.setdefault(where, lines[row]) != lines[row]:
            rule = f"a lesion that is not listed before; line {first[where]} has the same case and place"
            raise malformed(path, lines[row], rule, f"{where[0]}, {shown(list(where[1]))}")
