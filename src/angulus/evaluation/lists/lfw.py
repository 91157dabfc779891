"""Lists of LFW, of the sets made after it (RFW, CALFW, CPLFW) and of YouTube Faces, and the form of a list of pairs."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists import pair_list
from angulus.evaluation.lists.pair_list import PairList, is_count
from angulus.evaluation.lists.text import malformed, read_lines

Path = str | os.PathLike[str]

FORMS = {  # by name, what a list of pairs looks like
    "plain": "`a b 0|1` a line",
    "lfw": "LFW's pairs.txt, `name i j` and `name i other j`",
    "two-line": "two lines per pair, `file fold`, as CALFW and CPLFW have it",
}


@dataclass(frozen=True, eq=False)
class LfwImages:
    """Images and who they show: ids [N] and identities [N], of str."""

    ids: NDArray[np.str_]
    identities: NDArray[np.str_]
    source: str = "this list"

    def __len__(self) -> int:
        return len(self.ids)


def read_pair_list(path: Path, form: str = "auto") -> tuple[PairList, str]:
    """Read a list of pairs in any of `FORMS`; returns also which it is.

    Args:
        path: the list; gzipped where its name ends in .gz.
        form: a name of `FORMS`, or "auto": the one that the lines have.

    Raises:
        InputError: as the form's own reader.
    """
    checks.choice("format", form, ("auto", *FORMS))
    lines = read_lines(path)
    likely = _likely_form(lines)
    readers: dict[str, Callable[[list[str], Path], PairList]] = {
        "plain": pair_list.parse_pairs,
        "lfw": _parse_lfw,
        "two-line": _parse_two_lines,
    }
    try:
        return readers[likely if form == "auto" else form](lines, path), likely if form == "auto" else form
    except InputError as error:
        if form in ("auto", likely):
            raise
        raise InputError(f"{error}; its lines look like {likely}: {FORMS[likely]}") from error


def read_lfw_pairs(path: Path) -> PairList:
    """Read LFW's `pairs.txt` (View 2) or a list of its form: ids are `Name/Name_0001`, identities are names.

    The first line is `folds<TAB>per`; each fold has `per` genuine lines `name<TAB>i<TAB>j`, then `per` impostor lines
    `name<TAB>i<TAB>other<TAB>j`. Without that line, as RFW's lists are published, the folds are the runs of as many
    genuine and then impostor pairs. One number instead (`pairsDevTrain.txt`) is a list without folds.

    Raises:
        InputError: names file and line: another number of columns, an image number below 1, one person on an impostor
            line or one image twice, lines that are missing or too many, no first line and runs of several lengths.

    Source: G. B. Huang et al., "Labeled Faces in the Wild", UMass TR 07-49, 2007; the README of its View 2; M. Wang et
    al., "Racial Faces in the Wild", ICCV 2019.
    """
    return _parse_lfw(read_lines(path), path)


def _parse_lfw(lines: list[str], path: Path) -> PairList:
    counts = pair_list.header(lines[0]) or ((1, int(lines[0].strip())) if is_count(lines[0].strip()) else None)
    if counts is None and len(lines[0].split()) < 3:
        raise malformed(path, 1, "two whole numbers, folds and the pairs of each kind in one, like `10 300`", lines[0])
    body = lines[1:] if counts else lines
    if counts:
        pair_list.check_count(path, counts, len(body))
    rows = [line.split("\t") if "\t" in line else line.split() for line in body]
    same = pair_list.flags_of(counts) if counts else np.array([len(row) == 3 for row in rows], dtype=bool)
    left, right = [], []
    for number, (cells, genuine) in enumerate(zip(rows, same.tolist(), strict=True), 1 + bool(counts)):
        line = lines[number - 1]
        if len(cells) != (3 if genuine else 4):
            rule = "`name i j`, a genuine pair" if genuine else "`name i other j`, an impostor pair"
            raise malformed(path, number, rule, line)
        name, other = cells[0], cells[0] if genuine else cells[2]
        i, j = cells[1], cells[-1]
        if not is_count(i) or not is_count(j) or (name == other) != genuine or (genuine and int(i) == int(j)):
            rule = "two images (numbered from 1) of one person" if genuine else "images (numbered from 1) of two people"
            raise malformed(path, number, rule, line)
        left.append((name, f"{name}/{name}_{int(i):04d}"))
        right.append((other, f"{other}/{other}_{int(j):04d}"))
    folds = np.repeat(np.arange(counts[0]), 2 * counts[1]) if counts else _runs(path, same)
    (left_names, left_ids), (right_names, right_ids) = (
        map(text_array, zip(*side, strict=True)) for side in (left, right)
    )
    folds = folds if folds is not None and folds[-1] > 0 else None
    return PairList(left_ids, right_ids, same, folds, left_names, right_names, source=os.fspath(path))


def _runs(path: Path, same: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """The folds of a list without first line; None where each kind is one run."""
    folds = pair_list.folds_of_runs(same)
    if folds is None and int((same[1:] != same[:-1]).sum()) > 1:
        raise InputError(
            f"{os.fspath(path)} must begin with its folds and the pairs of each kind in one, like `10 300`, or have "
            "runs of as many genuine and then impostor pairs; got runs of several lengths; it is cut short"
        )
    return folds


def _parse_two_lines(lines: list[str], path: Path) -> PairList:
    """The pairs of CALFW's and CPLFW's lists: each line is a file and a number, which is 0 in impostor pairs.

    In genuine pairs the number is the fold, from 1, or 1 in all. Where it is the fold, impostor pairs, whose fold the
    list does not say, fill the folds in their order; else folds are runs of as many pairs of each kind.

    Source: T. Zheng, W. Deng, J. Hu, "Cross-Age LFW", arXiv 1708.08197; T. Zheng, W. Deng, "Cross-Pose LFW", 2018.
    """
    rows = [line.rsplit(None, 1) for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not (row[1] == "0" or is_count(row[1])):
            raise malformed(path, number, "`Name_0001.jpg 1`, a file and its pair's number", lines[number - 1])
    for place in range(0, len(rows) - 1, 2):
        if rows[place][1] != rows[place + 1][1] or rows[place][0] == rows[place + 1][0]:
            rule = "another file than the line before, with the same number: two lines are a pair"
            raise malformed(path, place + 2, rule, lines[place + 1])
    if len(rows) % 2:
        raise InputError(f"{os.fspath(path)} must have two lines per pair; got {len(rows)}; it is cut short")
    numbers = np.array([int(row[1]) for row in rows[::2]], dtype=np.int64)
    left, right = ([row[0] for row in rows[side::2]] for side in (0, 1))
    same, folds = numbers > 0, _numbered_folds(numbers)
    left_people, right_people = pair_list.agreeing(_people(left), _people(right), same)
    ids = text_array(left), text_array(right)
    return PairList(*ids, same, folds, left_people, right_people, source=os.fspath(path))


def _people(names: list[str]) -> list[str]:
    """`Name` of each `Name_0001.jpg`, or "" where a file is not named so."""
    return [name.rpartition("_")[0] for name in names]


def _numbered_folds(numbers: NDArray[np.int64]) -> NDArray[np.int64] | None:
    same = numbers > 0
    found, counts = np.unique(numbers[same], return_counts=True)
    impostors = int((~same).sum())
    count = len(found)
    if count < 2 or found[-1] != count or len(set(counts.tolist())) > 1 or not impostors or impostors % count:
        return pair_list.folds_of_runs(same)
    folds = numbers - 1
    folds[~same] = np.repeat(np.arange(count), impostors // count)
    return folds


def _likely_form(lines: list[str]) -> str:
    """The form that most lines have; "plain" where it is as likely as another."""
    if is_count(lines[0].strip()):
        return "lfw"
    body = lines[1:] if pair_list.header(lines[0]) else lines
    separator = pair_list.separator_of(body[0]) if body else None
    rows = [pair_list.cells_of(line, separator) or [""] for line in body]
    fitting = {
        "plain": sum(len(row) == 3 and row[-1] in ("0", "1") for row in rows),
        "lfw": sum(len(row) in (3, 4) and is_count(row[1]) and is_count(row[-1]) for row in rows),
        "two-line": sum(len(row) == 2 and (row[-1] == "0" or is_count(row[-1])) for row in rows),
    }
    return max(fitting, key=lambda form: fitting[form])


def read_ytf_pairs(path: Path) -> PairList:
    """Read pairs of videos: ids are `Name/number`, one a video; identities are names; folds are the splits.

    A line is `split, pair, first video, second video, 0|1`, with splits from 1 in order; a heading is skipped.

    Raises:
        InputError: names file and line: another number of columns, a flag that is not 0 or 1 or that the names
            contradict, splits out of order or of different sizes.

    Source: L. Wolf, T. Hassner, I. Maoz, "Face Recognition in Unconstrained Videos with Matched Background
    Similarity", CVPR 2011; its 5,000 pairs stand in 10 splits.
    """
    lines = read_lines(path)
    heading = int(lines[0].lower().startswith("split"))
    rows, folds, split = [], [], 0
    for number, line in enumerate(lines[heading:], 1 + heading):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5 or not is_count(cells[0]) or not is_count(cells[1]) or cells[4] not in ("0", "1"):
            raise malformed(path, number, "`split, pair, Name/0, Other/1, 0|1`", line)
        if int(cells[0]) not in (split, split + 1):
            raise malformed(path, number, f"of split {max(split, 1)} or the next", line)
        split = int(cells[0])
        first, second = (video.partition("/") for video in cells[2:4])
        if not (first[0] and first[2] and second[0] and second[2]) or (first[0] == second[0]) != (cells[4] == "1"):
            raise malformed(path, number, "two videos `Name/number`, of one person exactly where the flag is 1", line)
        rows.append((cells[2], cells[3], first[0], second[0], cells[4]))
        folds.append(split - 1)
    sizes = np.bincount(folds) if folds else np.zeros(0, dtype=np.int64)
    if not len(sizes) or sizes.min() != sizes.max():
        raise InputError(f"{os.fspath(path)} must have splits of equal size; got {sizes.tolist()}; it is cut short")
    left, right, left_identity, right_identity = (text_array([row[place] for row in rows]) for place in range(4))
    same = np.array([row[4] == "1" for row in rows])
    return PairList(left, right, same, np.array(folds), left_identity, right_identity, source=os.fspath(path))


def read_lfw_images(path: Path) -> LfwImages:
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
    return LfwImages(text_array(list(images)), text_array(list(images.values())), os.fspath(path))
