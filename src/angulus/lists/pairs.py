"""Pairs to verify: LFW's `pairs.txt`, LFW's list of images, and a plain `a b 0|1` list."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.checks import InputError
from angulus.columns.texts import is_text
from angulus.lists.text import malformed, read_lines

Header = tuple[int, int]  # folds, and pairs of each kind in one


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of ids, each genuine (one identity) or impostor (two).

    Attributes:
        left, right: [P] of str, ids of embeddings.
        same: [P] of bool, True where genuine.
        folds: [P] int64 from 0, or None where the list has none.
        left_identity, right_identity: [P] of str, who is shown; both or neither.
        groups: [P] of str, the group that a pair counts in.
        source: what the list is, for messages and results.
        unknown: images that are in no pair because nobody knows whom they show.
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
                raise InputError(f"{self.source}: {name} must have one entry a pair, at least one; got {_shown(value)}")
        if (self.left_identity is None) != (self.right_identity is None):
            raise InputError(f"{self.source}: left_identity and right_identity must be given both or neither; got one")
        if self.folds is not None and not np.array_equal(np.unique(self.folds), np.arange(self.folds.max() + 1)):
            raise InputError(
                f"{self.source}: folds must be 0, 1, 2, ... with none left out; got {np.unique(self.folds)}"
            )

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

    def select(self, chosen: ArrayLike) -> Pairs:
        """The pairs where `chosen` ([P] of bool) is true, or at its positions; folds are kept as they are numbered.

        Raises:
            InputError: nothing is chosen, or a fold would be left without pairs.
        """
        index = np.asarray(chosen)
        if index.ndim != 1 or index.dtype.kind not in "biu" or (index.dtype.kind == "b" and len(index) != len(self)):
            raise InputError(f"{self.source}: chosen must be [{len(self)}] of bool, or positions; got {_shown(index)}")
        if index.dtype.kind != "b" and len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise InputError(
                f"{self.source}: positions must be in [0, {len(self)}); got {index.min()} to {index.max()}"
            )
        columns: dict[str, Any] = {name: value[index] for name, value in self._columns().items()}
        return replace(self, **columns)

    def _columns(self) -> dict[str, NDArray[np.generic]]:
        names = [field.name for field in fields(self) if field.name not in ("source", "unknown")]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Images:
    """Images and who they show: ids [N] and identities [N], of str."""

    ids: NDArray[np.str_]
    identities: NDArray[np.str_]
    source: str = "this list"

    def __len__(self) -> int:
        return len(self.ids)


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read a list with a pair a line, `a b 0|1`, 1 being genuine; gzipped where its name ends in .gz.

    A line is split at tabs where the first pair has them, else at commas, else at spaces. If the first line is two
    whole numbers, `folds per`, there follow in each fold `per` genuine and then `per` impostor pairs.

    An id's identity is its first folder (`07210/000565.jpg`: 07210); identities are given only if all ids have a
    folder and the folders agree with every flag, for a folder may also mean something else.

    Raises:
        InputError: names file and line: a column too few or many, a flag that is not 0 or 1, a count off the header's.
    """
    lines = read_lines(path)
    header = _header(lines[0])
    body = lines[1:] if header else lines
    first = 2 if header else 1
    separator = next((sign for sign in "\t," if body and sign in body[0]), None)
    cells = [[cell.strip() for cell in line.split(separator)] for line in body]
    for number, row in enumerate(cells, first):
        if len(row) != 3 or "" in row or row[2] not in ("0", "1") or row[0] == row[1]:
            raise malformed(path, number, "two different ids and 0 or 1, like `a.jpg b.jpg 1`", lines[number - 1])
    left, right, flags = (np.array([row[column] for row in cells], dtype=np.str_) for column in range(3))
    same = flags == "1"
    folds = None if header is None else _folds(path, header, same)
    left_identity, right_identity = _identities(left, right, same)
    return Pairs(left, right, same, folds, left_identity, right_identity, source=os.fspath(path))


def pairs_text(pairs: Pairs) -> str:
    """A list as `read_pairs` reads it: `folds per` where there are folds, then a line `a b 0|1` a pair, by tabs.

    Raises:
        InputError: an id that no line can hold.
    """
    for name in pairs.ids.tolist():
        if name != name.strip() or "\t" in name or len(f"{name}x".splitlines()) > 1:
            raise InputError(f"an id in a list must have no tab, no line's end and no space around it; got {name!r}")
    lines = [f"{a}\t{b}\t{int(same)}\n" for a, b, same in zip(pairs.left, pairs.right, pairs.same, strict=True)]
    if pairs.fold_count:
        lines.insert(0, f"{pairs.fold_count}\t{len(pairs) // (2 * pairs.fold_count)}\n")
    return "".join(lines)


