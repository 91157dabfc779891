"""MXNet's RecordIO from files written by hand, byte for byte as the format has it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.data.records import Row
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.data.sources.recordio import records
from data.pictures import MAGIC, face_rec, jpeg, labelled, png, record

IMAGES = [jpeg(n, 8 + n, 9) for n in range(5)]
LABELS = [0, 0, 1, 2, 2]


def split(path: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    items = list(read_source(path))
    rows = [(item.id, item.identity) for item in items if isinstance(item, Row)]
    return rows, {item.where: item.reason for item in items if isinstance(item, LeftOut)}


def test_a_record_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "one.rec"
    body = struct.pack("<IfQQ", 0, 5.0, 3, 0) + b"abc"
    path.write_bytes(bytes.fromhex("0a23d7ce") + bytes([27, 0, 0, 0]) + body + b"\0")
    (found,) = records(path)
    assert (found.offset, found.labels, found.id, found.image) == (0, (5.0,), 3, b"abc")


@pytest.mark.parametrize("index", [True, False])
def test_a_face_set(tmp_path: Path, index: bool) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS, index=index)
    assert kind_of(path) == kind_of(tmp_path) == "rec"
    rows, left_out = split(tmp_path)
    assert rows == [("1", "0"), ("2", "0"), ("3", "1"), ("4", "2"), ("5", "2")]
    assert [item.image for item in read_source(path) if isinstance(item, Row)] == IMAGES
    assert left_out == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([MAGIC, b"\0", b"ab", b"\x0a\x23", b"wxyz", MAGIC[:3]]), max_size=12))
def test_data_that_hold_the_magic_number(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("rec") / "x.rec"
    bodies = [b"".join(pieces), b"next"]
    path.write_bytes(b"".join(record(labelled(n, [1], body, single=True)) for n, body in enumerate(bodies)))
    assert [found.image for found in records(path)] == bodies


def test_an_image_in_parts_is_a_row(tmp_path: Path) -> None:
    image = png() + bytes(-(24 + len(png())) % 4) + MAGIC + b"tail" + MAGIC
    path = tmp_path / "x.rec"
    path.write_bytes(record(labelled(0, [1], image, single=True)))
    assert path.read_bytes().count(MAGIC) == 3  # each is where a part begins
    (row,) = read_source(path)
    assert isinstance(row, Row) and row.image == image


def test_a_plain_set_has_no_header_record(tmp_path: Path) -> None:
    path = tmp_path / "plain.rec"
    contents = [labelled(n, [label, 0.5], image) for n, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))]
    path.write_bytes(b"".join(record(content) for content in contents))
    assert split(path)[0] == [("0", "0"), ("1", "0"), ("2", "1"), ("3", "2"), ("4", "2")]


def test_paths_from_a_list_with_keys(tmp_path: Path) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS)
    path.with_suffix(".lst").write_text("\n".join(f"{n}\t{LABELS[n - 1]}.0\tp{n}.jpg" for n in range(1, 6)))
    assert split(path)[0][:2] == [("p1.jpg", "0"), ("p2.jpg", "0")]


def test_a_face_recipe_list_has_no_keys(tmp_path: Path) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS)
    path.with_suffix(".lst").write_text("\n".join(f"1\tp{n}.jpg\t{LABELS[n - 1]}" for n in range(1, 6)))
    assert split(path)[0][0] == ("1", "0")


def test_what_does_not_agree_is_told(tmp_path: Path) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS)
    (tmp_path / "property").write_text("85742,112,112")
    lines = path.with_suffix(".idx").read_text().splitlines()
    path.with_suffix(".idx").write_text("\n".join([*lines[:2], *lines[3:], "99\t4"]))
    second = int(lines[2].split("\t")[1])
    rows, left_out = split(path)
    assert [id for id, _ in rows] == ["1", "3", "4", "5"]
    assert left_out == {
        f"byte {second}": "train.idx does not name it",
        "byte 4": "train.idx names a record there; train.rec has none",
        "train.rec": "its first record says 5 images; it has 4",
        "property": "it says 85742 identities; the images show 3",
    }


@pytest.mark.parametrize("label", [1.5, float("nan"), float("inf")])
def test_labels_that_are_no_classes(tmp_path: Path, label: float) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(record(labelled(7, [label], png(), single=True)) + record(labelled(8, [1], b"text", single=True)))
    rows, left_out = split(path)
    assert rows == []
    assert "label must be a whole number" in left_out["7"]
    assert "first bytes" in left_out["8"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\1\2\3\4" + bytes(40), "the record at byte 0 must begin with 0xced7230a"),
        (record(labelled(0, [1], png(), single=True))[:-30], "it is cut short"),
        (record(labelled(0, [1], png(), single=True)) + MAGIC, "must begin with"),
        (MAGIC + struct.pack("<I", 3 << 29 | 4) + b"abcd", "parts in order; got part flag 3"),
        (record(labelled(0, [1], MAGIC * 2, single=True))[:32] + record(b"abcd"), "parts in order; got part flag 0"),
        (record(b"short"), "begin with a header of 24 bytes; got 5"),
        (record(struct.pack("<IfQQ", 1000, 0, 0, 0)), "hold the 1000 labels that it says"),
    ],
)
def test_files_that_are_damaged(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said):
        split(path)


def test_beside_files_that_are_damaged(tmp_path: Path) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS)
    path.with_suffix(".idx").write_text("0 0\n")
    with pytest.raises(InputError, match=r"train.idx line 1 must be a key and an offset"):
        split(path)
    path.with_suffix(".idx").unlink()
    (tmp_path / "property").write_text("many")
    with pytest.raises(InputError, match=r"property line 1 must be identities,height,width"):
        split(path)


def test_a_folder_with_two_sets(tmp_path: Path) -> None:
    face_rec(tmp_path, IMAGES, LABELS)
    (tmp_path / "other.rec").write_bytes(b"")
    with pytest.raises(InputError, match=r"must hold one .rec; got other.rec, train.rec"):
        split(tmp_path)


def rec_of(path: Path, count: int, ids: list[int] | None = None) -> list[int]:
    """Write records; returns where each begins."""
    pieces = [record(labelled(n if ids is None else ids[n], [n % 2], png(n), single=True)) for n in range(count)]
    path.write_bytes(b"".join(pieces))
    return [sum(map(len, pieces[:n])) for n in range(count)]


def skipped(path: Path) -> tuple[list[str], dict[str, str]]:
    items = list(read_source(path, options=SourceOptions(on_error="skip")))
    left_out = {item.where: item.reason for item in items if isinstance(item, LeftOut)}
    return [item.id for item in items if isinstance(item, Row)], left_out


@pytest.mark.parametrize("damage", ["magic", "long", "short", "header", "flag"])
def test_one_damaged_record_is_skipped_where_asked(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.rec"
    starts = rec_of(path, 5)
    data = bytearray(path.read_bytes())
    place = starts[2]
    if damage == "magic":
        data[place] ^= 1
    elif damage == "long":
        data[place + 4 : place + 8] = struct.pack("<I", starts[4] - place - 8)  # to the end of the next record
    elif damage == "short":
        data[place + 4 : place + 8] = struct.pack("<I", 40)
    elif damage == "header":
        data[place + 8 : place + 12] = struct.pack("<I", 2**30)
    else:
        data[place + 7] |= 0xE0
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"--on-error skip"):
        split(path)
    rows, left_out = skipped(path)
    if damage == "short":  # its first 16 bytes of an image are a row still, which decoding leaves out
        assert set(rows) <= {"0", "1", "2", "3", "4"} and {"0", "1", "3", "4"} <= set(rows)
        assert f"byte {place + 48}" in left_out
    else:
        assert rows == ["0", "1", "3", "4"]
        assert list(left_out) == [f"byte {place}"]


def test_the_search_for_the_next_record_goes_far(tmp_path: Path) -> None:
    path = tmp_path / "x.rec"
    for gap in (4092, 4096, 8180, 20_000):
        good = record(labelled(1, [1], png(), single=True))
        path.write_bytes(b"\1" * gap + good)
        assert skipped(path)[0] == ["1"]


def test_records_of_one_number_without_an_index(tmp_path: Path) -> None:
    path = tmp_path / "x.rec"
    rec_of(path, 4, ids=[0, 0, 0, 0])
    rows, left_out = split(path)
    assert [id for id, _ in rows] == ["0", "1", "2", "3"]
    assert "gives several records the same number" in left_out["."]


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 1.5])
def test_a_first_record_whose_label_is_no_number(tmp_path: Path, label: float) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(record(labelled(0, [label, 9], b"")) + record(labelled(1, [1], png(), single=True)))
    rows, left_out = split(path)
    assert rows == [("1", "1")]
    assert "label must be a whole number" in left_out["0"]


@pytest.mark.parametrize("key", ["\u00b2", "9" * 5000])
@pytest.mark.parametrize("suffix", [".idx", ".lst"])
def test_keys_that_are_no_digits(tmp_path: Path, key: str, suffix: str) -> None:
    path = face_rec(tmp_path, IMAGES, LABELS)
    path.with_suffix(suffix).write_text(f"{key}\t4\n" if suffix == ".idx" else f"{key}\t1\ta.jpg\n")
    with pytest.raises(InputError, match=rf"train{suffix} line 1 must be"):
        split(path)
