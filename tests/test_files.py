"""Writing: whole or not at all, with the rights that a new file has, and errors that say the way out."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from angulus.core import files
from angulus.core.checks import InputError


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "θ one\n")
    assert path.read_bytes() == "θ one\n".encode()
    files.write_text(path, "two")
    assert path.read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_json_keeps_signs_and_ends_in_a_line_break(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"title": "‖x‖ ± γ", "numbers": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "‖x‖ ± γ" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"title": "‖x‖ ± γ", "numbers": [1, 2.5, None]}


def test_a_name_that_is_not_utf8_is_an_escape_in_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", ["3\udcff.jpg"])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == ["3\udcff.jpg"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_text())

    files.write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_the_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda *paths: (done.append("replace"), replace(*paths))[1])
    files.write_text(tmp_path / "a.txt", "text")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_rights_that_the_umask_leaves(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "a.txt", "text")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise error

    with pytest.raises(type(error)) as raised:
        files.write_atomically(path, write)
    assert raised.value is error  # a bug is not told as a full disk
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_full_disk_at_any_call_leaves_the_old_file_and_says_the_way_out(
    call: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    if kept:
        path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner = {"fsync": os, "replace": Path, "open": Path}[call]
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(InputError) as raised:
        files.write_text(path, "new")
    monkeypatch.undo()
    way = "free some space and run the same command again (train: with --resume)"
    sentence = f"cannot write {path}: No space left on device; {way}"
    assert str(raised.value) == sentence + ("; a.txt is kept as it was" if kept else "")
    assert [each.read_text() for each in tmp_path.iterdir()] == (["old"] if kept else [])


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose a folder that you may write with --out"),
        (errno.EROFS, "choose a folder that you may write with --out"),
        (errno.ENOTDIR, "a file is where a folder is needed"),
    ],
)
def test_sentences_name_the_file_the_reason_and_the_way_out(number: int, way: str) -> None:
    sentence = files.sentence(OSError(number, os.strerror(number)), "out/a.txt")
    assert sentence.startswith(f"cannot write out/a.txt: {os.strerror(number)}; {way}")


def test_a_sentence_without_a_path_or_a_known_way_out() -> None:
    assert files.sentence(OSError(errno.EIO, "Input/output error", "b.txt")) == "cannot write b.txt: Input/output error"
    assert files.sentence(OSError("odd")) == "cannot write the output: odd"


def test_folders_are_made_with_their_parents_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "c"):
        with pytest.raises(InputError, match="a file is where a folder is needed; choose another --out"):
            files.make_folder(path)


def test_writing_into_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*a.txt: No such file or directory"):
        files.write_text(tmp_path / "missing" / "a.txt", "text")
    assert not (tmp_path / "missing").exists()


def test_leftovers_go_at_a_write_or_all_at_once(tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.{number:032x}.tmp" for number, name in enumerate(("a.txt", "a.txt", "b.txt"))]
    for path in left:
        path.touch()
    files.write_atomically(tmp_path / "a.txt", lambda file: file.write(b"one"), tidy=False)
    assert all(path.exists() for path in left)
    files.write_atomically(tmp_path / "a.txt", lambda file: file.write(b"two"))
    assert [path.exists() for path in left] == [False, False, True]
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
