"""Pair lists: the published ones whole, with their known counts, and each malformed line by its number."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.lists.lfw import read_lfw_images, read_lfw_pairs, read_pair_list
from angulus.evaluation.lists.pair_list import PairList, pairs_text, read_pairs


def written(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_lfw_has_six_thousand_pairs_in_ten_folds(data_folder: Path) -> None:
    path = data_folder / "protocols" / "lfw_pairs.txt"
    pairs = read_lfw_pairs(path)
    assert (len(pairs), pairs.fold_count, int(pairs.same.sum())) == (6000, 10, 3000)
    assert pairs.folds is not None and pairs.left_identity is not None and pairs.right_identity is not None
    counts = Counter(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True))
    assert counts == {(fold, same): 300 for fold in range(10) for same in (True, False)}
    assert ((pairs.left_identity == pairs.right_identity) == pairs.same).all()
    lines = path.read_text().splitlines()[1:]
    for row in [0, 299, 300, 599, 600, 5999]:
        cells = lines[row].split("\t")
        left, right = (cells[0], cells[1]), (cells[-2] if len(cells) == 4 else cells[0], cells[-1])
        assert pairs.left[row] == f"{left[0]}/{left[0]}_{int(left[1]):04d}"
        assert pairs.right[row] == f"{right[0]}/{right[0]}_{int(right[1]):04d}"


def test_lfw_has_13233_images_of_5749_people(data_folder: Path) -> None:
    images = read_lfw_images(data_folder / "protocols" / "lfw_image_list_13233.txt.gz")
    assert (len(images), len(set(images.ids.tolist())), len(set(images.identities.tolist()))) == (13_233, 13_233, 5_749)
    pairs = read_lfw_pairs(data_folder / "protocols" / "lfw_pairs.txt")
    assert set(pairs.ids.tolist()) <= {name.removesuffix(".jpg") for name in images.ids.tolist()}


def test_the_pairs_of_celebrity_faces(data_folder: Path) -> None:
    path = data_folder / "celebrity-faces" / "pairs.txt"
    pairs = read_pairs(path)
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    assert pairs.left.tolist() == [row[0] for row in rows]
    assert pairs.right.tolist() == [row[1] for row in rows]
    assert pairs.same.tolist() == [row[2] == "1" for row in rows]
    assert pairs.folds is not None and pairs.left_identity is not None
    assert pairs.folds.tolist() == [row // 600 for row in range(6000)]
    assert pairs.left_identity.tolist() == [row[0].split("/")[0] for row in rows]


@pytest.mark.parametrize("name", ["list.txt", "list.txt.gz"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("sign", ["\t", " ", ",", ", "])
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_a_plain_list(tmp_path: Path, name: str, ends: str, sign: str, last: str) -> None:
    text = ends.join([sign.join(["a", "b", "1"]), sign.join(["c", "ü", "0"])]) + last
    pairs = read_pairs(written(tmp_path, text, name))
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist()) == (["a", "c"], ["b", "ü"], [True, False])
    assert pairs.folds is None and pairs.left_identity is None and pairs.right_identity is None
    assert (pairs.fold_count, pairs.source) == (0, str(tmp_path / name))


def test_tabs_leave_spaces_and_commas_in_ids(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, "A B/1, 2.jpg\tA B/3.jpg\t1\n"))
    assert (pairs.left.tolist(), pairs.right.tolist()) == (["A B/1, 2.jpg"], ["A B/3.jpg"])
    assert pairs.left_identity is not None and pairs.left_identity.tolist() == ["A B"]


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        (["x/1 x/2 1", "x/1 y/1 0"], True),
        (["x/1 x/2 1", "x/1 1 0"], False),  # an id without a folder
        (["d/1 d/2 1", "d/1 d/3 0"], False),  # the folder is the data set's
        (["x/1 y/2 1", "x/1 y/1 0"], False),
    ],
)
def test_folders_are_identities_only_where_they_agree_with_the_flags(
    tmp_path: Path, lines: list[str], known: bool
) -> None:
    pairs = read_pairs(written(tmp_path, "\n".join(lines)))
    assert (pairs.left_identity is not None, pairs.right_identity is not None) == (known, known)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "list.txt must hold lines; it is empty"),
        ("\n\n", "list.txt must hold lines; it is empty"),
        ("a b 1\na b\n", r"list.txt line 2 must be two different ids and 0 or 1, like `a.jpg b.jpg 1`; got 'a b'"),
        ("a b 1\na b c 0\n", "line 2 must be two different ids and 0 or 1"),
        ("a b 1\n\nc d 0\n", "line 2 must be two different ids and 0 or 1, .*; got ''"),
        ("a b 1\na b 2\n", "line 2 must be two different ids and 0 or 1"),
        ("a b 1\nc c 1\n", "line 2 must be two different ids and 0 or 1, .*; got 'c c 1'"),
        ("a b true\n", "line 1 must be two different ids and 0 or 1"),
        ("a\tb\t1\na b 0\n", "line 2 must be two different ids and 0 or 1"),
        ("a,,1\n", "line 1 must be two different ids and 0 or 1"),
        (
            "2\t1\na b 1\na c 0\nd e 1\n",
            r"must hold 4 pairs after its first line, 2 · 1 in each of 2 folds; got 3; it is",
        ),
        ("1\t1\na b 1\na c 0\nd e 1\n", "must hold 2 pairs after its first line, .*; got 3; .* or has too many lines"),
        ("1\t1\na b 0\na c 1\n", "line 2 must be the flag 1, since a fold has 1 genuine and then as many .*; got 0"),
        ("1\t2\na b 1\na c 1\na b 0\na c 1\n", "line 5 must be the flag 0"),
        ("10\t300\n", "must hold 6000 pairs after its first line, .*; got 0"),
    ],
)
def test_malformed_lists(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_pairs(written(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.txt must be a file that can be read; there is no such file"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "plain.txt.gz").write_bytes(b"a b 1\n")
    with pytest.raises(InputError, match=r"plain.txt.gz must be a whole gzip file; got "):
        read_pairs(tmp_path / "plain.txt.gz")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a b 1\n" * 1000)[:-12])
    with pytest.raises(InputError, match=r"cut.txt.gz must be a whole gzip file; got "):
        read_pairs(tmp_path / "cut.txt.gz")
    (tmp_path / "latin.txt").write_bytes(b"a b 1\n\xfc b 1\n")
    with pytest.raises(InputError, match=r"latin.txt line 2 must be UTF-8 text; got 'invalid start byte'"):
        read_pairs(tmp_path / "latin.txt")


LFW = ["2\t1", "A_B\t1\t4", "A_B\t1\tC\t12", "C\t2\t1", "C\t3\tD\t10000"]


def test_a_small_list_in_lfws_form(tmp_path: Path) -> None:
    pairs = read_lfw_pairs(written(tmp_path, "\n".join(LFW) + "\n"))
    assert pairs.left.tolist() == ["A_B/A_B_0001", "A_B/A_B_0001", "C/C_0002", "C/C_0003"]
    assert pairs.right.tolist() == ["A_B/A_B_0004", "C/C_0012", "C/C_0001", "D/D_10000"]
    assert pairs.folds is not None and pairs.folds.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("line", "replacement", "sentence"),
    [
        (
            1,
            "A_B\t1\t4",
            "must begin with its folds and .*, like `10 300`, or have runs .*; got runs of several lengths",
        ),
        (1, "", "line 1 must be two whole numbers, folds and the pairs of each kind in one, like `10 300`"),
        (1, "2\t0", "line 1 must be two whole numbers"),
        (1, "3\t1", "must hold 6 pairs after its first line, 2 · 1 in each of 3 folds; got 4; it is cut short"),
        (2, "A_B\t1\tC\t4", "line 2 must be `name i j`, a genuine pair; got 'A_B.t1.tC.t4'"),
        (3, "A_B\t1\t4", "line 3 must be `name i other j`, an impostor pair"),
        (2, "A_B\t1\t0", r"line 2 must be two images \(numbered from 1\) of one person"),
        (2, "A_B\t1\t1", "line 2 must be two images"),
        (2, "A_B\t1\tx", "line 2 must be two images"),
        (2, "A_B\t1\t" + "9" * 5000, "line 2 must be two images"),
        (5, "C\t1\tC\t2", r"line 5 must be images \(numbered from 1\) of two people"),
        (4, "", "line 4 must be `name i j`, a genuine pair; got ''"),
    ],
)
def test_malformed_lfw_lists(tmp_path: Path, line: int, replacement: str, sentence: str) -> None:
    lines = [replacement if number == line else text for number, text in enumerate(LFW, 1)]
    with pytest.raises(InputError, match=sentence):
        read_lfw_pairs(written(tmp_path, "\n".join(lines)))


def test_a_truncated_lfw_list_is_refused(data_folder: Path, tmp_path: Path) -> None:
    text = (data_folder / "protocols" / "lfw_pairs.txt").read_text()
    with pytest.raises(
        InputError, match=r"must hold 6000 pairs after its first line, .*; got 5\d\d\d; it is cut short"
    ):
        read_lfw_pairs(written(tmp_path, text[: text.rindex("\n", 0, int(0.9 * len(text)))]))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A/A_1.jpg 0\nA_2.jpg 0\n", "line 2 must be `Name/Name_0001.jpg`, with or without the person's number"),
        ("A/A_1.jpg 0 1\n", "line 1 must be `Name/Name_0001.jpg`"),
        ("A/A_1.jpg\n\nA/A_2.jpg\n", "line 2 must be `Name/Name_0001.jpg`"),
        ("A/A_1.jpg\nA/A_1.jpg\n", "line 2 must be an image that is not listed before; got 'A/A_1.jpg'"),
        ("A/A_1.jpg 0\nA/A_2.jpg 1\n", "line 2 must be a person's number, one to a person"),
        ("A/A_1.jpg 0\nB/B_1.jpg 0\n", "line 2 must be a person's number, one to a person"),
    ],
)
def test_malformed_image_lists(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_lfw_images(written(tmp_path, text))


def test_a_list_of_images_without_numbers(tmp_path: Path) -> None:
    images = read_lfw_images(written(tmp_path, "B/B_1.jpg\nA/A_1.jpg\n"))
    assert (images.ids.tolist(), images.identities.tolist()) == (["B/B_1.jpg", "A/A_1.jpg"], ["B", "A"])


def few(**change: Any) -> PairList:
    columns: dict[str, Any] = {
        "left": np.array(["a", "b", "c"]),
        "right": np.array(["b", "c", "a"]),
        "same": np.array([True, False, True]),
        "folds": np.array([0, 1, 0]),
        "left_identity": np.array(["A", "B", "C"]),
        "right_identity": np.array(["A", "C", "C"]),
        "groups": np.array(["x", "y", "x"]),
    }
    return PairList(**(columns | change))


@given(st.lists(st.booleans(), min_size=3, max_size=3).filter(lambda kept: kept[1] and (kept[0] or kept[2])))
def test_select_keeps_what_is_chosen(kept: list[bool]) -> None:
    chosen = few().select(kept)
    for name in ("left", "right", "same", "folds", "left_identity", "right_identity", "groups"):
        assert getattr(chosen, name).tolist() == list(itertools.compress(getattr(few(), name).tolist(), kept))
    assert chosen.left.tolist() == few().select(np.flatnonzero(kept)).left.tolist()


def test_ids_are_each_once() -> None:
    assert few().ids.tolist() == ["a", "b", "c"]
    assert few(groups=None).select([1, 0]).groups is None


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ([True, False], r"chosen must be \[3\] of bool, or positions; got bool \[2\]"),
        ([0.5], r"chosen must be \[3\] of bool, or positions; got float64 \[1\]"),
        ([3], r"places must be in \[0, 3\); got 3 to 3"),
        ([-1], r"places must be in \[0, 3\); got -1 to -1"),
        ([False] * 3, r"left needs one entry per pair, at least one; got <U1 \[0\]"),
        ([1], "folds must be 0, 1, 2, ... without gaps; got .1."),
    ],
)
def test_select_refuses(chosen: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        few().select(chosen)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"left": ["a", "b", "c"]}, r"left must be an array \[P\] of text; got \['a'"),
        ({"right": np.array(["a", "b"])}, r"right needs one entry per pair, at least one; got <U1 \[2\]"),
        ({"same": np.array([1, 0, 1])}, r"same must be an array \[P\] of bool; got int64 \[3\]"),
        ({"folds": np.array([0.0, 1.0, 0.0])}, r"folds must be an array \[P\] of whole numbers; got float64"),
        ({"folds": np.array([1, 2, 1])}, "folds must be 0, 1, 2, ... without gaps; got .1 2."),
        ({"folds": np.array([-1, 0, 1])}, "folds must be 0, 1, 2, ... without gaps"),
        ({"left_identity": None}, "left_identity and right_identity must be given both or neither; got one"),
        ({"groups": np.array([1, 2, 3])}, r"groups must be an array \[P\] of text; got int64 \[3\]"),
    ],
)
def test_pairs_refuse(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        few(**change)


IDS_IN_LISTS = st.text(min_size=1, max_size=12).filter(lambda name: "\0" not in name)


@given(st.lists(st.tuples(IDS_IN_LISTS, IDS_IN_LISTS, st.booleans()).filter(lambda row: row[0] != row[1]), min_size=1))
def test_whatever_ids_are_written_are_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    left, right, same = zip(*rows, strict=True)
    written_ones = PairList(np.array(left), np.array(right), np.array(same))
    path = written(tmp_path_factory.mktemp("any"), pairs_text(written_ones))
    for read in (read_pairs(path), read_pair_list(path)[0]):
        assert (read.left.tolist(), read.right.tolist(), read.same.tolist()) == (list(left), list(right), list(same))


@pytest.mark.parametrize("name", ["a\tb", "a\nb", " a", "a ", '"a"', 'a"', "\ufeffa", "a\u2028b", "\udcff", "0", "1\r"])
def test_ids_that_a_line_cannot_hold_are_quoted(tmp_path: Path, name: str) -> None:
    text = pairs_text(few(left=np.array([name, "b", "c"]), folds=None))
    assert len(text.split("\n")) == 4
    assert read_pairs(written(tmp_path, text)).left.tolist() == [name, "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a, b.jpg","c.jpg",1\n', ["a, b.jpg", "c.jpg"]),
        ("a b.jpg;c.jpg;1\n", ["a b.jpg", "c.jpg"]),
        ("left;right;label\na;b;1\n", ["a", "b"]),
        ("path1,path2,issame\na,b,1\n", ["a", "b"]),
        ('"a b" c 1\n', ["a b", "c"]),
    ],
)
def test_quotes_semicolons_and_headings(tmp_path: Path, text: str, expected: list[str]) -> None:
    read = read_pairs(written(tmp_path, text))
    assert [*read.left.tolist(), *read.right.tolist()] == expected


@pytest.mark.parametrize("line", ['"a\tb\t1', 'a"b\tc\t1', '"a"x\tb\t1', '"a\\q"\tb\t1', '"a" "b"\tc\t1'])
def test_a_quote_that_is_not_closed_or_stands_inside_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match="line 2 must be two different ids and 0 or 1"):
        read_pairs(written(tmp_path, f"x\ty\t1\n{line}\n"))


def test_rfws_list_has_no_first_line(tmp_path: Path) -> None:
    text = "".join(
        [f"m.0a{row}\t1\t{row + 2}\n" for row in range(3)] + [f"m.0a{row}\t1\tm.0b\t{row + 1}\n" for row in range(3)]
    )
    for read in (read_lfw_pairs(written(tmp_path, text * 4)), read_pair_list(written(tmp_path, text * 4))[0]):
        assert read.folds is not None and read.folds.tolist() == np.repeat(range(4), 6).tolist()
        assert (read.left[0], read.right[5]) == ("m.0a0/m.0a0_0001", "m.0b/m.0b_0003")
    assert read_lfw_pairs(written(tmp_path, text)).folds is None  # one run of each kind
    assert read_pair_list(written(tmp_path, "3\n" + text))[0].folds is None  # as LFW's pairsDevTrain.txt


def two_lines(rows: list[tuple[str, str, int]]) -> str:
    return "".join(f"{a} {number}\n{b} {number}\n" for a, b, number in rows)


def test_calfws_list_numbers_the_folds_of_genuine_pairs(tmp_path: Path) -> None:
    genuine = [(f"A_B_{row:04d}.jpg", f"A_B_{row + 1:04d}.jpg", 1 + row // 2) for row in range(6)]
    impostor = [(f"A_B_{row:04d}.jpg", f"C_{row:04d}.jpg", 0) for row in range(9)]
    read, form = read_pair_list(written(tmp_path, two_lines([*genuine, *impostor])))
    assert form == "two-line" and read.folds is not None and read.left_identity is not None
    assert read.folds.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert read.same.tolist() == [True] * 6 + [False] * 9
    assert (read.left[0], read.right[-1], read.left_identity[0]) == ("A_B_0000.jpg", "C_0008.jpg", "A_B")


def test_a_two_line_list_with_flags_has_the_folds_of_its_runs(tmp_path: Path) -> None:
    rows = [("A_1.jpg", "A_2.jpg", 1), ("A_1.jpg", "A_3.jpg", 1), ("A_1.jpg", "B_2.jpg", 0), ("A_1.jpg", "C_2.jpg", 0)]
    read = read_pair_list(written(tmp_path, two_lines(rows * 2)))[0]
    assert read.folds is not None and read.folds.tolist() == [0] * 4 + [1] * 4
    assert read_pair_list(written(tmp_path, two_lines(rows)))[0].folds is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a_1.jpg 1\na_2.jpg 2\n", "line 2 must be another file than the line before, with the same number"),
        ("a_1.jpg 1\na_1.jpg 1\n", "line 2 must be another file"),
        ("a_1.jpg 1\na_2.jpg 1\nb_1.jpg 0\n", "must have two lines per pair; got 3; it is cut short"),
        ("a_1.jpg 1\na_2.jpg \u00b2\nb_1.jpg 0\n", "line 2 must be `Name_0001.jpg 1`, a file and its pair's number"),
    ],
)
def test_malformed_two_line_lists(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_pair_list(written(tmp_path, text), "two-line")


def test_a_list_of_another_form_than_was_said_is_told_so(data_folder: Path, tmp_path: Path) -> None:
    path = data_folder / "protocols" / "lfw_pairs.txt"
    assert read_pair_list(path)[1] == "lfw"
    with pytest.raises(
        InputError, match=r"line 2 must be two different ids .*; its lines look like lfw: LFW's pairs.txt"
    ):
        read_pair_list(path, "plain")
    with pytest.raises(InputError, match="format must be one of 'auto', 'plain', 'lfw', 'two-line'; got 'lwf'"):
        read_pair_list(written(tmp_path, "a b 1"), "lwf")
