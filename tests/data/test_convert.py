"""Conversion of whole data sets, and the command."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from angulus.cli.convert import convert as command
from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT, PAIRS, convert
from angulus.data.records import Records, Row
from angulus.data.sources import Item, SourceOptions
from angulus.evaluation.lists.pair_list import read_pairs
from data.pictures import BAD, every_kind, face_rec, jpeg, noise, png


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for number, person in enumerate(["ann", "ann", "bob", "cy", "cy", "cy"]):
        (folder / person).mkdir(parents=True, exist_ok=True)
        (folder / person / f"{number}.png").write_bytes(png(number, 12 + number % 2, 10))
    (folder / "loose.png").write_bytes(png(9))
    (folder / "notes.txt").write_text("milk")
    broken = bytearray(png(8, 40, 40))
    broken[200] ^= 1
    (folder / "ann" / "torn.png").write_bytes(broken)
    return folder


def test_a_folder(tree: Path, tmp_path: Path) -> None:
    done = convert(tree, tmp_path / "out")
    assert (done.rows, done.identities, done.unknown, done.single) == (7, 3, 1, 1)
    assert done.sizes == {(12, 10): 4, (13, 10): 3}
    assert [item.where for item in done.left_out] == ["ann/torn.png", "notes.txt"]
    assert "decoding it gave" in done.left_out[0].reason
    records = Records(tmp_path / "out")
    assert records.identities.tolist() == ["ann", "ann", "bob", "cy", "cy", "cy", ""]
    assert records.images([2]) == [(tree / "bob" / "2.png").read_bytes()]
    lines = (tmp_path / "out" / LEFT_OUT).read_text().splitlines()
    assert [json.loads(line)["where"] for line in lines] == ["ann/torn.png", "notes.txt"]
    again = convert(tmp_path / "out", tmp_path / "again")
    assert (again.rows, again.left_out) == (7, ())
    assert Records(tmp_path / "again").ids.tolist() == records.ids.tolist()


def test_it_goes_on_where_it_stopped(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert(tree, tmp_path / "whole")
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 900)  # about two images

    def stop(count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tree, tmp_path / "out", on_row=stop)
    assert 0 < len(Records(tmp_path / "out", unfinished=True)) < 7
    assert convert(tree, tmp_path / "out") == whole
    assert Records(tmp_path / "out").ids.tolist() == Records(tmp_path / "whole").ids.tolist()
    with pytest.raises(InputError, match="holds whole records"):
        convert(tree, tmp_path / "out")


def test_a_source_that_has_changed_is_told(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 1)

    def stop(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tree, tmp_path / "out", on_row=stop)
    (tree / "ann" / "0.png").unlink()
    with pytest.raises(InputError, match=r"was begun with 1 rows that .* does not have, such as 'ann/0.png'"):
        convert(tree, tmp_path / "out")


def listed(folder: Path, identities: str, points: str = "1 2 3 4 5 6 7 8 9 10") -> Path:
    """A list of five images with these identities, in letters, and landmarks."""
    folder.mkdir(exist_ok=True)
    names = [f"{axis}{n}" for n in range(1, 6) for axis in "xy"]
    lines = ["path,identity,score," + ",".join(names)]
    for number, identity in enumerate(identities):
        if not (folder / f"{number}.png").exists():
            (folder / f"{number}.png").write_bytes(png(number))
        lines.append(f"{number}.png,{identity},0.5," + ",".join(points.split()))
    (folder / "l.csv").write_text("\n".join(lines) + "\n")
    return folder / "l.csv"


@pytest.mark.parametrize("change", ["identity", "image", "landmarks"])
def test_what_was_read_is_compared_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 1)
    source, out = listed(tmp_path / "set", "aabbc"), tmp_path / "out"

    def stop(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, on_row=stop)
    if change == "identity":
        listed(tmp_path / "set", "abbbc")
    elif change == "image":
        (tmp_path / "set" / "1.png").write_bytes(png(77))
    else:
        listed(tmp_path / "set", "aabbc", "1 2 3 4 5 6 7 8 9 11")
    named = "1.png" if change != "landmarks" else "0.png"
    with pytest.raises(InputError, match=rf"was begun with another '{named}'.*remove what was begun"):
        convert(source, out)
    assert len(Records(out, unfinished=True)) == 3
    listed(tmp_path / "set", "aabbc")
    (tmp_path / "set" / "1.png").write_bytes(png(1))
    assert convert(source, out).identities == 3
    assert Records(out).identities.tolist() == list("aabbc")


def test_a_failed_try_does_not_block_another(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.png").write_bytes(png())
    with pytest.raises(InputError, match="it gave none"):
        convert(tmp_path / "set", tmp_path / "out", options=SourceOptions(depth=2))
    assert not (tmp_path / "out").exists()
    assert convert(tmp_path / "set", tmp_path / "out").rows == 1


def test_a_bin_set_keeps_its_pairs(tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(pickle.dumps(([jpeg(n) for n in range(6)], [True, False, True])))
    done = convert(tmp_path / "set.bin", tmp_path / "out")
    assert (done.rows, done.unknown, done.identities) == (6, 6, 0)
    pairs = read_pairs(tmp_path / "out" / PAIRS)
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist()) == (
        ["0", "2", "4"],
        ["1", "3", "5"],
        [True, False, True],
    )


def test_a_rec_set_to_an_object_store(tmp_path: Path) -> None:
    face_rec(tmp_path, [jpeg(n) for n in range(4)], [0, 0, 1, 1])
    done = convert(tmp_path, "memory://convert/out")
    assert (done.rows, done.identities) == (4, 2)
    assert Records("memory://convert/out").identities.tolist() == ["0", "0", "1", "1"]


def test_two_rows_of_one_id(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: object) -> Iterator[Item]:
        yield Row("a", png(1), "x")
        yield Row("a", png(2), "y")

    monkeypatch.setattr("angulus.data.convert.read_source", twice)
    done = convert(tree, tmp_path / "out")
    assert (done.rows, done.left_out[0].reason) == (1, "the source has a row of this id before it")


def test_every_kind_of_image_is_a_row_or_is_named(tmp_path: Path) -> None:
    pixels = cv2.GaussianBlur(noise(3, 40, 40), (0, 0), 4)
    good = {f"ann/{name}": data for name, data in every_kind(pixels).items()}
    bad = {f"bob/{name}": data for name, (data, _) in BAD.items()}
    for name, data in (good | bad).items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    done = convert(tmp_path / "tree", tmp_path / "out")
    assert sorted(Records(tmp_path / "out").ids.tolist()) == sorted(good)
    assert {item.where for item in done.left_out} == set(bad)
    for item in done.left_out:
        assert BAD[Path(item.where).name][1] in item.reason


def test_a_full_disk_is_a_sentence_and_leaves_what_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        (tmp_path / "tree" / "ann").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / "ann" / f"{number}.png").write_bytes(png(number))
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 900)
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 4:  # a file and its folder each
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("angulus.core.files.os.fsync", full)
        with pytest.raises(InputError, match="free some space"):
            convert(tmp_path / "tree", tmp_path / "out")
    assert 0 < len(Records(tmp_path / "out", unfinished=True)) < 6
    assert convert(tmp_path / "tree", tmp_path / "out").rows == 6
    assert Records(tmp_path / "out").images([5]) == [png(5)]


def test_ctrl_c_says_that_it_can_be_gone_on_with(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("angulus.data.convert.convert", stopped)
    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, [str(tree), str(tmp_path / "out")])
    assert shown.exit_code == 130
    assert "Progress is saved. Run the same command again to resume." in shown.output


def test_what_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="out must not lie in the source"):
        convert(tree, tree / "out")
    (tmp_path / "poor").mkdir()
    with pytest.raises(InputError, match="must hold images; read as folder, it gave none"):
        convert(tmp_path / "poor", tmp_path / "out")
    (tmp_path / "poor" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"the first left out is a.jpg: the file must be an image; it is empty"):
        convert(tmp_path / "poor", tmp_path / "out")


def test_the_command(tree: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, [str(tree), str(tmp_path / "out"), "--depth", "1"])
    assert shown.exit_code == 0
    for said in (
        "6 images of 3 identities; 2 sizes: 12x10, 13x10",
        "1 identities have one image",
        "3 things were left out",
        "left-out.jsonl lists them",
        "notes.txt: its path must have 1 folders or more",
    ):
        assert said in shown.output


def test_real_sets(data_folder: Path, tmp_path: Path) -> None:
    done = convert(data_folder / "protocols" / "small_lfw.bin", tmp_path / "lfw")
    assert (done.rows, done.sizes, done.left_out) == (20, {(112, 112): 20}, ())
    done = convert(data_folder / "celebrity-faces" / "aligned_112.zip", tmp_path / "faces")
    assert (done.rows, done.identities, done.unknown, done.left_out) == (6139, 281, 0, ())
    records = Records(tmp_path / "faces")
    assert np.unique(records.identities).size == 281


def shown_by_the_command(*words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, list(words))
    assert shown.exit_code == 0, shown.output
    return " ".join(shown.output.split())


def test_splits_are_told_and_chosen(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val")):
        for person in ("ann", "bob", "cy"):
            (tmp_path / "tree" / part / person).mkdir(parents=True)
            (tmp_path / "tree" / part / person / "1.png").write_bytes(png(number))
    said = shown_by_the_command(str(tmp_path / "tree"), str(tmp_path / "all"))
    assert "6 images of 3 identities" in said
    assert "note: the folders train (3 images), val (3 images) are splits and not identities" in said
    said = shown_by_the_command(str(tmp_path / "tree"), str(tmp_path / "val"), "--split", "val")
    assert "3 images of 3 identities" in said
    assert Records(tmp_path / "val").about["split"] == "val"


def test_records_that_cannot_be_trained_on_are_told(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "tree" / "photos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / "photos" / f"000{number}_c1s1_000451_03.png").write_bytes(png(number))
    said = shown_by_the_command(str(tmp_path / "tree"), str(tmp_path / "one"))
    assert "warning: all images with an identity show the same one; training needs two or more" in said
    said = shown_by_the_command(str(tmp_path / "tree" / "photos"), str(tmp_path / "none"))
    assert "warning: no image has an identity" in said
    pattern = ("--identity-pattern", "([0-9]+)_c")
    said = shown_by_the_command(str(tmp_path / "tree" / "photos"), str(tmp_path / "three"), *pattern)
    assert "3 images of 3 identities" in said and "warning" not in said


def test_a_bin_set_is_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(pickle.dumps(([jpeg(1), jpeg(2)], [True])))
    assert "warning" not in shown_by_the_command(str(tmp_path / "set.bin"), str(tmp_path / "out"))


def test_system_files_are_counted_once(tree: Path, tmp_path: Path) -> None:
    for name in (".DS_Store", "ann/._0.png", "bob/Thumbs.db"):
        (tree / name).write_bytes(b"\0\5\x16\7")
    said = shown_by_the_command(str(tree), str(tmp_path / "out"))
    assert said.count("files of the operating system are skipped") == 1
    assert "2 things were left out" in said


def test_what_is_printed_moves_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "tree" / "ann").mkdir(parents=True)
    (tmp_path / "tree" / "ann" / "1.png").write_bytes(png())
    (tmp_path / "tree" / "ann" / "\x1b[2J.jpg").write_bytes(b"")
    said = shown_by_the_command(str(tmp_path / "tree"), str(tmp_path / "out"))
    assert "\x1b" not in said and "ann/\\x1b[2J.jpg" in said


def test_one_damaged_record_does_not_stop_the_rest(tmp_path: Path) -> None:
    path = face_rec(tmp_path, [jpeg(n) for n in range(4)], [0, 0, 1, 1])
    data = bytearray(path.read_bytes())
    data[int(path.with_suffix(".idx").read_text().splitlines()[2].split("\t")[1])] ^= 1
    path.write_bytes(data)
    said = shown_by_the_command(str(path), str(tmp_path / "out"), "--on-error", "skip")
    assert "3 images of 2 identities" in said
    assert "must begin with 0xced7230a" in (tmp_path / "out" / LEFT_OUT).read_text()


def test_ids_with_tabs_line_ends_and_spaces_stay(tmp_path: Path) -> None:
    names = ["a\tb.png", "new\nline.png", " lead.png", "trail.png "]
    (tmp_path / "tree" / "ann").mkdir(parents=True)
    for number, name in enumerate(names):
        (tmp_path / "tree" / "ann" / name).write_bytes(png(number))
    convert(tmp_path / "tree", tmp_path / "out")
    assert sorted(Records(tmp_path / "out").ids.tolist()) == sorted(f"ann/{name}" for name in names)


def test_repeated_names_of_a_table_lose_no_image(tmp_path: Path) -> None:
    images = [{"bytes": png(n), "path": f"{n % 5}.png"} for n in range(30)]
    table = pa.table({"image": images, "label": [n // 5 for n in range(30)], "key": [f"k{n}" for n in range(30)]})
    pq.write_table(table, tmp_path / "a.parquet")
    said = shown_by_the_command(str(tmp_path / "a.parquet"), str(tmp_path / "out"))
    assert "30 images of 6 identities" in said and "--id-column NAME` takes another column" in said
    shown_by_the_command(str(tmp_path / "a.parquet"), str(tmp_path / "keys"), "--id-column", "key")
    assert Records(tmp_path / "keys").ids.tolist() == [f"k{n}" for n in range(30)]
