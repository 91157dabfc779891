"""Pickled `.bin` sets: a real one, every way that such files are written, and payloads that would run code."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists import bin_set
from angulus.evaluation.lists.bin_set import read_bin

IMAGES = [bytes([255, 216, number, 0, 255]) for number in range(8)]
FLAGS = [True, False, False, True]


def written(folder: Path, content: Any, protocol: int = 3) -> Path:
    path = folder / "set.bin"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_a_real_set(data_folder: Path) -> None:
    found = read_bin(data_folder / "protocols" / "small_lfw.bin")
    assert (len(found.images), len(found.pairs), found.pairs.fold_count) == (20, 10, 10)
    with (data_folder / "protocols" / "small_lfw.bin").open("rb") as file:
        images, flags = pickle.load(file, encoding="bytes")  # known to be harmless
    assert found.images == tuple(np.asarray(image).tobytes() for image in images)
    assert found.pairs.same.tolist() == [bool(flag) for flag in flags]
    assert all(image.startswith(b"\xff\xd8") and image.endswith(b"\xff\xd9") for image in found.images)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        tuple(IMAGES),
        [np.frombuffer(image, dtype=np.uint8) for image in IMAGES],
        [np.frombuffer(image, dtype=np.uint8)[:, None].copy() for image in IMAGES],
        [np.frombuffer(image, dtype=np.uint8).copy()[None] for image in IMAGES],
    ],
)
@pytest.mark.parametrize(
    "flags",
    [
        FLAGS,
        [1, 0, 0, 1],
        np.array(FLAGS),
        [np.bool_(flag) for flag in FLAGS],
        np.array([1, 0, 0, 1]),
        [np.int64(flag) for flag in FLAGS],
        np.array(FLAGS, dtype=">i2"),
    ],
)
def test_every_way_of_writing(tmp_path: Path, protocol: int, images: Any, flags: Any) -> None:
    for content in ((images, flags), [images, flags]):
        found = read_bin(written(tmp_path, content, protocol), folds=2)
        assert found.images == tuple(IMAGES)
        assert found.pairs.same.tolist() == FLAGS
        assert found.pairs.left.tolist() == ["0", "2", "4", "6"]
        assert found.pairs.right.tolist() == ["1", "3", "5", "7"]


def test_python_2_wrote_text_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    # protocol 2 as Python 2 writes it: a tuple of a list of `str` and a list of bool
    body = b"".join(b"U" + bytes([len(image)]) + image for image in IMAGES)
    path.write_bytes(b"\x80\x02](" + body + b"e](\x88\x89\x89\x88e\x86.")
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (IMAGES, FLAGS)
    assert read_bin(path, folds=1).images == tuple(IMAGES)
    path.with_suffix(".bin.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_bin(path.with_suffix(".bin.gz"), folds=1).images == tuple(IMAGES)


def test_numpy_1_called_its_core_otherwise(tmp_path: Path) -> None:
    arrays = [np.frombuffer(image, dtype=np.uint8).copy() for image in IMAGES]
    data = pickle.dumps((arrays, FLAGS), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in data
    (tmp_path / "set.bin").write_bytes(data)
    assert read_bin(tmp_path / "set.bin", folds=2).images == tuple(IMAGES)


@pytest.mark.parametrize(("pairs", "folds", "sizes"), [(10, 10, [1] * 10), (11, 3, [4, 4, 3])])
def test_folds_are_runs_of_pairs(tmp_path: Path, pairs: int, folds: int, sizes: list[int]) -> None:
    found = read_bin(written(tmp_path, ([b"x"] * (2 * pairs), [True] * pairs)), folds=folds)
    assert found.pairs.folds is not None
    assert found.pairs.folds.tolist() == [fold for fold, size in enumerate(sizes) for _ in range(size)]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_set_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    command = f"touch {marker}"
    pickle.loads(pickle.dumps(Payload(os.system, command)))
    assert marker.exists()  # the payload works
    marker.unlink()
    payloads = {
        r"(posix|nt)\.system": Payload(os.system, command),
        r"(builtins|__builtin__)\.eval": Payload(eval, f"open({str(marker)!r}, 'w')"),
        r"(builtins|__builtin__)\.getattr": Payload(getattr, 1, "real"),
        r"(builtins|__builtin__)\.exec": Payload(exec, f"open({str(marker)!r}, 'w')"),
    }
    for name, payload in payloads.items():
        for content in (payload, (IMAGES, payload), ([*IMAGES[:7], payload], FLAGS)):
            path = written(tmp_path, content, protocol)
            with pytest.raises(InputError, match=rf"images and flags only; it asks for {name}, which was not run"):
                read_bin(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
        (b"(ios\nsystem\n.", "os.system"),  # INST
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),
    ],
)
def test_neighbours_of_known_names_are_refused(tmp_path: Path, code: bytes, name: str) -> None:
    (tmp_path / "evil.bin").write_bytes(code)
    with pytest.raises(InputError, match=f"it asks for {name}, which was not run; do not trust this file"):
        read_bin(tmp_path / "evil.bin")


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\nndarray\n)R.",  # a call of the class
        b"cnumpy\ndtype\n(S'O8'\ntR.",  # an array of objects
        b"cnumpy\ndtype\n(S'f4'\ntR.",
        b"cnumpy\ndtype\n(S'u1'\ntR(I3\nS'|'\n(S'a'\ntNNI-1\nI-1\nI0\ntb.",  # fields
        b"cnumpy\ndtype\n(S'u1'\ntR}S'dtype'\nI1\nsb.",  # a state that is a dictionary
        b"c_codecs\nencode\n}S'_function'\nI1\nsb.",  # a state for a function
        b"c_codecs\nencode\n(VA\nS'utf-7'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I9999999999999\ntNI0\nS'x'\ntb.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I2\ntcnumpy\ndtype\n(S'u1'\ntRI0\nS'x'\ntb.",
        b"\x82\x01.",  # an extension
        b"(lp0\n0",
        b"garbage",
        b"",
        b"]" * 100_000,
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # bytes without end
    ],
)
def test_other_tricks_and_damage_are_refused(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "evil.bin").write_bytes(code)
    with pytest.raises(InputError, match=r"evil.bin must (be a whole pickled .bin set; reading gave|hold|end)"):
        read_bin(tmp_path / "evil.bin")


def test_outside_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.bin").write_bytes(b"Pthing\n.")
    with pytest.raises(InputError, match="it asks for the object 'thing'"):
        read_bin(tmp_path / "evil.bin")


def test_the_stand_ins_keep_nothing_from_a_file(tmp_path: Path) -> None:
    arrays = [np.frombuffer(image, dtype=np.uint8).copy() for image in IMAGES]
    (tmp_path / "evil.bin").write_bytes(b"c_codecs\nencode\nN}S'_function'\nI1\ns\x86b.")  # slots of a function
    with pytest.raises(InputError, match="must be a whole pickled"):
        read_bin(tmp_path / "evil.bin")
    assert read_bin(written(tmp_path, (arrays, FLAGS), 2), folds=2).images == tuple(IMAGES)
    assert read_bin(written(tmp_path, (IMAGES, FLAGS), 2), folds=2).images == tuple(IMAGES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "must hold a tuple of images and flags; got NoneType"),
        ((IMAGES,), "must hold a tuple of images and flags; got tuple"),
        ((IMAGES, FLAGS, FLAGS), "must hold a tuple of images and flags"),
        ((IMAGES, FLAGS[:3]), "must hold two images a flag; got 8 images and 3 flags"),
        ((IMAGES[:7], FLAGS), "must hold two images a flag; got 7 images and 4 flags"),
        (([], []), "must hold two images a flag; got 0 images and 0 flags"),
        ((b"images", FLAGS), "must hold a list of images; got bytes"),
        ((IMAGES, {"a": 1}), "must hold a list of flags; got dict"),
        (([*IMAGES[:7], b""], FLAGS), "image 7 must be the bytes of an image file; got bytes"),
        (([*IMAGES[:7], 3], FLAGS), "image 7 must be the bytes of an image file; got int"),
        ((IMAGES, [True, True, True, 2]), "flag 3 must be true or false; got"),
        ((IMAGES, [True, True, True, None]), "flag 3 must be true or false; got"),
        ((IMAGES, [True, True, True, 1.0]), "flag 3 must be true or false; got"),
        ((IMAGES, [np.array([True, True])] * 4), "flag 0 must be true or false; got"),
        (
            (IMAGES, np.array(FLAGS, dtype=float)),
            "must be a whole pickled .bin set; .* unsigned bytes or flags; got 'f8'",
        ),
        (([np.zeros((2, 3), np.uint8)] * 8, FLAGS), "arrays must be rows of unsigned bytes or flags"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_bin(written(tmp_path, content))


def test_more_than_a_pickle_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, (IMAGES, FLAGS))
    whole = path.read_bytes()
    path.write_bytes(whole + b"xyz")
    with pytest.raises(InputError, match="must end with its pickle; got 3 bytes more"):
        read_bin(path)
    for end in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"must be a whole pickled .bin set"):
            read_bin(path)


@pytest.mark.parametrize("folds", [0, 5, 1.5])
def test_folds_are_as_many_as_pairs_at_most(tmp_path: Path, folds: Any) -> None:
    with pytest.raises(InputError, match="folds must be a whole number"):
        read_bin(written(tmp_path, (IMAGES, FLAGS)), folds=folds)


def test_one_fold_is_none_and_drawn_folds_have_as_many_of_each_kind(tmp_path: Path) -> None:
    """A set that is sorted by its flags has folds of one kind; drawn ones have both, equal for equal seeds."""
    path = written(tmp_path, ([b"x"] * 60, [True] * 12 + [False] * 18))
    assert read_bin(path, folds=1).pairs.folds is None
    drawn = read_bin(path, folds=5, fold_seed=3).pairs
    assert drawn.folds is not None
    counts = [[int((kind & (drawn.folds == fold)).sum()) for fold in range(5)] for kind in (drawn.same, ~drawn.same)]
    assert counts == [[3, 3, 2, 2, 2], [4, 4, 4, 3, 3]]
    again, other = (read_bin(path, folds=5, fold_seed=seed).pairs.folds for seed in (3, 4))
    assert again is not None and other is not None
    assert drawn.folds.tolist() == again.tolist() != other.tolist()
    with pytest.raises(InputError, match="fold_seed must be a whole number >= 0; got -1"):
        read_bin(path, fold_seed=-1)


def nested(depth: int) -> Any:
    value: Any = ()
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ((nested(40), FLAGS), "must hold two images a flag|image 0 must be the bytes of an image file; got tuple"),
        ((IMAGES, [nested(40)] * 4), r"flag 0 must be true or false; got \(+\.\.\.\), "),
        ((IMAGES, [10**5000] * 4), "flag 0 must be true or false; got a whole number of 16,610 bits"),
        (nested(40), "image 0 must be the bytes of an image file; got tuple"),
    ],
)
def test_values_that_expand_are_named_in_short(tmp_path: Path, content: Any, sentence: str) -> None:
    path = written(tmp_path, content, 4)
    with pytest.raises(InputError, match=sentence) as found:
        read_bin(path)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # remembers at a place that takes 34 GB to reach
        b"]p99999999999\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I1\ntcnumpy\ndtype\n(S'u1'\ntRI0\nI99999999999\ntb.",
        b"]" * 1002 + b".",
    ],
)
def test_a_small_pickle_cannot_fill_the_memory(tmp_path: Path, code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bin_set, "_MOST_STEPS", 1000)
    (tmp_path / "bomb.bin").write_bytes(code)
    with pytest.raises(InputError, match=r"bomb\.bin must be a whole pickled \.bin set; reading gave: "):
        read_bin(tmp_path / "bomb.bin")
