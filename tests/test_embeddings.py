"""Embeddings: three formats there and back, every check on reading, look-up by id, unit vectors against slow loops."""

from __future__ import annotations

import json
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from angulus.core import embeddings as module
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.formats import tensors

FORMATS = [".npz", ".safetensors", ".parquet"]
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(7, 5)).astype(np.float32)
IDS = np.array([f"p{i // 2}/{i}.jpg" for i in range(7)])


def full(dtype: Any = np.float32) -> Embeddings:
    """Seven embeddings with every column."""
    return Embeddings(
        VECTORS.astype(dtype),
        IDS,
        norms=RANDOM.gamma(4.0, size=7),
        detector_scores=RANDOM.normal(size=7),
        labels=np.array([f"p{i // 2}" for i in range(7)]),
        groups=np.array(["a", "b", "a", "é", "", "a", "b"]),
        media=np.array([str(i // 3) for i in range(7)]),
        templates=np.array(list("ABCDEFG")),
        flipped=VECTORS[::-1].astype(dtype),
    )


def columns(found: Embeddings) -> dict[str, NDArray[Any]]:
    names = ("vectors", "ids", "flipped", *module.NUMBERS, *module.TEXTS)
    return {name: getattr(found, name) for name in names if getattr(found, name) is not None}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, dtype: Any) -> None:
    given_ones = full(dtype)
    path = tmp_path / f"faces{suffix}"
    given_ones.write(path)
    read = Embeddings.read(path)
    expected = columns(given_ones)
    assert columns(read).keys() == expected.keys()
    for name, value in columns(read).items():
        assert value.dtype.kind == expected[name].dtype.kind
        assert value.tolist() == expected[name].tolist(), name
    assert read.vectors.dtype == dtype
    assert read.source == str(path)
    assert len(read) == 7
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_only_what_is_there_is_written(tmp_path: Path, suffix: str) -> None:
    Embeddings(VECTORS, IDS).write(tmp_path / f"few{suffix}")
    assert columns(Embeddings.read(tmp_path / f"few{suffix}")).keys() == {"vectors", "ids"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_format_of_many_rows_goes_through_in_blocks(tmp_path: Path, suffix: str) -> None:
    many = np.arange(70_000 * 3, dtype=np.float32).reshape(-1, 3) + 1
    Embeddings(many, np.arange(70_000).astype(str), flipped=many[::-1]).write(tmp_path / f"many{suffix}")
    read = Embeddings.read(tmp_path / f"many{suffix}")
    assert np.array_equal(read.vectors, many)
    assert read.flipped is not None
    assert np.array_equal(read.flipped, many[::-1])
    assert read.ids[[0, 65_536, -1]].tolist() == ["0", "65536", "69999"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_matrices_are_mapped_where_the_format_allows_it(tmp_path: Path, suffix: str, order: Any) -> None:
    path = tmp_path / f"faces{suffix}"
    Embeddings(np.asarray(VECTORS, order=order), IDS, flipped=VECTORS).write(path)
    read = Embeddings.read(path)
    assert isinstance(read.vectors, np.memmap)
    assert isinstance(read.flipped, np.memmap)
    assert not read.vectors.flags.writeable
    assert np.array_equal(read.vectors, VECTORS)


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", embeddings=VECTORS, ids=IDS)
    read = Embeddings.read(tmp_path / "packed.npz")
    assert not isinstance(read.vectors, np.memmap)
    assert np.array_equal(read.vectors, VECTORS)


def test_other_byte_orders_and_whole_numbers_and_bytes_are_understood(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "big.npz",
        embeddings=VECTORS.astype(">f4"),
        ids=np.arange(7),
        labels=np.array([b"x", b"\xc3\xa9"] + [b"z"] * 5),
        norms=np.arange(7, dtype=np.int32)[:, None],
    )
    read = Embeddings.read(tmp_path / "big.npz")
    assert read.vectors.dtype == np.dtype(np.float32)
    assert read.ids.tolist() == list("0123456")
    assert read.labels is not None and read.labels.tolist()[:2] == ["x", "é"]
    assert read.norms is not None and read.norms.tolist() == list(range(7))


def test_safetensors_of_others_with_ids_beside_them(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "faces.safetensors"
    numpy_files.save_file({"embeddings": VECTORS, "labels": np.arange(7), "norms": np.ones(7, np.float32)}, path)
    (tmp_path / "faces.safetensors.ids.txt").write_text("\n".join(IDS) + "\n")
    read = Embeddings.read(path)
    assert np.array_equal(read.vectors, VECTORS)
    assert read.ids.tolist() == IDS.tolist()
    assert read.labels is not None and read.labels.tolist() == list("0123456")
    with pytest.raises(InputError, match=r"faces.safetensors.ids.txt must not exist next to faces.safetensors, "):
        read.write(path)
    numpy_files.save_file({"embeddings": VECTORS}, path, metadata={"ids": json.dumps(IDS.tolist())})
    with pytest.raises(InputError, match=r"ids must be in one place; got the metadata and faces.safetensors.ids.txt"):
        Embeddings.read(path)
    (tmp_path / "faces.safetensors.ids.txt").unlink()
    assert Embeddings.read(path).ids.tolist() == IDS.tolist()
    numpy_files.save_file({"embeddings": VECTORS}, path, metadata={"ids": "[1, 2]"})
    with pytest.raises(InputError, match="ids in the metadata must be a JSON list of text; got"):
        Embeddings.read(path)
    numpy_files.save_file({"embeddings": VECTORS.astype(np.int32)}, path, metadata={"ids": json.dumps(IDS.tolist())})
    with pytest.raises(InputError, match="embeddings must be F16, F32 or F64; got I32; save it as float32"):
        Embeddings.read(path)


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", embeddings=VECTORS, ids=np.array([f"é{n}".encode("latin-1") for n in range(7)]))
    with pytest.raises(InputError, match=r"old\.npz: ids must be text in UTF-8; got b"):
        Embeddings.read(tmp_path / "old.npz")


def test_ids_beside_may_have_windows_ends_and_a_mark(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file({"embeddings": VECTORS}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors.ids.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(IDS.tolist()).encode())
    assert Embeddings.read(tmp_path / "w.safetensors").ids.tolist() == IDS.tolist()


def test_an_archive_that_numpy_cannot_parse_is_refused(tmp_path: Path) -> None:
    """A header that begins a bracket and never closes it; members packed in a way that zipfile does not know."""
    np.savez(tmp_path / "a.npz", embeddings=VECTORS, ids=IDS)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(b"'shape': (7, 5)", b"'shape': ((7, 5"))
    with pytest.raises(InputError, match=r"a\.npz must be a whole \.npz file; reading it gave: "):
        Embeddings.read(tmp_path / "a.npz")
    packed = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = packed.find(mark)
        while start >= 0:
            packed[start + place] = 99
            start = packed.find(mark, start + 1)
    (tmp_path / "a.npz").write_bytes(packed)
    with pytest.raises(InputError, match=r"a\.npz must be a whole \.npz file; reading it gave: That compression"):
        Embeddings.read(tmp_path / "a.npz")


def test_text_that_no_safetensors_header_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_HEADER_LIMIT", 500)
    Embeddings(VECTORS, IDS).write(tmp_path / "x.safetensors")
    long = np.array(["x" * 100] * 7)
    with pytest.raises(InputError, match=r"must fit the 500 bytes of a safetensors header; got 1000; write .npz"):
        Embeddings(VECTORS, IDS, labels=long).write(tmp_path / "y.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_parquet_of_others_with_plain_lists_and_dictionaries(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "faces.parquet"
    labels = arrow.array(["x", "y"] * 3 + ["x"]).dictionary_encode()
    lists = arrow.array(VECTORS.tolist(), arrow.list_(arrow.float32()))
    parquet.write_table(arrow.table({"ids": IDS.tolist(), "embeddings": lists, "labels": labels}), path)
    read = Embeddings.read(path)
    assert np.array_equal(read.vectors, VECTORS)
    assert read.labels is not None and read.labels.tolist() == ["x", "y"] * 3 + ["x"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"embeddings": [[1.0, 2.0], [1.0]]}, "embeddings must be lists of one length; got 1 and 2"),
        ({"embeddings": [[1.0, 2.0], None]}, "embeddings must have no empty entries; got 1"),
        ({"embeddings": [[1.0, None], [1.0, 2.0]]}, "embeddings must have no empty entries; got 1"),
        ({"embeddings": [1.0, 2.0]}, "embeddings must be lists of floats; got double"),
        ({"ids": ["a", None]}, "ids must have no empty entries; got 1"),
        ({"ids": [["a"], ["b"]]}, "ids must be single values; got list"),
        ({"norms": ["1", "2"]}, "norms must be numbers; got text"),
        ({"labels": [True, False]}, "labels must be text or numbers; got bool"),
    ],
)
def test_parquet_refuses(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good = {"ids": ["a", "b"], "embeddings": [[1.0, 2.0], [3.0, 4.0]]}
    parquet.write_table(arrow.table(good | change), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=sentence):
        Embeddings.read(tmp_path / "x.parquet")


def test_parquet_refuses_lists_that_change_length_between_blocks(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = [[1.0, 2.0]] * 65_536 + [[1.0]]
    parquet.write_table(arrow.table({"ids": np.arange(65_537), "embeddings": lists}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="embeddings must be lists of one length; got 2 and 1"):
        Embeddings.read(tmp_path / "x.parquet")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_pickled_arrays_are_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload works
    marker.unlink()
    evil = np.array([Payload(marker)] * 7, dtype=object)
    for name in ("ids", "embeddings"):
        content: dict[str, Any] = {"embeddings": VECTORS, "ids": IDS} | {name: evil}
        np.savez(tmp_path / "evil.npz", **content)
        with pytest.raises(InputError, match=rf"{name} is an array of Python objects, which only pickle reads"):
            Embeddings.read(tmp_path / "evil.npz")
    assert not marker.exists()


def write_npz(path: Path, **change: Any) -> None:
    content: dict[str, Any] = {"embeddings": VECTORS, "ids": IDS} | change
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


def with_values(row: int, value: float) -> NDArray[np.float32]:
    changed = VECTORS.copy()
    changed[row, 2] = value
    return changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ids": None}, r"'ids'; it holds embeddings; np.savez\(path, embeddings=vectors, ids=names\) writes one$"),
        ({"embeddings": None}, r"must hold 'embeddings'; it holds ids; np.savez\(.*\) writes one$"),
        (
            {"features": VECTORS, "embeddings": None},
            "must hold 'embeddings'; it holds features, ids; rename 'features' to 'embeddings' if that is what it is$",
        ),
        (
            {"Path": IDS, "ids": None},
            "must hold 'ids'; it holds Path, embeddings; rename 'Path' to 'ids' if that is what it is$",
        ),
        ({"embeddings": VECTORS[0]}, r"embeddings must be an array of shape \[N, d\], both at least 1; got \[5\]"),
        ({"embeddings": VECTORS[:0]}, r"both at least 1; got \[0, 5\]"),
        ({"embeddings": VECTORS[:, :0]}, r"both at least 1; got \[7, 0\]"),
        ({"embeddings": np.ones((7, 5), int)}, "embeddings must be float16, float32 or float64; got int64"),
        ({"embeddings": np.ones((7, 5), complex)}, "embeddings must be float16, float32 or float64; got complex128"),
        ({"ids": IDS[:6]}, r"ids must have shape \[7\], one entry per embedding; got \[6\]"),
        ({"ids": np.where(np.arange(7) < 3, "a", IDS)}, "ids must be unique; got 1 that repeat: 'a'$"),
        ({"ids": np.array(list("aabbccd"))}, "ids must be unique; got 3 that repeat: 'a', 'b', 'c'$"),
        ({"ids": np.array(list("aabbccdd")[:7])}, "ids must be unique; got 3 that repeat"),
        ({"ids": np.array([*"abcdef", ""])}, "ids must not be empty; got an empty one at row 6"),
        ({"ids": np.ones(7)}, "ids must be text or whole numbers; got float64"),
        ({"labels": IDS[:3]}, r"labels must have shape \[7\], one entry per embedding; got \[3\]"),
        ({"norms": np.ones((7, 2))}, r"norms must have shape \[7\], one entry per embedding; got \[7, 2\]"),
        (
            {"norms": -np.ones(7)},
            "norms must be finite and >= 0; got 7 of 7 rows: 'p0/0.jpg', 'p0/1.jpg', 'p1/2.jpg', ..",
        ),
        (
            {"detector_scores": np.where(np.arange(7) == 4, np.inf, 0.0)},
            "detector_scores must be finite, or NaN if there is none; got 1 of 7 rows",
        ),
        ({"flipped": VECTORS[:, :4]}, r"flipped must have the shape \[7, 5\]; got \[7, 4\]"),
        ({"flipped": with_values(1, np.nan)}, "flipped must be finite; got NaN or Inf in 1 of 7 rows: 'p0/1.jpg'$"),
        (
            {"embeddings": with_values(6, np.inf)},
            "embeddings must be finite; got NaN or Inf in 1 of 7 rows: 'p3/6.jpg'$",
        ),
    ],
)
def test_refusals(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    write_npz(tmp_path / "bad.npz", **change)
    with pytest.raises(InputError, match=sentence):
        Embeddings.read(tmp_path / "bad.npz")


def test_bad_rows_are_counted_across_blocks_and_the_first_three_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 10)  # two rows a block
    bad = VECTORS.copy()
    bad[[1, 2, 4, 6], [0, 4, 2, 2]] = np.nan, np.inf, -np.inf, np.nan
    sentence = "NaN or Inf in 4 of 7 rows: 'p0/1.jpg', 'p1/2.jpg', 'p2/4.jpg', ...$"
    with pytest.raises(InputError, match=sentence):
        Embeddings(bad, IDS)
    zeros = VECTORS.copy()
    zeros[[3, 5]] = 0
    with pytest.raises(
        InputError, match=r"must not be vectors of zeros.*; got 2 of 7 rows: 'p1/3.jpg', 'p2/5.jpg'; leave"
    ):
        Embeddings(zeros, IDS)
    kept = Embeddings(zeros, IDS, zero_vectors="keep")
    assert kept.unit([3, 0]).tolist()[0] == [0.0] * 5
    assert (kept.unit() @ kept.unit().T)[3].tolist() == [0.0] * 7
    assert kept.feature_norms[3] == 0
    with pytest.raises(
        InputError, match="zero_vectors must be one of 'refuse', 'keep'; got 'keeps'; did you mean 'keep'"
    ):
        Embeddings(zeros, IDS, zero_vectors="keeps")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("keep", [0, 4, 50, 0.5, 0.97])
def test_files_cut_short_are_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"cut{suffix}"
    full().write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match=rf"cut{suffix} must be a whole {suffix} file; reading it gave: "):
        Embeddings.read(path)


def test_an_archive_whose_header_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.npz"
    write_npz(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"(7, 5)", b"(9, 5)"))
    with pytest.raises(
        InputError, match=r"embeddings.npy must hold 180 bytes, as its header says; the archive is damaged"
    ):
        Embeddings.read(path)


def test_archives_damaged_inside_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "inside.npz"
    write_npz(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    with pytest.raises(
        InputError, match=r"inside.npz must be a whole .npz file; reading it gave: Bad magic number for file header"
    ):
        Embeddings.read(path)
    np.savez_compressed(path, embeddings=VECTORS, ids=IDS)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"'descr'", b"'other'"))
    with pytest.raises(
        InputError, match=r"inside.npz must be a whole .npz file; reading it gave: Header does not contain"
    ):
        Embeddings.read(path)


def test_an_array_of_format_version_3_is_read(tmp_path: Path) -> None:
    path = tmp_path / "three.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in {"embeddings": VECTORS, "ids": IDS}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, value, version=(3, 0))
    assert np.array_equal(Embeddings.read(path).vectors, VECTORS)


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_no_rows_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"none{suffix}"
    if suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        empty = {"ids": arrow.array([], arrow.string()), "embeddings": arrow.array([], arrow.list_(arrow.float32()))}
        parquet.write_table(arrow.table(empty), path)
        sentence = "must hold 'embeddings'; it holds nothing"
    else:
        pytest.importorskip("safetensors.numpy").save_file({"embeddings": VECTORS[:0]}, path, metadata={"ids": "[]"})
        sentence = r"embeddings must be an array of shape \[N, d\], both at least 1; got \[0, 5\]"
    with pytest.raises(InputError, match=sentence):
        Embeddings.read(path)


def test_archives_with_other_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    write_npz(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("ids.npy", b"again")
    with pytest.raises(InputError, match="must hold each name once; got embeddings, ids, ids"):
        Embeddings.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("embeddings.npy", b"no array")
        archive.writestr("ids.npy", b"no array")
    with pytest.raises(InputError, match=r"must be an array as np.savez writes it; got other bytes"):
        Embeddings.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings.npy", b"no array")
        archive.writestr("ids.npy", b"no array")
    with pytest.raises(InputError, match=r"must be an array as np.savez writes it; got other bytes"):
        Embeddings.read(path)


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [9, 5], "data_offsets": [0, 180]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + VECTORS.tobytes())
    with pytest.raises(InputError, match=r"lie.safetensors must be a whole .safetensors file"):
        Embeddings.read(path)
    path.write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(InputError, match=r"lie.safetensors must be a whole .safetensors file"):
        Embeddings.read(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"must be in a file that ends in .npz, .safetensors, .parquet, .bin; got .*x.npy; np.savez"
    ):
        Embeddings.read(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"must be in a file that ends in .npz, .safetensors, .parquet; got .*x.csv"):
        full().write(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"must be in a file that can be read; there is no file .*x.npz"):
        Embeddings.read(tmp_path / "x.npz")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "faces.npz"
    full().write(path)
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"cannot write .*faces.npz: No space left on device.* kept as it was"):
        full(np.float16).write(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def named(*ids: str) -> Embeddings:
    return Embeddings(np.ones((len(ids), 2)), np.array(ids))


def test_rows_are_found_in_the_order_asked() -> None:
    order = RANDOM.integers(0, 7, size=50)
    assert full().rows(IDS[order], "a list").tolist() == order.tolist()
    assert full().rows([], "a list").tolist() == []


@pytest.mark.parametrize(
    ("have", "asked", "rows"),
    [
        (("a/1", "a/2"), ("a/2.jpg", "a/1.jpg", "a/2.jpg"), [1, 0, 1]),
        (("a/1.png", "a/2.PNG"), ("a/2", "a/1"), [1, 0]),
        (("a/1.png", "a/2.webp"), ("a/2.jpeg", "a/1.bmp"), [1, 0]),
        (("v1.0/x", "y.jpg"), ("v1.0/x", "y"), [0, 1]),
        (("b.jpg", "b.png", "a.jpg"), ("a",), [2]),  # others may be ambiguous
        (("b.jpg", "b.png"), ("b.png", "b.jpg"), [1, 0]),  # found as they are
        (("1", "2"), (2, 1), [1, 0]),
    ],
)
def test_image_suffixes_are_dropped_where_that_is_unambiguous(
    have: tuple[str, ...], asked: tuple[Any, ...], rows: list[int]
) -> None:
    assert named(*have).rows(np.array(asked), "a list").tolist() == rows


@pytest.mark.parametrize(
    ("have", "asked", "sentence"),
    [
        (
            ("a", "b"),
            ("a", "c"),
            "1 of the 2 ids of LFW have no embedding in these embeddings: 'c'; its ids look like 'a'",
        ),
        (
            ("a", "b"),
            ("c", "d", "e", "f", "c"),
            "4 of the 4 ids of LFW have no .*: 'c', 'd', 'e', ...; its ids look like",
        ),
        (("a.txt",), ("a",), "1 of the 1 ids of LFW have no embedding"),
        (("a.jpg", "a.png", "b.jpg"), ("a.jpg", "a.png", "c"), "1 of the 3 ids of LFW have no embedding .*: 'c'"),
        (("a.jpg", "a.png"), ("a",), "asks for without their image suffix must meet one embedding each; got 'a.jpg'$"),
        (("a", "b"), ("a.jpg", "a.png"), "ids of LFW must stay different without their image suffix; got 'a.jpg'$"),
        (("a.jpg", "a.png", "b.jpg"), ("a.jpg", "a.png", "b"), "must stay different without their image suffix"),
    ],
)
def test_rows_refuse(have: tuple[str, ...], asked: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        named(*have).rows(np.array(asked), "LFW")


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["a", "b", "a.jpg", "a.png", "b.jpg", "c.x"]), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from(["a", "b", "a.jpg", "a.png", "b.jpg", "c.x"]), min_size=1, max_size=5),
)
def test_rows_are_those_of_a_slow_search(have: list[str], asked: list[str]) -> None:
    def same(one: str, other: str) -> bool:
        return one.removesuffix(".jpg").removesuffix(".png") == other.removesuffix(".jpg").removesuffix(".png")

    exact = [[row for row, name in enumerate(have) if name == one] for one in asked]
    loose = [[row for row, name in enumerate(have) if same(name, one)] for one in asked]
    merged = any(same(one, other) and one != other for one in asked for other in asked)
    if all(exact):
        assert named(*have).rows(asked, "x").tolist() == [rows[0] for rows in exact]
    elif all(len(rows) == 1 for rows in loose) and not merged:
        assert named(*have).rows(asked, "x").tolist() == [rows[0] for rows in loose]
    else:
        with pytest.raises(InputError):
            named(*have).rows(asked, "x")


