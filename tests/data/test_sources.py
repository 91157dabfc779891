"""Every format, written here as it is published, read as rows; and what each reader has to leave out, named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.records import Row, write_records
from angulus.data.sources import KINDS, LeftOut, Remark, SourceOptions, kind_of, read_source
from angulus.data.sources.csv_list import cells_of
from angulus.data.sources.items import unsafe
from data.pictures import BAD, jpeg, png, png_that_says

TEN = [38.25, 51.5, 73.5, 51.75, 56.0, 71.5, 41.5, 92.25, 70.75, 92.5]


def split(path: Path, kind: str | None = None, **options: Any) -> tuple[list[Row], dict[str, str]]:
    items = list(read_source(path, kind, SourceOptions(**options)))
    rows = [item for item in items if isinstance(item, Row)]
    return rows, {item.where: item.reason for item in items if isinstance(item, LeftOut)}


def told(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(row.id, row.identity) for row in rows]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


TREE = {"ann/1.jpg": jpeg(1), "ann/2.png": png(2), "bob/video/3.jpg": jpeg(3), "top.jpg": jpeg(4)}
TOLD = [("ann/1.jpg", "ann"), ("ann/2.png", "ann"), ("bob/video/3.jpg", "bob/video"), ("top.jpg", "")]


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_give_identities(tmp_path: Path, kind: str) -> None:
    source = put(tmp_path / "tree", TREE) if kind == "folder" else zipped(tmp_path / "tree.zip", TREE)
    assert kind_of(source) == kind
    rows, left_out = split(source)
    assert told(rows) == TOLD
    assert [row.image for row in rows] == list(TREE.values())
    assert left_out == {}
    rows, left_out = split(source, depth=1)
    assert told(rows) == [("ann/1.jpg", "ann"), ("ann/2.png", "ann"), ("bob/video/3.jpg", "bob")]
    assert list(left_out) == ["top.jpg"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_that_are_no_images_are_named(tmp_path: Path, kind: str) -> None:
    files = {
        "a/empty.jpg": b"",
        "a/text.jpg": b"these are no pixels",
        "a/bomb.png": png_that_says(50_000, 50_000),
        "a/half.jpg": jpeg(0, 50, 50)[:200],
        "a/moving.gif": BAD["moving.gif"][0],
        "a/ok.png": png(),
        "notes.txt": b"remember the milk",
    }
    rows, left_out = split(put(tmp_path / "t", files) if kind == "folder" else zipped(tmp_path / "t.zip", files))
    assert told(rows) == [("a/ok.png", "a")]
    for name, said in {
        "a/empty.jpg": "empty (0 bytes)",
        "a/text.jpg": "first bytes",
        "a/bomb.png": "at most 89,478,485 pixels",
        "a/half.jpg": "cut short",
        "a/moving.gif": "several frames",
        "notes.txt": "first bytes",
    }.items():
        assert said in left_out.pop(name)
    assert left_out == {}


def test_links_in_a_folder(tmp_path: Path) -> None:
    folder = put(tmp_path / "tree", {"ann/1.png": png(1)})
    put(tmp_path / "elsewhere", {"deep/2.png": png(2)})
    (folder / "bob").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "ann" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "ann" / "self").symlink_to(folder / "ann", target_is_directory=True)
    (folder / "ann" / "gone.png").symlink_to(tmp_path / "nothing")
    (folder / "round.png").symlink_to(folder / "round.png")
    (folder / "alias.png").symlink_to(folder / "ann" / "1.png")
    rows, left_out = split(folder)
    assert told(rows) == [("alias.png", ""), ("ann/1.png", "ann"), ("bob/deep/2.png", "bob/deep")]
    assert sorted(left_out) == ["ann/again", "ann/gone.png", "ann/self", "round.png"]
    assert "folder that it lies in" in left_out["ann/again"]
    assert "leads to no file" in left_out["ann/gone.png"]


def test_what_a_folder_cannot_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "tree", {"ann/1.png": png(1), "shut/2.png": png(2), "b/3.png": png(3), "b/4.png": png(4)})
    os.mkfifo(folder / "pipe.png")
    (folder / b"caf\xe9.png".decode(errors="surrogateescape")).write_bytes(png(5))
    scandir, read_bytes = os.scandir, Path.read_bytes

    def guarded(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def guarded_read(path: Path) -> bytes:
        if path.name == "3.png":
            raise OSError(5, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(os, "scandir", guarded)
    monkeypatch.setattr(Path, "read_bytes", guarded_read)
    monkeypatch.setattr("angulus.data.sources.items.MOST_BYTES", len(png(4)))
    rows, left_out = split(folder)
    assert told(rows) == [("ann/1.png", "ann"), ("b/4.png", "b")]
    assert left_out == {
        "b/3.png": "it cannot be read: Input/output error",
        "caf\\udce9.png": "its name is not UTF-8; rename it",
        "pipe.png": "it is no regular file",
        "shut": "the folder cannot be read: Permission denied",
    }
    (folder / "b" / "4.png").write_bytes(png(4) + b" ")
    assert "an image may have" in split(folder)[1]["b/4.png"]


def test_entries_that_a_zip_should_not_have(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../up.png", "/etc/passwd", "C:/x.png", "a\\..\\..\\b.png", "a/\n.png", "a/ok.png"):
            archive.writestr(name, png())
        archive.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/ok.png", png(1))
        archive.writestr("a/damaged.png", png(2))
        archive.writestr("a/locked.png", png(3))
    data = path.read_bytes()
    place = data.index(png(2))
    data = data[: place + 40] + bytes(4) + data[place + 44 :]
    entry = data.rindex(b"a/locked.png") - 46  # its line in the directory, where a flag says that it needs a password
    path.write_bytes(data[: entry + 8] + b"\x01" + data[entry + 9 :])
    rows, left_out = split(path)
    assert told(rows) == [("a/ok.png", "a")]
    assert rows[0].image == png()
    for name in ("../../up.png", "/etc/passwd", "C:/x.png", "a/../../b.png"):
        assert left_out.pop(name) == "its path leaves the archive"
    assert left_out.pop("a/\n.png") == "its path holds control characters"
    assert left_out.pop("a/link.png") == "it is a symbolic link"
    assert left_out.pop("a/ok.png") == "the archive has an entry of this name before it"
    assert "it cannot be unpacked" in left_out.pop("a/damaged.png")
    assert "it cannot be unpacked" in left_out.pop("a/locked.png")
    assert left_out == {}


def test_a_zip_that_unpacks_to_more_than_an_image_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "bomb.zip", {"a/zeros.png": png() + bytes(1_000_000), "a/ok.png": png()})
    monkeypatch.setattr("angulus.data.sources.items.MOST_BYTES", 10_000)
    rows, left_out = split(path)
    assert told(rows) == [("a/ok.png", "a")]
    assert "an image may have 10,000" in left_out["a/zeros.png"]


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "\\a", "..\\a", "c:\\a", "C:a"])
def test_unsafe_names(name: str) -> None:
    assert unsafe(name) == "its path leaves the archive"


@pytest.mark.parametrize("name", ["a/b.jpg", "a..b/c", "...", "é/ü.jpg", "a b.jpg"])
def test_safe_names(name: str) -> None:
    assert unsafe(name) is None


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
    assert told(rows) == [("ann/1.jpg", "Ann, the first"), ("./top.jpg", "bob")]
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
    assert told(rows) == [("first", "7")]
    assert rows[0].landmarks is not None and rows[0].landmarks.tolist() == np.reshape(TEN, (5, 2)).tolist()
    assert left_out == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo,identity\n", "'path' among them.*other names that are known: image, file"),
        ("path,who\n", "'identity' among them.*known: label, labels"),
        ("path,identity\na.jpg\n", "line 2 must be 2 cells"),
        ("path,identity,score\na.jpg,b,high\n", "line 2 must be a finite number under score; got 'high'"),
        ("path,identity,le_x,le_y\n", "all ten landmark columns or none; it lacks re_x"),
        ("", "it is empty"),
    ],
)
def test_csv_lists_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        split(path)


def test_lst_as_mxnet_writes_it(tmp_path: Path) -> None:
    put(tmp_path, TREE)
    path = tmp_path / "set.lst"
    path.write_text("0\t7.000000\tann/1.jpg\n1\t8\tann/2.png\n2\t8\tann/none.png\n")
    rows, left_out = split(path)
    assert told(rows) == [("ann/1.jpg", "7"), ("ann/2.png", "8")]
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
    assert told(rows) == [("ann/1.jpg", "0"), ("ann/2.png", "1"), ("top.jpg", "2")]
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


def test_bin_sets(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(([jpeg(1), b"no image", png(2), jpeg(3)], [True, False])))
    rows, left_out = split(path)
    assert told(rows) == [("0", ""), ("2", ""), ("3", "")]
    assert "first bytes" in left_out["1"]


def tarred(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def about(**values: Any) -> bytes:
    return json.dumps(values).encode()


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz")])
def test_tar_shards(tmp_path: Path, name: str, mode: str) -> None:
    members = [
        ("n1/0001.jpg", jpeg(1)),
        ("n1/0001.cls", b"7\n"),
        ("n1/0002.JPEG", jpeg(2)),
        ("n1/0002.json", about(identity="ann", score=0.25, landmarks=TEN)),
        ("n1/0003.v2.png", png(3)),
        ("0004.json", about(label=3, landmarks=np.reshape(TEN, (5, 2)).tolist())),
        ("0004.txt", b"a caption"),
        ("0004.png", png(4)),
        ("0005.png", png(5)),
    ]
    path = tarred(tmp_path / name, members, mode)
    assert kind_of(path) == kind_of(tmp_path) == "tar"
    rows, left_out = split(path)
    assert told(rows) == [("n1/0001", "7"), ("n1/0002", "ann"), ("0004", "3"), ("0005", "")]
    assert [row.score for row in rows] == [None, 0.25, None, None]
    for row in rows[1:3]:
        assert row.landmarks is not None and row.landmarks.ravel().tolist() == TEN
    assert "its members are v2.png" in left_out.pop("n1/0003")
    assert left_out == {
        "*.txt": "these 1 members have no place in records",
        "*.v2.png": "these 1 members have no place in records",
    }


def test_samples_and_members_that_a_shard_should_not_have(tmp_path: Path) -> None:
    path = tarred(
        tmp_path / "a.tar",
        [
            ("../up.png", png()),
            ("/etc/x.png", png()),
            ("two.png", png()),
            ("two.jpg", jpeg()),
            ("twice.png", png(1)),
            ("twice.png", png(2)),
            ("lone.cls", b"1"),
            ("odd.png", png()),
            ("odd.json", b"{"),
            ("list.png", png()),
            ("list.json", b"[]"),
            ("torn.png", png()),
            ("torn.cls", b"1"),
            ("torn.json", about(label=2)),
            ("nine.png", png()),
            ("nine.json", about(landmarks=TEN[:9])),
            ("text.jpg", b"text"),
            ("bytes.png", png()),
            ("bytes.cls", b"\xff\xfe"),
        ],
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    rows, left_out = split(path)
    assert told(rows) == [("twice", "")]
    assert rows[0].image == png(1)
    for name, said in {
        "../up.png": "leaves the archive",
        "/etc/x.png": "leaves the archive",
        "two": "must have one image; its members are jpg, png",
        "twice.png": "before it",
        "lone": "must have one image",
        "odd": "cannot be read",
        "list": "must hold a mapping",
        "torn": "identity must be one; got 1, 2",
        "nine": "landmarks must be ten numbers",
        "text": "first bytes",
        "bytes": "cannot be read",
        "link.png": "no regular file",
    }.items():
        assert said in left_out.pop(name)
    assert left_out == {}


def test_shards_of_a_folder_come_in_order(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        tarred(tmp_path / f"shard-{number}.tar", [(f"{number}.png", png(number))])
    assert [row.id for row in split(tmp_path)[0]] == ["0", "1", "2"]


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
    assert told(rows) == [("a.jpg", "3"), ("d.png", "4")]
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
    assert told(rows) == [("x/1.jpg", "bob"), ("train-00000-00000001", "ann")]
    assert left_out == {"3.png": "its label must be in [0, 2); got 2"}


def test_parquet_without_images(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [1]}), path)
    with pytest.raises(InputError, match="must have a column of image bytes called"):
        split(path)


def test_parquet_with_landmarks_of_another_number(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": [png()], "landmarks": [[1.0, 2.0]]}), path)
    assert split(path)[1] == {"set-00000000": "its landmarks must be ten numbers; got 2"}


def test_records_are_a_source(tmp_path: Path) -> None:
    rows = [Row("a", png(1), "x", np.reshape(TEN, (5, 2)).astype(np.float32), 0.5), Row("b", png(2), "")]
    write_records(tmp_path / "records", rows)
    found, left_out = split(tmp_path / "records")
    assert told(found) == [("a", "x"), ("b", "")]
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
    for kind in ("rec", "tar", "parquet"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="must hold"):
            split(tmp_path / "empty", kind)
    with pytest.raises(InputError, match="depth applies only to kind folder, zip or tar"):
        split(tmp_path, "lst", depth=1)
    with pytest.raises(InputError, match="root applies only to kind csv or lst"):
        split(tmp_path, root=tmp_path)
    with pytest.raises(InputError, match="root must be a folder"):
        split(tmp_path, root=tmp_path / "x.doc")
    with pytest.raises(InputError, match="depth must be a whole number >= 1"):
        split(tmp_path, depth=0)
    assert len(KINDS) == 9


def as_folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return put(tmp_path / "tree", files)


def as_zip(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return zipped(tmp_path / "tree.zip", files)


def as_tar(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return tarred(tmp_path / "tree.tgz", [*files.items()], "w:gz")


TREES = [as_folder, as_zip, as_tar]
SYSTEM = (".DS_Store", "ann/._1.jpg", "ann/Thumbs.db", "bob/desktop.ini", "__MACOSX/ann/1.jpg", "@eaDir/ann/1.jpg")


@pytest.mark.parametrize("made", TREES)
def test_files_of_an_operating_system_are_skipped_and_counted(tmp_path: Path, made: Any) -> None:
    path = made(tmp_path, {"ann/1.jpg": jpeg(1), "bob/2.jpg": jpeg(2)} | dict.fromkeys(SYSTEM, jpeg(3)))
    items = list(read_source(path))
    assert told([item for item in items if isinstance(item, Row)]) == [("ann/1.jpg", "ann"), ("bob/2.jpg", "bob")]
    (remark,) = [item for item in items if isinstance(item, LeftOut)]
    assert isinstance(remark, Remark) and not remark.image
    assert remark.reason.startswith("files of the operating system are skipped: 6, such as ")


def test_a_system_file_is_no_shard(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", [("1.png", png())])
    (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7")
    assert told(split(tmp_path)[0]) == [("1", "")]


def test_notes_next_to_photos_stand_for_no_image(tmp_path: Path) -> None:
    put(tmp_path, {"a/1.png": png(), "notes.txt": b"milk", "e.npz": b"PK", "a/old.tiff": b"II*\0"})
    left_out = {item.where: item.image for item in read_source(tmp_path) if isinstance(item, LeftOut)}
    assert left_out == {"notes.txt": False, "e.npz": False, "a/old.tiff": True}


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.rec", "x.parquet"])
def test_photos_next_to_an_archive_are_not_lost(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"ann/1.png": png(1), name: b""})
    if name == "x.parquet":
        pq.write_table(pa.table({"image": [png(2)]}), tmp_path / name)
    with pytest.raises(InputError, match=rf"holds an archive, {name}, and photos, such as ann/1.png; name the one"):
        read_source(tmp_path)
    rows, left_out = split(tmp_path, "folder")
    assert told(rows) == [("ann/1.png", "ann")]
    assert "give it by its own path" in left_out[name]


def test_what_embed_wrote_among_the_photos_breaks_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.png": png(1)})
    pq.write_table(pa.table({"embeddings": [[1.0, 2.0]], "ids": ["ann/1.png"]}), tmp_path / "e.parquet")
    assert kind_of(tmp_path) == "folder"
    items = list(read_source(tmp_path))
    assert told([item for item in items if isinstance(item, Row)]) == [("ann/1.png", "ann")]
    assert [(item.where, item.image) for item in items if isinstance(item, LeftOut)] == [("e.parquet", False)]


def test_archives_of_two_kinds_are_not_chosen_from(tmp_path: Path) -> None:
    put(tmp_path, {"a.tar": b"", "b.rec": b""})
    with pytest.raises(InputError, match=r"an archive, b.rec, and an archive, a.tar"):
        kind_of(tmp_path)


def test_about_json_among_photos_makes_no_records(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.png": png(1), "about.json": b"{}"})
    assert kind_of(tmp_path) == "folder"


SPLIT_TREE = {f"{part}/{name}/{n}.png": png(n) for n, part in enumerate(("train", "val")) for name in ("ann", "bob")}


@pytest.mark.parametrize("made", TREES)
@pytest.mark.parametrize("before", ["", "set/"])
def test_splits_are_no_identities(tmp_path: Path, made: Any, before: str) -> None:
    path = made(tmp_path, {before + name: data for name, data in SPLIT_TREE.items()})
    rows, left_out = split(path)
    assert [row.id for row in rows] == sorted(before + name for name in SPLIT_TREE)
    assert {row.identity for row in rows} == {before + "ann", before + "bob"}
    assert left_out["."].startswith("the folders train (2 images), val (2 images) are splits and not identities")
    rows, left_out = split(path, split="val")
    assert [row.id for row in rows] == [before + "val/ann/1.png", before + "val/bob/1.png"]
    assert "only val is read" in left_out["."]
    with pytest.raises(InputError, match=r"got 'test'; its splits are train, val"):
        split(path, split="test")


def test_splits_within_identities(tmp_path: Path) -> None:
    names = ("ann/train/1.png", "ann/test/2.png", "bob/train/1.png", "bob/test/2.png")
    rows, _ = split(put(tmp_path, {name: png(n) for n, name in enumerate(names)}))
    assert {row.identity for row in rows} == {"ann", "bob"}


def test_market_1501_is_not_three_people(tmp_path: Path) -> None:
    names = [f"{part}/{name}" for part in ("bounding_box_train", "bounding_box_test", "query") for name in MARKET]
    rows, left_out = split(put(tmp_path, {name: jpeg(n) for n, name in enumerate(names)}))
    assert {row.identity for row in rows} == {""}
    assert "are splits and not identities" in left_out["."]
    rows, _ = split(tmp_path, split="query", identity_pattern="/([0-9]+)_c")
    assert told(rows) == [(f"query/{MARKET[0]}", ""), (f"query/{MARKET[1]}", "0002"), (f"query/{MARKET[2]}", "0007")]


MARKET = ("-1_c1s1_000000_00.jpg", "0002_c1s1_000451_03.jpg", "0007_c2s1_000451_03.jpg")


@pytest.mark.parametrize(
    "names", [("test/1.png", "ann/2.png"), ("ann/test/1.png", "bob/2.png"), ("1.png",), ("trains/a/1.png",)]
)
def test_what_are_no_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows, left_out = split(put(tmp_path, {name: png(n) for n, name in enumerate(names)}))
    assert {row.id: row.identity for row in rows} == {name: name.rpartition("/")[0] for name in names}
    assert left_out == {}


def test_folders_some_of_which_look_like_splits_are_told(tmp_path: Path) -> None:
    files = SPLIT_TREE | {"distractors/x/1.png": png()}
    rows, left_out = split(put(tmp_path, files))
    assert len({row.identity for row in rows}) == 5
    assert "train, val look like splits, but distractors next to them does not" in left_out["."]
    assert len(split(tmp_path, split="train")[0]) == 2


@pytest.mark.parametrize("pattern", ["[0-9]+", "(", "(" * 5000])
def test_patterns_that_name_nothing(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="identity_pattern must"):
        split(tmp_path, identity_pattern=pattern)


def test_depth_and_pattern_are_not_given_together() -> None:
    with pytest.raises(InputError, match="give one of them"):
        SourceOptions(depth=1, identity_pattern="(.)")


def test_a_zip_that_windows_wrote(tmp_path: Path) -> None:
    rows, _ = split(zipped(tmp_path / "x.zip", {"ann\\1.jpg": jpeg(1), "bob\\1.jpg": jpeg(2), "bob\\": b""}))
    assert told(rows) == [("ann/1.jpg", "ann"), ("bob/1.jpg", "bob")]


def test_a_list_that_windows_wrote(tmp_path: Path) -> None:
    put(tmp_path, {"ann/1.jpg": jpeg(), "list.csv": b"path;identity\r\nann\\1.jpg;ann\r\n..\\1.jpg;bob\r\n"})
    rows, left_out = split(tmp_path / "list.csv")
    assert told(rows) == [("ann\\1.jpg", "ann")]
    assert "its path leaves" in left_out["..\\1.jpg"]


def test_a_tar_of_folders(tmp_path: Path) -> None:
    names = ["lfw/Ann_B/Ann_B_0001.jpg", "lfw/Ann_B/Ann.B.0002.jpg", "lfw/Cy/Cy_0001.jpg"]
    path = tarred(tmp_path / "lfw.tgz", [(name, jpeg(n)) for n, name in enumerate(names)], "w:gz")
    assert told(split(path)[0]) == [(name, name.rpartition("/")[0]) for name in names]
    assert told(split(path, depth=2)[0]) == [(name, name.split("/")[1]) for name in names]


def test_a_sample_without_identity_is_unknown_where_others_state_theirs(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", [("s/1.png", png(1)), ("s/1.cls", b"7"), ("s/2.png", png(2))])
    assert told(split(path)[0]) == [("s/1", "7"), ("s/2", "")]
    with pytest.raises(InputError, match="state theirs"):
        split(path, depth=1)


def test_samples_with_landmarks_in_folders(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", [("ann/1.png", png(1)), ("ann/1.json", about(landmarks=TEN))])
    (row,) = split(path)[0]
    assert told([row]) == [("ann/1", "ann")]
    assert row.landmarks is not None


def test_shards_that_name_their_samples_alike(tmp_path: Path) -> None:
    for shard in "ab":
        tarred(tmp_path / f"{shard}.tar", [(f"{n}.png", png(n)) for n in range(3)])
    rows, left_out = split(tmp_path)
    assert [row.id for row in rows] == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert "images of the same name" in left_out["."]


def hub(path: Path, paths: Sequence[str], **columns: Sequence[Any]) -> Path:
    images = [{"bytes": png(n), "path": name} for n, name in enumerate(paths)]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


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
    ("column", "values", "said"),
    [
        ("score", ["high", "0.5"], "score must be a number; got 'high'"),
        ("landmarks", [[[1.0], [2.0, 3.0]], [TEN[:2]] * 5], "landmarks must be ten numbers"),
        ("landmarks", [["a"] * 10, ["1"] * 10], "landmarks must be ten numbers"),
        ("id", [b"\xff", b"b"], "id must be UTF-8"),
    ],
)
def test_one_odd_parquet_cell_leaves_out_its_row(tmp_path: Path, column: str, values: Any, said: str) -> None:
    pq.write_table(pa.table({"image": [png(0), png(1)], column: values}), tmp_path / "a.parquet")
    rows, left_out = split(tmp_path / "a.parquet")
    assert len(rows) == 1
    assert said in left_out["a-00000000"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"score": 1' + b"0" * 400 + b"}", "score must be a number"),
        (b'{"score": 1' + b"0" * 5000 + b"}", "must be JSON"),
        (b'{"label": 1' + b"0" * 4200 + b"}", "label must be text or a whole number"),
        (b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "at most 64 deep"),
        (b'{"landmarks": [[1], [2, 3]]}', "landmarks must be ten numbers"),
        (b'{"landmarks": {"a": 1}}', "landmarks must be ten numbers"),
        (b'{"identity": ["ann"]}', "identity must be text or a whole number"),
        (b" " * (2**20 + 1), "must have at most 1,048,576 bytes"),
    ],
)
def test_odd_json_next_to_an_image(tmp_path: Path, text: bytes, said: str) -> None:
    ok = [("2.png", png(2)), ("2.cls", b"ann")]
    path = tarred(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", text), *ok])
    rows, left_out = split(path)
    assert ("2", "ann") in told(rows)
    assert any(said in reason for reason in left_out.values())


@pytest.mark.parametrize("value", [None, float("nan"), ""])
def test_json_that_states_no_identity(tmp_path: Path, value: Any) -> None:
    path = tarred(
        tmp_path / "a.tar", [("1.png", png(1)), ("1.json", about(identity=value)), ("2.png", png()), ("2.cls", b"x")]
    )
    assert told(split(path)[0]) == [("1", ""), ("2", "x")]


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


def test_ids_with_tabs_line_ends_and_spaces(tmp_path: Path) -> None:
    names = ["a\tb.png", "new\nline.png", " lead.png", "trail .png ", '"q".png']
    put(tmp_path / "tree", {f"ann/{name}": png(n) for n, name in enumerate(names)})
    rows, left_out = split(tmp_path / "tree")
    assert (sorted(row.id for row in rows), left_out) == (sorted(f"ann/{name}" for name in names), {})
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "identity"], *([row.id, row.identity] for row in rows)])
    assert told(split(tmp_path / "list.csv", root=tmp_path / "tree")[0]) == told(rows)


def test_a_last_line_without_identity(tmp_path: Path) -> None:
    put(tmp_path, {"1.png": png(1), "2.png": png(2), "list.tsv": b"path\tidentity\n1.png\tann\n2.png\t\n\n"})
    assert told(split(tmp_path / "list.tsv")[0]) == [("1.png", "ann"), ("2.png", "")]


@pytest.mark.parametrize("header", ["Path,Identity", "Image,label", "FILENAME,Class", " path , identity "])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_headings_by_other_names(tmp_path: Path, header: str, separator: str) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": f"{header}\n1.png,ann\n".replace(",", separator).encode()})
    assert told(split(tmp_path / "list.csv")[0]) == [("1.png", "ann")]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,file,identity", "one column for path; got image, file"),
        ("path,label,class", "one column for identity; got label, class"),
        ("path,identity,identity", "name each column once; got 'identity' 2 times"),
    ],
)
def test_headings_that_could_be_several(tmp_path: Path, header: str, said: str) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": f"{header}\n1.png,ann,x\n".encode()})
    with pytest.raises(InputError, match=said):
        split(tmp_path / "list.csv")


def test_a_cell_of_any_length(tmp_path: Path) -> None:
    put(tmp_path, {"1.png": png(1), "list.csv": b"path,identity,note\n1.png,ann," + b"x" * 200_000})
    assert told(split(tmp_path / "list.csv")[0]) == [("1.png", "ann")]


def test_lists_by_path(tmp_path: Path) -> None:
    put(tmp_path, {f"my faces/{n}.jpg": jpeg(n) for n in range(3)})
    for text in ("my faces/0.jpg 0 7 0\nmy faces/1.jpg 0 8 0\n", "my faces/0.jpg 7\nmy faces/1.jpg\t8\n"):
        (tmp_path / "list.txt").write_text(text)
        assert kind_of(tmp_path / "list.txt") == "lst"
        assert told(split(tmp_path / "list.txt")[0]) == [("my faces/0.jpg", "7"), ("my faces/1.jpg", "8")]
    (tmp_path / "list.txt").write_text("my faces/0.jpg ann\n")
    assert told(split(tmp_path / "list.txt")[0]) == [("my faces/0.jpg", "ann")]


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


def test_damaged_shards_and_tables_are_skipped_where_asked(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(3):
        tarred(tmp_path / f"{number}.tar", [(f"{number}-{n}.png", png(n)) for n in range(2)])
        hub(tmp_path / "p" / f"{number}.parquet", [f"{number}.jpg"])
    for kind, folder in (("tar", tmp_path), ("parquet", tmp_path / "p")):
        (folder / f"1.{kind}").write_bytes((folder / f"1.{kind}").read_bytes()[:700])
        with pytest.raises(InputError, match="must be a whole"):
            split(folder)
        rows, left_out = split(folder, on_error="skip")
        assert {row.id[0] for row in rows} == {"0", "2"}
        assert f"1.{kind}" in left_out


def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", [(f"a/{n}.png", png(n)) for n in range(3)])
    data = bytearray(path.read_bytes())
    data[data.index(b"a/1.png")] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x.tar must be a whole tar.*damaged header"):
        split(path)
    rows, left_out = split(path, on_error="skip")
    assert told(rows) == [("a/0.png", "a")]
    assert "damaged header" in left_out["x.tar"]


def test_tar_samples_do_not_fill_the_memory(tmp_path: Path) -> None:
    zeros = bytes(30 * 2**20)
    members = [("s.png", png()), *((f"s.x{n}", zeros) for n in range(20)), *((f"s.{n}.jpg", zeros) for n in range(3))]
    path = tarred(tmp_path / "x.tgz", members, "w:gz")
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    rows, _ = split(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told(rows) == [("s", "")]
    assert peak < 60 * 2**20


def test_a_tar_header_that_unpacks_to_much(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    with gzip.open(path, "wb") as file:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, 2**27
        file.write(info.tobuf())
        for _ in range(2**7):
            file.write(bytes(2**20))
    with pytest.raises(InputError, match="must have headers of at most 16,777,216 bytes"):
        split(path)


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_pages_do_not_fill_the_memory(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "x.parquet"
    image = png() + bytes(2**22)
    table = pa.table({"image": [image] * 256, "id": [f"{n}" for n in range(256)]})
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


def test_packed_lists_do_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"path,identity\n" + bytes(2**24)))
    limits.set_most_unpacked("1M")
    try:
        with pytest.raises(InputError, match=r"x.csv.gz must unpack to at most 1,048,576 bytes"):
            split(tmp_path / "x.csv.gz")
    finally:
        limits.set_most_unpacked(None)


def test_folders_that_nest_deep(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(70):
        folder /= "d"
    put(folder, {"1.png": png()})
    put(tmp_path, {"a/1.png": png()})
    rows, left_out = split(tmp_path)
    assert told(rows) == [("a/1.png", "a")]
    assert "to a depth of 64" in left_out["/".join("d" * 64)]


def test_an_entry_that_asks_for_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LZMA's dictionaries of 4 GB do."""

    def full(*_: object) -> None:
        raise MemoryError

    path = zipped(tmp_path / "x.zip", {"ann/1.png": png()})
    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    assert split(path)[1] == {"ann/1.png": "it cannot be unpacked: MemoryError"}


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
        said = [str(error)]
    else:
        said = [item.reason for item in items if isinstance(item, LeftOut)]
    assert said and all(text and "\n" not in text for text in said)
