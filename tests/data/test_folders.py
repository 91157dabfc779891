"""Folders and zips: images by identity, splits, and what is left out."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from angulus.core.checks import InputError
from angulus.data.records import Row
from angulus.data.sources import LeftOut, Remark, SourceOptions, kind_of, read_source
from angulus.data.sources.items import unsafe
from data.pictures import BAD, jpeg, png, png_that_says
from data.source_files import LABELS, TREE, as_folder, as_tar, as_zip, labels_of, put, split, zipped


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_give_identities(tmp_path: Path, kind: str) -> None:
    source = put(tmp_path / "tree", TREE) if kind == "folder" else zipped(tmp_path / "tree.zip", TREE)
    assert kind_of(source) == kind
    rows, left_out = split(source)
    assert labels_of(rows) == LABELS
    assert [row.image for row in rows] == list(TREE.values())
    assert left_out == {}
    rows, left_out = split(source, depth=1)
    assert labels_of(rows) == [("ann/1.jpg", "ann"), ("ann/2.png", "ann"), ("bob/video/3.jpg", "bob")]
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
    assert labels_of(rows) == [("a/ok.png", "a")]
    for name, message in {
        "a/empty.jpg": "empty (0 bytes)",
        "a/text.jpg": "first bytes",
        "a/bomb.png": "at most 89,478,485 pixels",
        "a/half.jpg": "cut short",
        "a/moving.gif": "several frames",
        "notes.txt": "first bytes",
    }.items():
        assert message in left_out.pop(name)
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
    assert labels_of(rows) == [("alias.png", ""), ("ann/1.png", "ann"), ("bob/deep/2.png", "bob/deep")]
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
    assert labels_of(rows) == [("ann/1.png", "ann"), ("b/4.png", "b")]
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
    assert labels_of(rows) == [("a/ok.png", "a")]
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
    assert labels_of(rows) == [("a/ok.png", "a")]
    assert "an image may have 10,000" in left_out["a/zeros.png"]


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "\\a", "..\\a", "c:\\a", "C:a"])
def test_unsafe_names(name: str) -> None:
    assert unsafe(name) == "its path leaves the archive"


@pytest.mark.parametrize("name", ["a/b.jpg", "a..b/c", "...", "é/ü.jpg", "a b.jpg"])
def test_safe_names(name: str) -> None:
    assert unsafe(name) is None


TREES = [as_folder, as_zip, as_tar]


SYSTEM = (".DS_Store", "ann/._1.jpg", "ann/Thumbs.db", "bob/desktop.ini", "__MACOSX/ann/1.jpg", "@eaDir/ann/1.jpg")


@pytest.mark.parametrize("made", TREES)
def test_files_of_an_operating_system_are_skipped_and_counted(tmp_path: Path, made: Any) -> None:
    path = made(tmp_path, {"ann/1.jpg": jpeg(1), "bob/2.jpg": jpeg(2)} | dict.fromkeys(SYSTEM, jpeg(3)))
    items = list(read_source(path))
    assert labels_of([item for item in items if isinstance(item, Row)]) == [("ann/1.jpg", "ann"), ("bob/2.jpg", "bob")]
    (remark,) = [item for item in items if isinstance(item, LeftOut)]
    assert isinstance(remark, Remark) and not remark.image
    assert remark.reason.startswith("files of the operating system are skipped: 6, such as ")


def test_notes_next_to_photos_stand_for_no_image(tmp_path: Path) -> None:
    put(tmp_path, {"a/1.png": png(), "notes.txt": b"milk", "e.npz": b"PK", "a/old.tiff": b"II*\0"})
    left_out = {item.where: item.image for item in read_source(tmp_path) if isinstance(item, LeftOut)}
    assert left_out == {"notes.txt": False, "e.npz": False, "a/old.tiff": True}


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
    assert labels_of(rows) == [
        (f"query/{MARKET[0]}", ""),
        (f"query/{MARKET[1]}", "0002"),
        (f"query/{MARKET[2]}", "0007"),
    ]


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
    assert labels_of(rows) == [("ann/1.jpg", "ann"), ("bob/1.jpg", "bob")]


def test_folders_that_nest_deep(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(70):
        folder /= "d"
    put(folder, {"1.png": png()})
    put(tmp_path, {"a/1.png": png()})
    rows, left_out = split(tmp_path)
    assert labels_of(rows) == [("a/1.png", "a")]
    assert "to a depth of 64" in left_out["/".join("d" * 64)]


def test_an_entry_that_asks_for_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LZMA's dictionaries of 4 GB do."""

    def full(*_: object) -> None:
        raise MemoryError

    path = zipped(tmp_path / "x.zip", {"ann/1.png": png()})
    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    assert split(path)[1] == {"ann/1.png": "it cannot be unpacked: MemoryError"}
