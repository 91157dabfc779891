"""Pairs to verify, and a plain `a b 0|1` list of them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core.checks import InputError
from angulus.core.formats.columns import is_text, text_array
from angulus.evaluation.lists.text import malformed, read_lines

Header = tuple[int, int]  # folds, and pairs of each kind per fold

_FLAG_HEADINGS = ("label", "same", "is_same", "issame", "match", "genuine", "flag", "target", "y")
_JSON = json.JSONDecoder()


@dataclass(frozen=True, eq=False)
class PairList:
    """P pairs of ids, each genuine (one identity) or impostor (two).

    Attributes:
        left, right: [P] of str, ids of embeddings.
        same: [P] of bool, True where genuine.
        folds: [P] int64 from 0, or None where the list has none.
        left_identity, right_identity: [P] of str, who is shown; both or neither.
        groups: [P] of str, the group that a pair counts in.
        source: what the list is, for messages and results.
        unknown: images of unknown people, which are in no pair.
    """

    left: NDArray[np.str_]
    right: NDArray[np.str_]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64] | None = None
    left_identity: NDArray[np.str_] | None = None
    right_identity: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None
    source: str = "these pairs"
    unknown: int = 0

    def __post_init__(self) -> None:
        kinds = {"same": ("b", "bool"), "folds": ("i", "whole numbers")}
        for name, value in self._columns().items():
            kind, called = kinds.get(name, ("", "text"))
            if not isinstance(value, np.ndarray) or value.ndim != 1 or not _is(value, kind):
                raise InputError(f"{self.source}: {name} must be an array [P] of {called}; got {_shown(value)}")
            if value.shape != self.left.shape or not len(value):
                raise InputError(f"{self.source}: {name} needs one entry per pair, at least one; got {_shown(value)}")
        if (self.left_identity is None) != (self.right_identity is None):
            raise InputError(f"{self.source}: left_identity and right_identity must be given both or neither; got one")
        if self.folds is not None and not np.array_equal(np.unique(self.folds), np.arange(self.folds.max() + 1)):
            raise InputError(f"{self.source}: folds must be 0, 1, 2, ... without gaps; got {np.unique(self.folds)}")

    def __len__(self) -> int:
        return len(self.same)

    @property
    def ids(self) -> NDArray[np.str_]:
        """The ids that occur, each once, sorted."""
        return np.unique(np.concatenate([self.left, self.right]))

    @property
    def fold_count(self) -> int:
        """How many folds; 0 where the list has none."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    def select(self, chosen: ArrayLike) -> "PairList":
        """The pairs where `chosen` ([P] of bool) is true, or at its positions; folds are kept as they are numbered.

        Raises:
            InputError: nothing is chosen, or a fold would be left without pairs.
        """
        index = np.asarray(chosen)
        if index.ndim != 1 or index.dtype.kind not in "biu" or (index.dtype.kind == "b" and len(index) != len(self)):
            raise InputError(f"{self.source}: chosen must be [{len(self)}] of bool, or positions; got {_shown(index)}")
        if index.dtype.kind != "b" and len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise InputError(f"{self.source}: places must be in [0, {len(self)}); got {index.min()} to {index.max()}")
        columns: dict[str, Any] = {name: value[index] for name, value in self._columns().items()}
        return replace(self, **columns)

    def _columns(self) -> dict[str, NDArray[np.generic]]:
        names = [field.name for field in fields(self) if field.name not in ("source", "unknown")]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def read_pairs(path: str | os.PathLike[str]) -> PairList:
    """Read a list with one pair per line, `a b 0|1`, 1 being genuine; gzipped where its name ends in .gz.

    A line is split at tabs where the first pair has them, else at commas, else at semicolons, else at spaces. An id in
    double quotes is a JSON string, which can hold any of these. If the first line is two whole numbers, `folds per`,
    there follow in each fold `per` genuine and then `per` impostor pairs; a heading such as `left,right,label` is
    skipped.

    An id's identity is its first folder (`07210/000565.jpg`: 07210); identities are given only if all ids have a
    folder and the folders agree with every flag, for a folder may also mean something else.

    Raises:
        InputError: names file and line: a column too few or many, a flag that is not 0 or 1, a count off the header's.
    """
    return parse_pairs(read_lines(path), path)