def read_lfw_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read LFW's `pairs.txt` (View 2): ids are `Name/Name_0001`, identities are names.

    The first line is `folds<TAB>per`; each fold has `per` genuine lines `name<TAB>i<TAB>j`, then `per` impostor lines
    `name<TAB>i<TAB>other<TAB>j`.

    Raises:
        InputError: names file and line: no header, another number of columns, an image number below 1, one person on
            an impostor line or one image twice, lines that are missing or too many.

    Source: G. B. Huang et al., "Labeled Faces in the Wild", UMass TR 07-49, 2007; the README of its View 2.
    """
    lines = read_lines(path)
    header = _header(lines[0])
    if header is None:
        raise malformed(
            path, 1, "two whole numbers, the folds and the pairs of each kind in one, like `10 300`", lines[0]
        )
    folds, per = header
    _check_count(path, header, len(lines) - 1)
    same = _flags(header)
    left, right = [], []
    for number, (line, genuine) in enumerate(zip(lines[1:], same.tolist(), strict=True), 2):
        cells = line.split("\t") if "\t" in line else line.split()
        if len(cells) != (3 if genuine else 4):
            rule = "`name i j`, a genuine pair" if genuine else "`name i other j`, an impostor pair"
            raise malformed(path, number, rule, line)
        name, other = cells[0], cells[0] if genuine else cells[2]
        i, j = cells[1], cells[-1]
        if not _counts(i) or not _counts(j) or (name == other) != genuine or (genuine and int(i) == int(j)):
            rule = "two images (numbered from 1) of one person" if genuine else "images (numbered from 1) of two people"
            raise malformed(path, number, rule, line)
        left.append((name, f"{name}/{name}_{int(i):04d}"))
        right.append((other, f"{other}/{other}_{int(j):04d}"))
    left_identity, left_id = np.array(left, dtype=np.str_).T.copy()
    right_identity, right_id = np.array(right, dtype=np.str_).T.copy()
    numbers = np.repeat(np.arange(folds), 2 * per)
    return Pairs(left_id, right_id, same, numbers, left_identity, right_identity, source=os.fspath(path))


def read_lfw_images(path: str | os.PathLike[str]) -> Images:
    """Read a list of LFW's images: a line `Name/Name_0001.jpg`, optionally followed by the person's number.

    Raises:
        InputError: names file and line: no folder, an image listed twice, a number that two people share or that
            changes for one.
    """
    lines = read_lines(path)
    number_of: dict[str, str] = {}
    name_of: dict[str, str] = {}
    images: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        cells = line.split()
        name, slash, _ = cells[0].partition("/") if cells else ("", "", "")
        if len(cells) not in (1, 2) or not name or not slash:
            raise malformed(path, number, "`Name/Name_0001.jpg`, with or without the person's number", line)
        if cells[0] in images:
            raise malformed(path, number, "an image that is not listed before", cells[0])
        images[cells[0]] = name
        if len(cells) == 2 and (number_of.setdefault(name, cells[1]), name_of.setdefault(cells[1], name)) != (
            cells[1],
            name,
        ):
            raise malformed(path, number, "a person's number, one to a person", line)
    return Images(np.array(list(images)), np.array(list(images.values())), os.fspath(path))


def _header(line: str) -> Header | None:
    cells = line.split()
    if len(cells) != 2 or not all(_counts(cell) for cell in cells):
        return None
    return int(cells[0]), int(cells[1])


def _counts(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) < 10 and int(cell) > 0


def _flags(header: Header) -> NDArray[np.bool_]:
    folds, per = header
    return np.tile(np.repeat([True, False], per), folds)


def _check_count(path: str | os.PathLike[str], header: Header, pairs: int) -> None:
    folds, per = header
    if pairs != 2 * folds * per:
        raise InputError(
            f"{os.fspath(path)} must hold {2 * folds * per} pairs after its first line, 2 · {per} in each of "
            f"{folds} folds; got {pairs}; it is cut short or has lines too many"
        )


def _folds(path: str | os.PathLike[str], header: Header, same: NDArray[np.bool_]) -> NDArray[np.int64]:
    _check_count(path, header, len(same))
    wrong = np.flatnonzero(same != _flags(header))
    if len(wrong):
        row = int(wrong[0])
        rule = f"the flag {int(not same[row])}, since a fold has {header[1]} genuine and then as many impostor pairs"
        raise malformed(path, row + 2, rule, int(same[row]))
    return np.repeat(np.arange(header[0], dtype=np.int64), 2 * header[1])


def _identities(
    left: NDArray[np.str_], right: NDArray[np.str_], same: NDArray[np.bool_]
) -> tuple[NDArray[np.str_], NDArray[np.str_]] | tuple[None, None]:
    if not all("/" in name for ids in (left, right) for name in ids.tolist()):
        return None, None
    first, second = (np.array([name.partition("/")[0] for name in ids.tolist()]) for ids in (left, right))
    return (first, second) if np.array_equal(first == second, same) else (None, None)


def _is(value: NDArray[Any], kind: str) -> bool:
    return value.dtype.kind == kind if kind else is_text(value)


def _shown(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
