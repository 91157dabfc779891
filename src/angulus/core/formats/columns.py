"""Columns: text as arrays of one width, or of `str` objects if one long text would widen all the others; numbers."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError, shown

Columns = dict[str, NDArray[Any]]

MATRICES = ("embeddings", "flipped")
UNKNOWN = frozenset({"", "None", "nan", "NaN", "null", "<NA>"})  # what tools write for an unknown person

_OBJECT = 64  # bytes of a str other than its letters, and of the pointer to it
_SMALL = 2**18  # letters: negligible, whatever the widths
_LONG = 256  # letters; longer texts are shortened, and arrays of such a width may be mostly padding
_BLOCK = 2**22  # bytes read at a time


def text_array(values: Sequence[str]) -> NDArray[np.str_]:
    """An array [N] of text; of `str` objects if padding all to the longest would take far more memory.

    >>> text_array(["a", "bc"]).dtype.kind, text_array(["a"] * 99 + ["b" * 9999]).dtype.kind
    ('U', 'O')
    """
    longest = max(map(len, values), default=0)
    letters = sum(map(len, set(values)))  # an object is in memory once, however often it is in the column
    if longest * len(values) <= max(_SMALL, letters + _OBJECT * len(values)):
        return np.array(values, dtype=np.str_)
    return object_array(values)


def object_array(values: Sequence[Any]) -> NDArray[Any]:
    """An array [N] of Python objects."""
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def is_text(value: NDArray[Any]) -> bool:
    """Whether an array holds only text."""
    return value.dtype.kind == "U" or (value.dtype.kind == "O" and all(type(item) is str for item in value.tolist()))


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT.

    >>> [is_missing(value) for value in (None, float("nan"), "nan", 0)]
    [True, True, False, False]
    """
    is_pandas = type(value).__name__ in ("NAType", "NaTType")
    return value is None or is_pandas or (isinstance(value, float) and math.isnan(value))


def known_or_empty(values: NDArray[np.str_]) -> NDArray[np.str_]:
    """The texts, with "" for those that stand for an unknown (`UNKNOWN`, or only spaces)."""
    names = np.unique(values).tolist()
    unknown = [name for name in names if name and (name in UNKNOWN or not name.strip())]
    return np.where(np.isin(values, unknown), "", values) if unknown else values


def shortened(values: NDArray[Any]) -> NDArray[Any]:
    """Texts as an array of one width: a long text keeps its beginning, and a digest that distinguishes it."""
    if values.dtype != object:
        return values

    def shorten(text: str) -> str:
        if len(text) <= _LONG:
            return text
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return f"{text[: _LONG - 40]}... {digest}"

    return np.array([shorten(text) for text in values.tolist()], dtype=np.str_)


def as_native(value: NDArray[Any]) -> NDArray[Any]:
    """The array in this machine's byte order."""
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def as_text(path: Path, name: str, value: NDArray[Any]) -> NDArray[np.str_]:
    """A column of text: whole numbers become their digits, bytes are UTF-8, None and NaN become ""."""
    kind = value.dtype.kind
    if kind == "U" and value.dtype.itemsize < 4 * _LONG:
        return np.array(value, dtype=np.str_)
    if kind in "iu":
        return value.astype(np.str_)
    if kind not in ("USO" if name == "ids" else "USOf") or value.ndim != 1:
        raise InputError(f"{path}: {name} must be text or whole numbers; got {value.dtype} {list(value.shape)}")
    return text_array([_text(path, name, item) for item in value.tolist()])


def _text(path: Path, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {name} must be text in UTF-8; got {value[:40]!r}") from error
    if is_missing(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return str(int(value))
    raise InputError(f"{path}: {name} must be text or whole numbers; got {shown(value)}")


def as_numbers(path: Path, name: str, value: NDArray[Any]) -> NDArray[np.float64]:
    """A column of numbers as float64."""
    if value.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} must be numbers; got {'text' if value.dtype.kind in 'UO' else value.dtype}")
    if value.ndim == 2 and value.shape[1] == 1:  # norms are often stored as [N, 1]
        value = value[:, 0]
    return value.astype(np.float64)


def crc32_of(file: BinaryIO, size: int) -> int:
    """The CRC-32 of the next `size` bytes of a file; EOFError if it has fewer."""
    checksum = 0
    while size:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise EOFError("the file is cut short")
        checksum, size = zlib.crc32(block, checksum), size - len(block)
    return checksum
