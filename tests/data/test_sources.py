"""Every format, written here as it is published, read as rows; and what each reader has to leave out, named."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from angulus.checks import InputError
from angulus.data.records import Row, write_records
from angulus.data.sources import KINDS, LeftOut, Options, kind_of, read_source
from angulus.data.sources.common import unsafe
from data.pictures import BAD, jpeg, png, png_that_says

TEN = [38.25, 51.5, 73.5, 51.75, 56.0, 71.5, 41.5, 92.25, 70.75, 92.5]


def split(path: Path, kind: str | None = None, **options: Any) -> tuple[list[Row], dict[str, str]]:
    items = list(read_source(path, kind, Options(**options)))
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
    monkeypatch.setattr("angulus.data.sources.common.MOST_BYTES", len(png(4)))
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
        assert left_out.pop(name.replace("a/../../b.png", "a\\..\\..\\b.png")) == "its path leaves the archive"
    assert left_out.pop("a/\n.png") == "its path holds control characters"
    assert left_out.pop("a/link.png") == "it is a symbolic link"
    assert left_out.pop("a/ok.png") == "the archive has an entry of this name before it"
    assert "it cannot be unpacked" in left_out.pop("a/damaged.png")
    assert "it cannot be unpacked" in left_out.pop("a/locked.png")
    assert left_out == {}


def test_a_zip_that_unpacks_to_more_than_an_image_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "bomb.zip", {"a/zeros.png": png() + bytes(1_000_000), "a/ok.png": png()})
    monkeypatch.setattr("angulus.data.sources.common.MOST_BYTES", 10_000)
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
        ("file,identity\n", "'path' among them"),
        ("path,label\n", "'identity' among them"),
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
    with pytest.raises(InputError, match="depth goes with a folder or a zip"):
        split(tmp_path, "tar", depth=1)
    with pytest.raises(InputError, match="root goes with a csv or lst list"):
        split(tmp_path, root=tmp_path)
    with pytest.raises(InputError, match="root must be a folder"):
        split(tmp_path, root=tmp_path / "x.doc")
    with pytest.raises(InputError, match="depth must be a whole number >= 1"):
        split(tmp_path, depth=0)
    assert len(KINDS) == 9
