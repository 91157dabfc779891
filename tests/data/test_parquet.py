"""Parquet files with images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.records import Row
from angulus.data.sources import read_source
from data.pictures import jpeg, png
from data.source_files import TEN, hub, labels_of, split


def test_parquet_with_bytes(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    table = pa.table(
        {
            "image": pa.array([jpeg(1), None, b"text", png(2)], pa.binary()),
            "label": [3, 3, 4, 4],
            "path": ["a.jpg", "b.jpg", "c.jpg", "d.png"],
            "score": [0.5, 0.5, 0.5, None],
            "landmarks": [TEN, TEN, TEN, None],
            "split": ["train"] * 4,
        }
    )
    pq.write_table(table, path)
    rows, left_out = split(path)
    assert labels_of(rows) == [("a.jpg", "3"), ("d.png", "4")]
    assert [row.score for row in rows] == [0.5, None]
    assert rows[0].landmarks is not None and rows[0].landmarks.ravel().tolist() == TEN
    assert rows[1].landmarks is None
    assert "no bytes" in left_out["b.jpg"] and "first bytes" in left_out["c.jpg"]
    assert left_out["set.parquet"] == "its columns split have no place in records"


def test_parquet_as_the_hubs_have_it(tmp_path: Path) -> None:
    features = {
        "info": {"features": {"label": {"names": ["ann", "bob"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}
    }
    images = [
        {"bytes": jpeg(1), "path": "x/1.jpg"},
        {"bytes": png(2), "path": None},
        {"bytes": png(3), "path": "3.png"},
    ]
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps(features)},
    )
    path = tmp_path / "train-00000.parquet"
    pq.write_table(pa.table({"image": images, "label": [1, 0, 2]}, schema=schema), path)
    rows, left_out = split(tmp_path)
    assert labels_of(rows) == [("x/1.jpg", "bob"), ("train-00000-00000001", "ann")]
    assert left_out == {"3.png": "its label must be in [0, 2); got 2"}


def test_parquet_without_images(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": [5], "label": [1]}), path)
    with pytest.raises(InputError, match=r"must have a column of image bytes called .*got 'image' \(int64\)"):
        split(path)


def test_parquet_with_landmarks_of_another_number(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": [png()], "label": ["ann"], "landmarks": [[1.0, 2.0]]}), path)
    assert split(path)[1] == {"set-00000000": "its landmarks must be ten numbers; got 2"}


def test_parquet_whose_file_names_repeat(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(5)] * 6
    people = [f"p{n // 5}" for n in range(30)]
    path = hub(tmp_path / "a.parquet", names, label=people, key=[f"k{n}" for n in range(30)])
    rows, left_out = split(path)
    assert [row.identity for row in rows] == people
    assert len({row.id for row in rows}) == 30 and rows[6].id == "a-00000006"
    assert "repeat, such as '0.jpg'" in left_out["."]
    assert [row.id for row in split(path, id_column="key")[0]] == [f"k{n}" for n in range(30)]
    with pytest.raises(InputError, match="id_column must name a column without repeats"):
        split(path, id_column="label")
    with pytest.raises(InputError, match=r"id_column must be a column of .*got 'keys'; did you mean 'key'"):
        split(path, id_column="keys")


def test_parquet_files_whose_names_repeat_among_them(tmp_path: Path) -> None:
    for name in "ab":
        hub(tmp_path / f"{name}.parquet", ["0.jpg", "1.jpg"])
    assert [row.id for row in split(tmp_path)[0]] == ["a-00000000", "a-00000001", "b-00000000", "b-00000001"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([b"ann", None, b"\xff"], pa.binary()), ["ann", "", None]),
        (pa.array([7.0, float("nan"), 7.5]), ["7", "", None]),
        (pa.array([7, None, 9007199254740993]), ["7", "", "9007199254740993"]),
        (pa.array(["ann", "nan", ""]), ["ann", "nan", ""]),
        (pa.array([["a"], None, ["b"]]), [None, "", None]),
    ],
)
def test_parquet_identities_of_every_type(tmp_path: Path, values: Any, shown: list[str | None]) -> None:
    pq.write_table(pa.table({"image": [png(n) for n in range(3)], "identity": values}), tmp_path / "a.parquet")
    rows, left_out = split(tmp_path / "a.parquet")
    assert {row.id: row.identity for row in rows} == {
        f"a-{n:08d}": text for n, text in enumerate(shown) if text is not None
    }
    assert len(left_out) == shown.count(None)


def test_parquet_labels_that_the_hub_does_not_know(tmp_path: Path) -> None:
    meta = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["ann"]}}}})}
    table = pa.table({"image": [png(0), png(1)], "label": [0, -1]}).replace_schema_metadata(meta)
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row.identity for row in split(tmp_path / "a.parquet")[0]] == ["ann", ""]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("score", ["high", "0.5"], "score must be a number; got 'high'"),
        ("landmarks", [[[1.0], [2.0, 3.0]], [TEN[:2]] * 5], "landmarks must be ten numbers"),
        ("landmarks", [["a"] * 10, ["1"] * 10], "landmarks must be ten numbers"),
        ("id", [b"\xff", b"b"], "id must be UTF-8"),
    ],
)
def test_one_odd_parquet_cell_leaves_out_its_row(tmp_path: Path, column: str, values: Any, message: str) -> None:
    pq.write_table(pa.table({"image": [png(0), png(1)], column: values}), tmp_path / "a.parquet")
    rows, left_out = split(tmp_path / "a.parquet")
    assert len(rows) == 1
    assert message in left_out["a-00000000"]


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_pages_do_not_fill_the_memory(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "x.parquet"
    image = png() + bytes(2**22)
    table = pa.table({"image": [image] * 256, "id": [f"{n}" for n in range(256)], "label": ["ann"] * 256})
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary)
    limits.set_most_unpacked("32M")
    try:
        before = pa.total_allocated_bytes()
        if not dictionary:
            with pytest.raises(
                InputError, match=r"row group 0, must unpack to at most 33,554,432 bytes.*--max-unpacked"
            ):
                split(path)
            return
        for item in read_source(path):
            assert isinstance(item, Row)
            assert pa.total_allocated_bytes() - before < 2**26
    finally:
        limits.set_most_unpacked(None)


def test_parquet_with_more_rows_than_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.nulls(1_000_000, pa.binary())}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no more rows than bytes; it says 1,000,000"):
        split(tmp_path / "x.parquet")
