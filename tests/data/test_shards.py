"""Tars: photos in folders, and shards of samples."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.data.sources import kind_of
from data.pictures import jpeg, png
from data.source_files import TEN, about, hub, labels_of, split, tarred


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
    assert labels_of(rows) == [("n1/0001", "7"), ("n1/0002", "ann"), ("0004", "3"), ("0005", "")]
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
    assert labels_of(rows) == [("twice", "")]
    assert rows[0].image == png(1)
    for name, message in {
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
        assert message in left_out.pop(name)
    assert left_out == {}


def test_shards_of_a_folder_come_in_order(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        tarred(tmp_path / f"shard-{number}.tar", [(f"{number}.png", png(number))])
    assert [row.id for row in split(tmp_path)[0]] == ["0", "1", "2"]


def test_a_system_file_is_no_shard(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", [("1.png", png())])
    (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7")
    assert labels_of(split(tmp_path)[0]) == [("1", "")]


def test_a_tar_of_folders(tmp_path: Path) -> None:
    names = ["lfw/Ann_B/Ann_B_0001.jpg", "lfw/Ann_B/Ann.B.0002.jpg", "lfw/Cy/Cy_0001.jpg"]
    path = tarred(tmp_path / "lfw.tgz", [(name, jpeg(n)) for n, name in enumerate(names)], "w:gz")
    assert labels_of(split(path)[0]) == [(name, name.rpartition("/")[0]) for name in names]
    assert labels_of(split(path, depth=2)[0]) == [(name, name.split("/")[1]) for name in names]


def test_a_sample_without_identity_is_unknown_where_others_state_theirs(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", [("s/1.png", png(1)), ("s/1.cls", b"7"), ("s/2.png", png(2))])
    assert labels_of(split(path)[0]) == [("s/1", "7"), ("s/2", "")]
    with pytest.raises(InputError, match="state theirs"):
        split(path, depth=1)


def test_samples_with_landmarks_in_folders(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", [("ann/1.png", png(1)), ("ann/1.json", about(landmarks=TEN))])
    (row,) = split(path)[0]
    assert labels_of([row]) == [("ann/1", "ann")]
    assert row.landmarks is not None


def test_shards_that_name_their_samples_alike(tmp_path: Path) -> None:
    for shard in "ab":
        tarred(tmp_path / f"{shard}.tar", [(f"{n}.png", png(n)) for n in range(3)])
    rows, left_out = split(tmp_path)
    assert [row.id for row in rows] == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert "images of the same name" in left_out["."]


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_odd_json_next_to_an_image(tmp_path: Path, text: bytes, message: str) -> None:
    ok = [("2.png", png(2)), ("2.cls", b"ann")]
    path = tarred(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", text), *ok])
    rows, left_out = split(path)
    assert ("2", "ann") in labels_of(rows)
    assert any(message in reason for reason in left_out.values())


@pytest.mark.parametrize("value", [None, float("nan"), ""])
def test_json_that_states_no_identity(tmp_path: Path, value: Any) -> None:
    path = tarred(
        tmp_path / "a.tar", [("1.png", png(1)), ("1.json", about(identity=value)), ("2.png", png()), ("2.cls", b"x")]
    )
    assert labels_of(split(path)[0]) == [("1", ""), ("2", "x")]


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
    assert labels_of(rows) == [("a/0.png", "a")]
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
    assert labels_of(rows) == [("s", "")]
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
