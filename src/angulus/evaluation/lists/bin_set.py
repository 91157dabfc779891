"""The pickled `.bin` verification sets: images and flags, read by an unpickler that can build nothing else."""

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, limits
from angulus.core.checks import InputError, one_line
from angulus.evaluation.lists.pair_list import PairList

_MOST_STEPS = 10_000_000  # of a pickle; an image takes a dozen
_CODES = ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


@dataclass(frozen=True, eq=False)
class BinSet:
    """2P encoded images and P pairs: pair i is image 2i with image 2i + 1."""

    images: tuple[bytes, ...]  # [2P] JPEG or PNG files as bytes, not decoded
    pairs: PairList  # the pairs; the id of image k is the text of k, from "0"


def read_bin(path: str | os.PathLike[str], *, folds: int = 10, fold_seed: int | None = None) -> BinSet:
    """Read a pickled tuple of images and flags (lfw.bin, cfp_fp.bin, agedb_30.bin, ...), from Python 2 or 3.

    Nothing but lists, tuples, bytes, flags, and arrays of bytes or flags can come to be: any other name in the file is
    refused before it is looked up, so no code in the file runs.

    Args:
        path: the file; gzipped where its name ends in .gz.
        folds: into how many runs of consecutive pairs, the first ones longer by one where it does not divide; 1 for
            none.
        fold_seed: draws the folds instead, each with as many pairs of each kind, for a set that is sorted by them.

    Raises:
        InputError: another name, which the message names, a damaged file, or contents of another shape.
    """
    data = limits.read_file(path)
    where = os.fspath(path)
    stream = io.BytesIO(data)
    try:
        _check_steps(data)
        content = _Unpickler(stream, where).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{where} must be a whole pickled .bin set; reading gave: {one_line(error):.200}") from error
    if stream.tell() != len(data):
        raise InputError(f"{where} must end with its pickle; got {len(data) - stream.tell()} bytes more")
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise InputError(f"{where} must hold a tuple of images and flags; got {type(content).__name__}")
    images = tuple(_image(where, number, item) for number, item in enumerate(_items(where, "images", content[0])))
    same = np.array([_flag(where, number, item) for number, item in enumerate(_items(where, "flags", content[1]))])
    if not len(same) or len(images) != 2 * len(same):
        raise InputError(f"{where} must hold two images a flag; got {len(images)} images and {len(same)} flags")
    folds = checks.integer("folds", folds, low=1, high=len(same))
    names = np.arange(len(images)).astype(np.str_)
    pairs = PairList(names[::2], names[1::2], same, _folds(same, folds, fold_seed), source=where)
    return BinSet(images, pairs)


def _folds(same: NDArray[np.bool_], folds: int, seed: int | None) -> NDArray[np.int64] | None:
    """The fold of each pair: runs of them, or drawn for each kind by itself."""
    if folds == 1:
        return None
    found = np.empty(len(same), dtype=np.int64)
    if seed is None:
        kinds = [np.arange(len(same))]
    else:
        rng = np.random.default_rng(checks.integer("fold_seed", seed, low=0))
        kinds = [rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)]
    for rows in kinds:
        for fold, part in enumerate(np.array_split(rows, folds)):
            found[part] = fold
    return found


def _check_steps(data: bytes) -> None:
    """Refuse a pickle that asks for far more memory than it has bytes: by very many steps, or a place far out."""
    for number, (step, argument, _) in enumerate(pickletools.genops(data)):
        if number > _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS:,} steps")
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("a place to remember that is beyond its end")


class _Unpickler(pickle.Unpickler):
    """Knows stand-ins for the few names that such files hold, and nothing else."""

    def __init__(self, stream: io.BytesIO, where: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise InputError(
                f"{self._where} must hold images and flags only; it asks for {module}.{name}, which was not run; "
                "do not trust this file"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(f"{self._where} must hold images and flags only; it asks for the object {checks.shown(pid)}")


class _Call:
    """A stand-in for a function: can be called, and nothing about it can be set by the file."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a function has no state")


class _Type:
    """A stand-in for a NumPy dtype: unsigned bytes (u1) of images; flags (b1) and numbers that stand for them."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str) or text.lstrip("<>|=") not in _CODES:
            raise ValueError(f"arrays must be of unsigned bytes or flags; got {checks.shown(text)}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if any(item is not None for item in state[2:5]):
            raise ValueError("arrays must have no fields")
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class _Array:
    """A stand-in for a NumPy array, which takes its shape and bytes from the state."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, _, data = state
        self.value = _from_bytes(data, kind, shape).value


def _from_bytes(data: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    # OpenCV's encoder gives an image's bytes as [n, 1]; with one side longer than 1 the order does not matter.
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray) or sum(side > 1 for side in shape) > 1:
        raise ValueError("arrays must be rows of unsigned bytes or flags")
    array = _Array()
    array.value = np.frombuffer(bytes(data), dtype=kind.dtype)
    if len(array.value) != math.prod(shape):
        raise ValueError(f"an array of shape {checks.shown(shape)} must have as many values; got {len(array.value)}")
    return array


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    # Python 3 writes bytes so for Python 2 to read.
    if encoding not in ("latin1", b"latin1"):
        raise ValueError(f"bytes must be written as latin1; got {checks.shown(encoding)}")
    if not isinstance(text, str):
        raise ValueError(f"bytes must be written as text; got {checks.shown(text)}")
    return text.encode("latin1")


def _known() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): "ndarray",  # only ever an argument
        ("numpy", "dtype"): _Call(_Type),
        ("_codecs", "encode"): _Call(_encoded),
    }
    for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
        table[f"{core}.multiarray", "_reconstruct"] = _Call(lambda *_: _Array())
        table[f"{core}.multiarray", "scalar"] = _Call(lambda kind, data: _from_bytes(data, kind, (1,)))
        table[f"{core}.numeric", "_frombuffer"] = _Call(_from_bytes)
    return table


_KNOWN = _known()


def _items(where: str, what: str, value: Any) -> list[Any]:
    if isinstance(value, _Array):
        return value.value.tolist() if what == "flags" else list(value.value)
    if not isinstance(value, tuple | list):
        raise InputError(f"{where} must hold a list of {what}; got {type(value).__name__}")
    return list(value)


def _image(where: str, number: int, value: Any) -> bytes:
    data = value.value.tobytes() if isinstance(value, _Array) and value.value.dtype == np.uint8 else value
    if not isinstance(data, bytes) or not data:
        raise InputError(f"{where}: image {number} must be the bytes of an image file; got {type(value).__name__}")
    return data


def _flag(where: str, number: int, value: Any) -> bool:
    plain = value.value.tolist() if isinstance(value, _Array) else [value]
    if len(plain) != 1 or not isinstance(plain[0], bool | int) or plain[0] not in (0, 1):
        got = checks.shown(plain[0] if len(plain) == 1 else plain)
        raise InputError(f"{where}: flag {number} must be true or false; got {got}")
    return bool(plain[0])