def parse_pairs(lines: list[str], path: str | os.PathLike[str]) -> PairList:
    """The pairs of the lines of a list; see `read_pairs`."""
    counts = header(lines[0])
    body = lines[1:] if counts else lines
    separator = separator_of(body[0]) if body else None
    if counts is None and _is_heading(cells_of(body[0], separator)):
        body = body[1:]
    first = 1 + len(lines) - len(body)
    rows = [cells_of(line, separator) or [] for line in body]
    for number, row in enumerate(rows, first):
        if len(row) != 3 or "" in row or row[2] not in ("0", "1") or row[0] == row[1]:
            raise malformed(path, number, "two different ids and 0 or 1, like `a.jpg b.jpg 1`", lines[number - 1])
    if not rows and counts is None:
        raise InputError(f"{os.fspath(path)} must hold pairs after its heading; got none")
    left, right = (text_array([row[column] for row in rows]) for column in range(2))
    same = np.array([row[2] == "1" for row in rows], dtype=bool)
    folds = None if counts is None else _folds(path, counts, same)
    left_people, right_people = agreeing(_folders(left), _folders(right), same)
    return PairList(left, right, same, folds, left_people, right_people, source=os.fspath(path))


def pairs_text(pairs: PairList) -> str:
    """A list as `read_pairs` reads it: `folds per` if there are folds, then one line `a b 0|1` per pair, with tabs.

    An id with spaces, tabs or quotes is written as a JSON string, `"a\\tb.jpg"`.

    Raises:
        InputError: folds that are not runs of as many genuine and then impostor pairs each.
    """
    lines = [
        f"{_cell(a)}\t{_cell(b)}\t{int(same)}\n"
        for a, b, same in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), strict=True)
    ]
    if pairs.folds is not None and pairs.fold_count > 1:
        counts = pairs.fold_count, len(pairs) // (2 * pairs.fold_count)
        expected = np.repeat(np.arange(counts[0]), 2 * counts[1])
        if not (np.array_equal(pairs.folds, expected) and np.array_equal(pairs.same, flags_of(counts))):
            raise InputError(f"{pairs.source}: folds must be runs of as many genuine, then impostor pairs; got others")
        lines.insert(0, f"{counts[0]}\t{counts[1]}\n")
    return "".join(lines)


def join_groups(lists: Mapping[str, PairList]) -> PairList:
    """The lists of groups one after the other, each pair with its group's name.

    Raises:
        InputError: a list without folds, over which the accuracy of a group is taken.
    """
    lacking = [listed.source for listed in lists.values() if listed.folds is None]
    if lacking:
        raise InputError(f"{lacking[0]} has no folds, over which the accuracy of a group is taken; add them")
    columns = {name: _column(lists, name) for name in ("left", "right", "same", "folds")}
    people = {name: _column(lists, name) for name in ("left_identity", "right_identity")}
    if any(side is None for side in people.values()):
        people = {}
    groups = np.repeat(list(lists), [len(listed) for listed in lists.values()])
    return PairList(**columns, **people, groups=groups, source=", ".join(listed.source for listed in lists.values()))


def _column(lists: Mapping[str, PairList], name: str) -> Any:
    """A column of all lists, one after the other; None where one has none."""
    columns = [getattr(listed, name) for listed in lists.values()]
    return None if any(column is None for column in columns) else np.concatenate(columns)


def cells_of(line: str, separator: str | None) -> list[str] | None:
    """The cells of a line, those in double quotes read as JSON strings; None where a quote is no such string.

    >>> cells_of(' a.jpg, "b, c.jpg",1', ",")
    ['a.jpg', 'b, c.jpg', '1']
    """
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    cells, rest = [], line.strip(" ")
    while True:
        if rest.startswith('"'):
            try:
                cell, end = _JSON.raw_decode(rest)
            except ValueError:
                return None
            rest = rest[end:].lstrip(" ")
        else:
            cell = (rest.split(separator, 1) or [""])[0]
            rest = rest[len(cell) :]
            cell = cell.strip()
            if cell.startswith('"') or '"' in cell:
                return None
        cells.append(cell)
        if not rest:
            return cells
        if separator is not None and not rest.startswith(separator):
            return None
        rest = rest[len(separator or "") :].lstrip(" ")