def slow_unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else vector


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_unit_vectors_are_those_of_a_slow_loop(dtype: Any, flip: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 15)  # a few rows a block
    faces = full(dtype)
    assert faces.flipped is not None
    chosen = [6, 0, 0, 3, 2]
    plain, mirrored = faces.vectors.astype(float).tolist(), faces.flipped.astype(float).tolist()
    expected = []
    for row in chosen:
        added = [one + other for one, other in zip(plain[row], mirrored[row], strict=True)]
        expected.append(slow_unit({None: plain[row], "sum": added, "concat": plain[row] + mirrored[row]}[flip]))
    found = faces.unit(chosen, flip=flip)
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert found == pytest.approx(np.array(expected), abs=1e-15 if dtype == np.float64 else 6e-8)
    assert faces.unit(flip=flip)[chosen].tolist() == found.tolist()
    wide = faces.unit(chosen, flip=flip, dtype=np.float64)
    assert wide == pytest.approx(np.array(expected), abs=1e-15)
    assert faces.unit(chosen, flip=flip, dtype=np.float32).tolist() == wide.astype(np.float32).tolist()


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_lengths_that_leave_float64_when_squared(scale: float) -> None:
    faces = Embeddings(np.array([[3.0, 4.0], [0.0, -2.0]]) * scale, np.array(["a", "b"]))
    assert faces.unit() == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]))
    assert faces.feature_norms == pytest.approx([5 * scale, 2 * scale])


