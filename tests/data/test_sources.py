"""Formats and their recognition, and files that are damaged or odd."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from angulus.core.checks import InputError
from angulus.data.records import Row, write_records
from angulus.data.sources import KINDS, LeftOut, SourceOptions, kind_of, read_source
from data.pictures import jpeg, png
from data.source_files import TEN, labels_of, put, split, tarred, zipped


def test_bin_sets(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(([jpeg(1), b"no image", png(2), jpeg(3)], [True, False])))
    rows, left_out = split(path)
    assert labels_of(rows) == [("0", ""), ("2", ""), ("3", "")]
    assert "first bytes" in left_out["1"]


def test_records_are_a_source(tmp_path: Path) -> None:
    rows = [Row("a", png(1), "x", np.reshape(TEN, (5, 2)).astype(np.float32), 0.5), Row("b", png(2), "")]
    write_records(tmp_path / "records", rows)
    found, left_out = split(tmp_path / "records")
    assert labels_of(found) == [("a", "x"), ("b", "")]
    assert found[0].landmarks is not None and found[0].landmarks.ravel().tolist() == TEN
    assert left_out == {}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.parquet", "x.bin", "x.csv.gz"])
@pytest.mark.parametrize("data", [b"", b"these bytes are something else"])
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        split(tmp_path / name)


def test_files_cut_short(tmp_path: Path) -> None:
    big = [(f"{n}.png", png(n, 80, 80)) for n in range(4)]
    for path in (
        zipped(tmp_path / "x.zip", dict(big)),
        tarred(tmp_path / "x.tar", big),
        tarred(tmp_path / "y.tgz", big, "w:gz"),
    ):
        path.write_bytes(path.read_bytes()[:30_000])
        with pytest.raises(InputError, match=f"{path.name} must be a whole"):
            split(path)


def test_sources_that_are_not_there_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        split(tmp_path / "nothing")
    (tmp_path / "x.doc").write_bytes(b"x")
    with pytest.raises(InputError, match=r"must be a folder or end in \.zip, \.csv"):
        split(tmp_path / "x.doc")
    with pytest.raises(InputError, match="kind must be one of"):
        split(tmp_path, "folders")
    for kind in ("rec", "tar", "parquet", "arrow"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="must hold"):
            split(tmp_path / "empty", kind)
    with pytest.raises(InputError, match="depth applies only to kind folder, zip or tar"):
        split(tmp_path, "lst", depth=1)
    with pytest.raises(InputError, match="root applies only to kind csv, lst, parquet or arrow"):
        split(tmp_path, root=tmp_path)
    with pytest.raises(InputError, match="root must be a folder"):
        split(tmp_path, root=tmp_path / "x.doc")
    with pytest.raises(InputError, match="depth must be a whole number >= 1"):
        split(tmp_path, depth=0)
    assert len(KINDS) == 10


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.rec", "x.parquet"])
def test_photos_next_to_an_archive_are_not_lost(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"ann/1.png": png(1), name: b""})
    if name == "x.parquet":
        pq.write_table(pa.table({"image": [png(2)]}), tmp_path / name)
    with pytest.raises(InputError, match=rf"holds an archive, {name}, and photos, such as ann/1.png; name the one"):
        read_source(tmp_path)
    rows, left_out = split(tmp_path, "folder")
    assert labels_of(rows) == [("ann/1.png", "ann")]
    assert "give it by its own path" in left_out[name]


def test_what_embed_wrote_among_the_photos_breaks_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.png": png(1)})
    pq.write_table(pa.table({"embeddings": [[1.0, 2.0]], "ids": ["ann/1.png"]}), tmp_path / "e.parquet")
    assert kind_of(tmp_path) == "folder"
    items = list(read_source(tmp_path))
    assert labels_of([item for item in items if isinstance(item, Row)]) == [("ann/1.png", "ann")]
    assert [(item.where, item.image) for item in items if isinstance(item, LeftOut)] == [("e.parquet", False)]


def test_archives_of_two_kinds_are_not_chosen_from(tmp_path: Path) -> None:
    put(tmp_path, {"a.tar": b"", "b.rec": b""})
    with pytest.raises(InputError, match=r"an archive, b.rec, and an archive, a.tar"):
        kind_of(tmp_path)


def test_about_json_among_photos_makes_no_records(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.png": png(1), "about.json": b"{}"})
    assert kind_of(tmp_path) == "folder"


def parquet_of(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def pax_chain(count: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    return info.tobuf() * count


def a_tar(change: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a/1.png")
        info.size = len(png())
        archive.addfile(info, io.BytesIO(png()))
    return bytes(change(bytearray(stream.getvalue())))


ODD_FILES = {  # the smallest of each kind that a fuzzer found, or that gave a traceback once
    "chain.tar": pax_chain(3000),
    "half-header.tar": a_tar(lambda data: data[:100]),
    "half-member.tar": a_tar(lambda data: data[:700]),
    "negative.tar": a_tar(lambda data: data[:124] + b"\xff" * 12 + data[136:]),
    "empty.rec": b"\x0a\x23\xd7\xce",
    "schema.parquet": parquet_of(pa.table({"photo\nof": ["a"], "label": [1]})),
    "digits.csv": b"path,identity,score\na.png,x," + b"9" * 5000,
    "nan.csv": b"path,identity,score\na.png,x,nan",
    "quote.csv": b'path,identity\n"',
    "null.csv": b'path,identity,"x\0',
    "superscript.lst": "²\t1\ta.png".encode(),
    "box.lst": b"\t".join([b"1", b"a.png", b"2", b"x", b"x", b"x", b"x", *[b"1e400"] * 10]),
    "tabs.txt": b"a.png\t\t\t\t",
}


@pytest.mark.parametrize("name", ODD_FILES)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_odd_files_are_a_sentence(tmp_path: Path, name: str, on_error: str) -> None:
    (tmp_path / name).write_bytes(ODD_FILES[name])
    try:
        items = list(read_source(tmp_path / name, options=SourceOptions(on_error=on_error)))
    except InputError as error:
        message = [str(error)]
    else:
        message = [item.reason for item in items if isinstance(item, LeftOut)]
    assert message and all(text and "\n" not in text for text in message)