def separator_of(line: str) -> str | None:
    """What separates the cells of a line: a tab, a comma, a semicolon, or (None) spaces."""
    return next((sign for sign in "\t,;" if sign in line), None)


def header(line: str) -> Header | None:
    """Folds and pairs of each kind per fold, if a line is these two numbers."""
    cells = line.split()
    if len(cells) != 2 or not all(is_count(cell) for cell in cells):
        return None
    return int(cells[0]), int(cells[1])


def is_count(cell: str) -> bool:
    """Whether a cell is a whole number >= 1 of fewer than ten digits."""
    return cell.isascii() and cell.isdigit() and len(cell) < 10 and int(cell) > 0


def flags_of(counts: Header) -> NDArray[np.bool_]:
    """The flags of a list in whose folds the genuine pairs come first."""
    folds, per = counts
    return np.tile(np.repeat([True, False], per), folds)


def check_count(path: str | os.PathLike[str], counts: Header, pairs: int) -> None:
    """Refuse a list whose number of pairs is not that of its first line."""
    folds, per = counts
    if pairs != 2 * folds * per:
        raise InputError(
            f"{os.fspath(path)} must hold {2 * folds * per} pairs after its first line, 2 · {per} in each of "
            f"{folds} folds; got {pairs}; it is cut short or has too many lines"
        )


def folds_of_runs(same: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Folds of a list without them: alternating runs of equally many genuine and impostor pairs; None if irregular.

    >>> folds_of_runs(np.array([True, False, True, False])).tolist(), folds_of_runs(np.array([True, True, False]))
    ([0, 0, 1, 1], None)
    """
    runs = np.flatnonzero(np.append(True, same[1:] != same[:-1]))
    per = int(runs[1]) if len(runs) > 1 else len(same)
    folds, rest = divmod(len(same), 2 * per)
    regular = not rest and folds > 1 and np.array_equal(same, flags_of((folds, per)))
    return np.repeat(np.arange(folds), 2 * per) if regular else None


def agreeing(
    first: list[str], second: list[str], same: NDArray[np.bool_]
) -> tuple[NDArray[np.str_], NDArray[np.str_]] | tuple[None, None]:
    """The people on both sides, if all are named and agree with every flag."""
    agree = all(a and b and (a == b) == flag for a, b, flag in zip(first, second, same.tolist(), strict=True))
    return (text_array(first), text_array(second)) if agree else (None, None)


def _folders(ids: NDArray[np.str_]) -> list[str]:
    """The first folder of each id, or "" where it has none."""
    return [name.partition("/")[0] if "/" in name else "" for name in ids.tolist()]


def _is_heading(cells: list[str] | None) -> bool:
    return cells is not None and len(cells) == 3 and cells[2].casefold() in _FLAG_HEADINGS


def _cell(name: str) -> str:
    plain = name == name.strip() and name.isprintable() and not name.startswith(('"', "\ufeff")) and '"' not in name
    return name if plain else json.dumps(name)


def _folds(path: str | os.PathLike[str], counts: Header, same: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    check_count(path, counts, len(same))
    wrong = np.flatnonzero(same != flags_of(counts))
    if len(wrong):
        row = int(wrong[0])
        rule = f"the flag {int(not same[row])}, since a fold has {counts[1]} genuine and then as many impostor pairs"
        raise malformed(path, row + 2, rule, int(same[row]))
    return np.repeat(np.arange(counts[0], dtype=np.int64), 2 * counts[1]) if counts[0] > 1 else None


def _is(value: NDArray[Any], kind: str) -> bool:
    return value.dtype.kind == kind if kind else is_text(value)


def _shown(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