def test_norms_are_given_or_lengths() -> None:
    faces = full()
    assert faces.norms is not None
    assert faces.feature_norms.tolist() == faces.norms.tolist()
    plain = Embeddings(VECTORS, IDS)
    assert plain.feature_norms == pytest.approx([math.hypot(*row) for row in VECTORS.astype(float).tolist()], rel=1e-15)


def test_a_sum_of_zeros_is_refused_or_kept() -> None:
    faces = Embeddings(VECTORS, IDS, flipped=np.where(np.arange(7)[:, None] == 5, -VECTORS, VECTORS))
    with pytest.raises(
        InputError, match=r"a vector and its mirrored one must not be zero; got 1 of 7 rows: 'p2/5.jpg'"
    ):
        faces.unit([5, 1], flip="sum")
    assert faces.unit([1], flip="sum") == pytest.approx(faces.unit([1]), abs=1e-7)
    kept = Embeddings(faces.vectors, IDS, flipped=faces.flipped, zero_vectors="keep")
    assert kept.unit([5], flip="sum").tolist() == [[0.0] * 5]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"flip": "sums"}, "flip must be one of 'sum', 'concat'; got 'sums'; did you mean 'sum'?"),
        (
            {"flip": "sum"},
            "'flipped'; these embeddings has none; leave flip out, or embed the images with angulus embed",
        ),
        ({"dtype": np.float16}, "dtype must be np.float32, np.float64 or None"),
        ({"rows": [7]}, r"rows must be in \[0, 7\); got 7 to 7"),
        ({"rows": [-1, 2]}, r"rows must be in \[0, 7\); got -1 to 2"),
        ({"rows": [0.5]}, r"rows must be whole numbers of shape \[K\]; got float64 \[1\]"),
        ({"rows": np.ones(7, bool)}, r"rows must be whole numbers of shape \[K\]; got bool \[7\]"),
        ({"rows": [[1]]}, r"rows must be whole numbers of shape \[K\]; got int64 \[1, 1\]"),
    ],
)
def test_unit_refuses(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Embeddings(VECTORS, IDS).unit(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"vectors": VECTORS.tolist()}, r"embeddings must be an array of shape \[N, d\], both at least 1; got list"),
        ({"ids": IDS.tolist()}, r"ids must have shape \[7\], one entry per embedding; got list"),
        ({"ids": np.arange(7)}, "ids must be an array of text; got int64"),
        ({"labels": np.arange(7)}, "labels must be an array of text; got int64"),
        ({"norms": np.ones(7, np.float32)}, "norms must be float64; got float32"),
        ({"flipped": VECTORS.astype(int)}, "flipped must be float16, float32 or float64; got int64"),
    ],
)
def test_the_constructor_refuses_other_types(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Embeddings(**({"vectors": VECTORS, "ids": IDS} | arguments))


def test_fusion_is_a_sum_or_one_after_the_other() -> None:
    faces = Embeddings(VECTORS.astype(np.float64), IDS, flipped=VECTORS[::-1].astype(np.float64))
    assert faces.flipped is not None
    rows = np.array([5, 0, 5])
    assert np.array_equal(faces.fused(rows), faces.vectors[rows])
    assert np.array_equal(faces.fused(slice(1, 4), "sum"), faces.vectors[1:4] + faces.flipped[1:4])
    assert np.array_equal(faces.fused(rows, "sum"), faces.vectors[rows] + faces.flipped[rows])
    both = faces.fused(rows, "concat")
    assert np.array_equal(both, np.hstack([faces.vectors[rows], faces.flipped[rows]]))


def test_what_cannot_be_fused_is_refused() -> None:
    plain = Embeddings(np.eye(2), np.array(["a", "b"]), source="plain.npz")
    with pytest.raises(InputError, match=r"flip='sum' needs the embeddings of mirrored images, 'flipped'; plain\.npz"):
        plain.fused(np.array([0]), "sum")
    with pytest.raises(InputError, match="flip must be one of 'sum', 'concat'; got 'mean'; or None"):
        plain.fused(np.array([0]), "mean")
    opposite = Embeddings(np.eye(2), np.array(["a", "b"]), flipped=np.array([[1.0, 0], [0, -1]]))
    with pytest.raises(
        InputError, match="the sum of a vector and its mirrored one must not be zero; got 1 of 2 rows: 'b'"
    ):
        opposite.fused(np.array([0, 1]), "sum")
    kept = Embeddings(np.eye(2), np.array(["a", "b"]), flipped=-np.eye(2), zero_vectors="keep")
    assert not kept.fused(np.array([0, 1]), "sum").any()
