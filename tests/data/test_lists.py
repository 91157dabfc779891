"""Lists of images: CSV with headings, MXNet's `.lst` and lists by path."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.sources import LeftOut, SourceOptions, kind_of
from angulus.data.sources.csv_list import cells_of
from data.pictures import jpeg, png
from data.source_files import TEN, TREE, labels_of, put, split


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_lists(tmp_path: Path, separator: str, packed: bool) -> None:
    folder = put(tmp_path, TREE)
    header = ["path", "identity", "split", "score", *(f"{p}_{a}" for p in ("le", "re", "n", "lm", "rm") for a in "xy")]
    body = [
        ["ann/1.jpg", "Ann, the first", "train", "0.5", *map(str, TEN)],
        ["./top.jpg", "bob", "test", "", *map(str, TEN[::-1])],
        ["ann/none.jpg", "bob", "test", "1", *map(str, TEN)],
        ["../secret.jpg", "bob", "test", "1", *map(str, TEN)],
        ["/etc/passwd", "bob", "test", "1", *map(str, TEN)],
    ]
    text = "\r\n".join(
        separator.join(f'"{cell}"' if "," in cell else cell for cell in line) for line in [header, *body]
    )
    path = folder / ("list.csv.gz" if packed else "list.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (tmp_path.parent / "secret.jpg").write_bytes(jpeg())
    rows, left_out = split(path)
    assert labels_of(rows) == [("ann/1.jpg", "Ann, the first"), ("./top.jpg", "bob")]
    assert rows[0].landmarks is not None and rows[0].landmarks.ravel().tolist() == TEN
    assert [row.score for row in rows] == [0.5, None]
    assert "no such file" in left_out["ann/none.jpg"]
    assert "its path leaves" in left_out["../secret.jpg"] and "its path leaves" in left_out["/etc/passwd"]
    assert left_out[path.name] == "its columns split have no place in records"
    assert len(left_out) == 4


def test_csv_with_ids_and_a_root(tmp_path: Path) -> None:
    put(tmp_path / "images", TREE)
    names = ",".join(f"{axis}{number}" for number in range(1, 6) for axis in "xy")
    path = tmp_path / "list.csv"
    path.write_text(f"id,path,identity,{names}\nfirst,ann/1.jpg,7,{','.join(map(str, TEN))}\n")
    rows, left_out = split(path, root=tmp_path / "images")
    assert labels_of(rows) == [("first", "7")]
    assert rows[0].landmarks is not None and rows[0].landmarks.tolist() == np.reshape(TEN, (5, 2)).tolist()
    assert left_out == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo,identity\n", "'path' among them.*other names that are known: image, file"),
        ("path,who\n", "'identity' among them.*known: label, labels"),
        ("path,identity\na.jpg\n", "line 2 must be 2 cells"),
        ("path,identity,score\na.jpg,b,high\n", "line 2 must be a finite number under score; got 'high'"),
        ("path,identity,le_x,le_y\n", "all ten landmark columns or none; it lacks re_x"),
        ("", "it is empty"),
    ],
)
def test_csv_lists_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        split(path)


def test_lst_as_mxnet_writes_it(tmp_path: Path) -> None:
    put(tmp_path, TREE)
    path = tmp_path / "set.lst"
    path.write_text("0\t7.000000\tann/1.jpg\n1\t8\tann/2.png\n2\t8\tann/none.png\n")
    rows, left_out = split(path)
    assert labels_of(rows) == [("ann/1.jpg", "7"), ("ann/2.png", "8")]
    assert list(left_out) == ["ann/none.png"]


def test_lst_of_the_face_recipes(tmp_path: Path) -> None:
    put(tmp_path, TREE)
    path = tmp_path / "train.lst"
    planar = [*TEN[::2], *TEN[1::2]]
    path.write_text(
        "1\tann/1.jpg\t0\n0\tann/2.png\t1\t1\t2\t30\t40\n"
        + "\t".join(["0", "top.jpg", "2", "1", "2", "30", "40", *map(str, planar)])
    )
    rows, left_out = split(path)
    assert labels_of(rows) == [("ann/1.jpg", "0"), ("ann/2.png", "1"), ("top.jpg", "2")]
    assert rows[1].landmarks is None
    assert rows[2].landmarks is not None and rows[2].landmarks.ravel().tolist() == TEN
    assert left_out == {}


@pytest.mark.parametrize("line", ["1\ta.jpg", "0\t1.5\ta.jpg", "2\ta.jpg\t1", "1\ta.jpg\tx", "1\ta.jpg\t0\t1", "a b c"])
def test_lst_lines_that_are_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "set.lst"
    path.write_text("0\t1\tok.jpg\n" + line)
    put(tmp_path, {"ok.jpg": jpeg()})
    with pytest.raises(InputError, match="line 2 must be `index label path`"):
        split(path)


def test_lst_landmarks_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "set.lst"
    path.write_text("\t".join(["0", "a.jpg", "2", "1", "2", "30", "40", *"abcdefghij"]))
    with pytest.raises(InputError, match="line 1 must be ten landmark numbers"):
        split(path)


def test_a_list_that_windows_wrote(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.jpg": jpeg(), "list.csv": b"path;identity\r\nann\\1.jpg;ann\r\n..\\1.jpg;bob\r\n"})
    rows, left_out = split(tmp_path / "list.csv")
    assert labels_of(rows) == [("ann\\1.jpg", "ann")]
    assert "its path leaves" in left_out["..\\1.jpg"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ('d/1.jpg,"A\nd/2.jpg,A\nd/3.jpg,B\n', 2),
        ('d/1.jpg,"A\nd/2.jpg,A\nd/3.jpg,B"\n', 2),
        ('d/1.jpg,A\n"d/2.jpg,A\n', 3),
        ('d/1.jpg,A\nd/2.jpg,"A', 3),
        ('d/1.jpg,"A"x\n', 2),
        ('d/1.jpg,A"x\n', 2),
        ('d/1.jpg,A\n"d/2.jpg""\n' + "x\n" * 300, 3),
    ],
)
def test_a_quote_that_is_not_closed_or_stray(tmp_path: Path, body: str, line: int) -> None:
    path = put(tmp_path, {f"d/{n}.jpg": jpeg(n) for n in (1, 2, 3)}) / "q.csv"
    path.write_text("path,identity\n" + body)
    with pytest.raises(InputError, match=rf"q.csv line {line} must be cells .*quotes"):
        split(path)


@given(
    st.lists(st.lists(st.text('ab,;"\t\n é', max_size=6), min_size=2, max_size=3), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
)
def test_cells_as_the_csv_module_reads_them(rows: list[list[str]], separator: str) -> None:
    rows = [[cell.replace("\n", "") if separator in cell else cell for cell in row] for row in rows]
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)
    lines = file.getvalue().removesuffix("\n").split("\n")
    found = [cells for _, cells in cells_of(Path("x"), lines, separator, SourceOptions())]
    assert found == [cells for cells in csv.reader(io.StringIO(file.getvalue()), delimiter=separator) if cells]


def test_many_cells_after_a_quote_are_read_in_linear_time() -> None:
    ((_, cells),) = cells_of(Path("x"), ['"a"' + "," * 1_000_000], ",", SourceOptions())
    assert not isinstance(cells, LeftOut) and len(cells) == 1_000_001


def test_ids_with_tabs_line_ends_and_spaces(tmp_path: Path) -> None:
    names = ["a\tb.png", "new\nline.png", " lead.png", "trail .png ", '"q".png']
    put(tmp_path / "tree", {f"ann/{name}": png(n) for n, name in enumerate(names)})
    rows, left_out = split(tmp_path / "tree")
    assert (sorted(row.id for row in rows), left_out) == (sorted(f"ann/{name}" for name in names), {})
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "identity"], *([row.id, row.identity] for row in rows)])
    assert labels_of(split(tmp_path / "list.csv", root=tmp_path / "tree")[0]) == labels_of(rows)


def test_a_last_line_without_identity(tmp_path: Path) -> None:
    put(tmp_path, {"1.png": png(1), "2.png": png(2), "list.tsv": b"path\tidentity\n1.png\tann\n2.png\t\n\n"})
    assert labels_of(split(tmp_path / "list.tsv")[0]) == [("1.png", "ann"), ("2.png", "")]


@pytest.mark.parametrize("header", ["Path,Identity", "Image,label", "FILENAME,Class", " path , identity "])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_headings_by_other_names(tmp_path: Path, header: str, separator: str) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": f"{header}\n1.png,ann\n".replace(",", separator).encode()})
    assert labels_of(split(tmp_path / "list.csv")[0]) == [("1.png", "ann")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,file,identity", "one column for path; got image, file"),
        ("path,label,class", "one column for identity; got label, class"),
        ("path,identity,identity", "name each column once; got 'identity' 2 times"),
    ],
)
def test_headings_that_could_be_several(tmp_path: Path, header: str, message: str) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": f"{header}\n1.png,ann,x\n".encode()})
    with pytest.raises(InputError, match=message):
        split(tmp_path / "list.csv")


def test_a_cell_of_any_length(tmp_path: Path) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": b"path,identity,note\n1.png,ann," + b"x" * 200_000})
    assert labels_of(split(tmp_path / "list.csv")[0]) == [("1.png", "ann")]


def test_lists_by_path(tmp_path: Path) -> None:
    put(tmp_path, {f"my faces/{n}.jpg": jpeg(n) for n in range(3)})
    for text in ("my faces/0.jpg 0 7 0\nmy faces/1.jpg 0 8 0\n", "my faces/0.jpg 7\nmy faces/1.jpg\t8\n"):
        (tmp_path / "list.txt").write_text(text)
        assert kind_of(tmp_path / "list.txt") == "lst"
        assert labels_of(split(tmp_path / "list.txt")[0]) == [("my faces/0.jpg", "7"), ("my faces/1.jpg", "8")]
    (tmp_path / "list.txt").write_text("my faces/0.jpg ann\n")
    assert labels_of(split(tmp_path / "list.txt")[0]) == [("my faces/0.jpg", "ann")]


@pytest.mark.parametrize("key", ["\u00b2", "9" * 5000, "-1", ""])
def test_keys_that_are_no_digits(tmp_path: Path, key: str) -> None:
    (tmp_path / "set.lst").write_text(f"{key}\t1\tok.jpg\n")
    with pytest.raises(InputError, match="line 1 must be `index label path`"):
        split(tmp_path / "set.lst")


def test_labels_that_a_float_would_round(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"a.png": png(1), "b.png": png(2), "set.lst": b"0\t9007199254740993\ta.png\n1\t9007199254740992\tb.png"},
    )
    assert [row.identity for row in split(tmp_path / "set.lst")[0]] == ["9007199254740993", "9007199254740992"]


def test_damaged_lines_are_skipped_where_asked(tmp_path: Path) -> None:
    put(tmp_path, {f"{n}.png": png(n) for n in range(3)})
    (tmp_path / "a.csv").write_text('path,identity,score\n0.png,a,x\n1.png,"a,1\n2.png,b\n1.png,b,1\n')
    (tmp_path / "a.lst").write_text("0\t1\t0.png\nnonsense\n1\t2\t1.png\n")
    for name, good, bad in (("a.csv", ["1.png"], 3), ("a.lst", ["0.png", "1.png"], 1)):
        with pytest.raises(InputError, match="--on-error skip"):
            split(tmp_path / name)
        rows, left_out = split(tmp_path / name, on_error="skip")
        assert [row.id for row in rows] == good
        assert len(left_out) == bad and all(where.startswith("line ") for where in left_out)


def test_packed_lists_do_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"path,identity\n" + bytes(2**24)))
    limits.set_most_unpacked("1M")
    try:
        with pytest.raises(InputError, match=r"x.csv.gz must unpack to at most 1,048,576 bytes"):
            split(tmp_path / "x.csv.gz")
    finally:
        limits.set_most_unpacked(None)
