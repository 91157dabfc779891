"""MATLAB v5 files: what SciPy writes and reads, both byte orders by hand, and damage of every kind."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from angulus.core.checks import InputError
from angulus.evaluation.lists.mat import read_mat


def cells(*values: Any) -> np.ndarray:
    found = np.empty((len(values), 1), dtype=object)
    for place, value in enumerate(values):
        found[place, 0] = value
    return found


CONTENT = {
    "few": np.array([[1.5, 2.5, -3.0]]),
    "many": np.arange(600, dtype=np.float64).reshape(20, 30),
    "whole": np.arange(-6, 6, dtype=np.int16).reshape(3, 2, 2),
    "bytes": np.arange(9, dtype=np.uint8).reshape(9, 1),
    "names": cells("Al_0001.jpg", "Zoë_0002.jpg", "", "Al_0003.jpg"),
    "rows": cells(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]), np.zeros((0, 0))),
    "nested": cells(cells("a", np.array([[7]])), np.array([[True]])),
    "text": "a line of text",
    "lines": np.array(["two", "row"]),
}


def written(folder: Path, content: dict[str, Any], *, compressed: bool = False) -> Path:
    path = folder / "some.mat"
    scipy.io.savemat(path, content, do_compression=compressed)
    return path


def same(mine: Any, theirs: Any) -> None:
    """As SciPy gives it, but for the shape of text, of which SciPy makes arrays of words."""
    if theirs.dtype == object:
        assert mine.dtype == object and mine.shape == theirs.shape
        for a, b in zip(mine.ravel(), theirs.ravel(), strict=True):
            same(a, b)
    elif theirs.dtype.kind == "U":
        assert ["".join(row) for row in np.atleast_2d(mine)] == (theirs.tolist() or [""])
    else:
        assert mine.shape == theirs.shape
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(tmp_path: Path, compressed: bool) -> None:
    path = written(tmp_path, CONTENT, compressed=compressed)
    theirs = scipy.io.loadmat(path)
    found = read_mat(path, list(CONTENT))
    assert set(found) == set(CONTENT)
    for name, value in found.items():
        same(value, theirs[name])
    assert set(read_mat(path, ["few", "none"])) == {"few"}


@given(
    arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.int32, np.uint16, np.int64, np.uint8, np.bool_]),
        arrays.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False},
    )
)
@settings(max_examples=60, deadline=None)
def test_any_array_of_numbers(tmp_path_factory: pytest.TempPathFactory, value: np.ndarray) -> None:
    path = written(tmp_path_factory.mktemp("mat"), {"x": value})
    same(read_mat(path, ["x"])["x"], scipy.io.loadmat(path)["x"])


def by_hand(order: str) -> bytes:
    """One variable, x = [1, 2; 3, 4], its numbers kept as bytes within the tag, as MATLAB keeps small whole ones."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def short(kind: int, data: bytes) -> bytes:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")

    array = element(6, struct.pack(f"{order}II", 6, 0)) + element(5, struct.pack(f"{order}ii", 2, 2))
    array += short(1, b"x") + short(2, bytes([1, 3, 2, 4]))
    return b"MATLAB 5.0".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49) + element(14, array)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(tmp_path: Path, order: str) -> None:
    (tmp_path / "x.mat").write_bytes(by_hand(order))
    assert read_mat(tmp_path / "x.mat", ["x"])["x"].tolist() == [[1, 2], [3, 4]]
    assert scipy.io.loadmat(io.BytesIO(by_hand(order)))["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_told_in_a_sentence(tmp_path: Path, compressed: bool) -> None:
    """SciPy's reader ends the process with some of these."""
    path = written(tmp_path, CONTENT, compressed=compressed)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            read_mat(path, list(CONTENT))
        except InputError as error:
            refused += 1
            assert "MATLAB v5 file" in str(error) and "\n" not in str(error)
    assert refused > 200


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.array([[1 + 2j]]), "an array of class 6, which is neither real numbers nor text nor cells"),
        ({"field": 1.0}, "an array of class 2, which is neither"),
        (scipy.sparse.eye(3, format="csc"), "an array of class 5, which is neither"),
    ],
)
def test_other_kinds_are_refused_where_they_are_asked_for(tmp_path: Path, value: Any, sentence: str) -> None:
    path = written(tmp_path, {"odd": value, "plain": 1.0})
    assert read_mat(path, ["plain"])["plain"] == 1
    with pytest.raises(InputError, match=sentence):
        read_mat(path, ["odd"])
