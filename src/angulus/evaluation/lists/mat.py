"""Variables of a MATLAB v5 file: arrays of numbers, text, and cells of these.

SciPy's reader is compiled and follows a damaged tag out of its memory, which ends the process; this one looks at each
tag before it follows it.
"""

import itertools
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError, one_line

_HEADER = 128  # bytes: text, where it was made; from 124 the version, at 126 the byte order
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR, _PLAIN = 1, 4, range(6, 16)  # classes of arrays; plain: of numbers
_COMPLEX = 0x800

_MOST_ELEMENTS = 1_000_000  # of a file; each takes some hundred bytes, however small it is in the file
_MOST_LETTERS = 100_000  # of a text

Array = NDArray[Any]


def read_mat(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, Array]:
    """The variables that are among `names`: numbers and cells in their shape, a line of text as one str [1].

    Raises:
        InputError: no MATLAB v5 file, a damaged one, or a wanted variable of another kind.

    Source: The MathWorks, "MAT-File Format", the chapter on level 5.
    """
    data = limits.read_file(path)
    where = os.fspath(path)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise InputError(f"{where} must be a whole MATLAB v5 file; it does not begin as one")
    if int(np.frombuffer(data, f"{order}u2", 1, 124)[0]) >> 8 == 2:
        raise InputError(f"{where} must be a MATLAB v5 file; got v7.3; save it in MATLAB with -v7")
    try:
        return dict(_variables(where, memoryview(data)[_HEADER:], order, names))
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{where} must nest cells at most {limits.MOST_DEPTH} deep; it goes deeper") from error
    except (ValueError, MemoryError, zlib.error) as error:
        raise InputError(f"{where} must be a whole MATLAB v5 file; reading it gave: {one_line(error)}") from error


def _variables(where: str, data: memoryview, order: str, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
    unpacked, left = 0, [_MOST_ELEMENTS]
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            whole = limits.inflate(bytes(content), where)
            unpacked += len(whole)
            limits.check_unpacked(unpacked, len(data), where)
            kind, content = next(_elements(memoryview(whole), order), (0, memoryview(b"")))
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a variable is due")
        name, value = _array(content, order, left, names)
        if value is not None:
            yield name, value


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element; up to four bytes of content may stand inside its tag."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("it ends inside a tag")
        kind, size = np.frombuffer(data, f"{order}u4", 2, place).tolist()
        start, short = place + 8, kind >> 16
        if short:
            kind, size, start = kind & 0xFFFF, short, place + 4
        if start + size > len(data) or (short and size > 4):
            raise ValueError("it ends inside an element")
        yield kind, data[start : start + size]
        place = start + size if kind == _COMPRESSED else place + 8 if short else start + (size + 7) // 8 * 8


def _array(
    data: memoryview, order: str, left: list[int], names: Sequence[str] | None = None, depth: int = 1
) -> tuple[str, Array | None]:
    """Name and value of an array; no value where `names` do not ask for it. `left` counts elements down."""
    if depth > limits.MOST_DEPTH:
        raise RecursionError
    if not data:
        return "", np.empty((0, 0))  # what an empty cell holds
    parts = list(itertools.islice(_elements(data, order), left[0] + 1))
    left[0] -= len(parts)
    if left[0] < 0:
        raise ValueError(f"more than {_MOST_ELEMENTS:,} elements")
    if [kind for kind, _ in parts[:3]] != [6, 5, 1] or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        raise ValueError("an array without flags, shape or name")
    flags = int(np.frombuffer(parts[0][1], f"{order}u4")[0])
    shape = np.frombuffer(parts[1][1], f"{order}i4").tolist()
    name = bytes(parts[2][1]).decode("latin-1")
    if names is not None and name not in names:
        return name, None
    if min(shape, default=-1) < 0:
        raise ValueError(f"{name or 'an array'} of shape {shape}")
    return name, _value(flags, shape, parts[3:], order, left, depth)


def _value(
    flags: int, shape: list[int], parts: list[tuple[int, memoryview]], order: str, left: list[int], depth: int
) -> Array:
    kind, count = flags & 0xFF, math.prod(shape)
    if kind == _CELL:
        if len(parts) != count or any(part != _MATRIX for part, _ in parts):
            raise ValueError(f"cells of shape {shape} with {len(parts)} elements")
        cells = np.empty(count, dtype=object)
        for place, (_, content) in enumerate(parts):
            cells[place] = _array(content, order, left, depth=depth + 1)[1]
        return cells.reshape(shape, order="F")
    if kind == _CHAR:
        return _text(shape, parts, order)
    if kind not in _PLAIN or flags & _COMPLEX or len(parts) != 1 or parts[0][0] not in _NUMBERS:
        raise ValueError(f"an array of class {kind}, which is neither real numbers nor text nor cells")
    numbers = np.frombuffer(parts[0][1], order + _NUMBERS[parts[0][0]])
    if len(numbers) != count:
        raise ValueError(f"an array of shape {shape} with {len(numbers)} numbers")
    return numbers.astype(numbers.dtype.newbyteorder("=")).reshape(shape, order="F")


def _text(shape: list[int], parts: list[tuple[int, memoryview]], order: str) -> Array:
    """One line as [1], several as single letters of their shape."""
    kind, content = parts[0] if parts else (1, memoryview(b""))
    if kind not in _TEXTS:
        raise ValueError(f"text of type {kind}")
    if len(content) > _MOST_LETTERS:
        raise ValueError(f"text of {len(content):,} bytes")
    encoding = _TEXTS[kind] + ({"<": "-le", ">": "-be"}[order] if kind in (4, 17, 18) else "")
    letters = bytes(content).decode(encoding)
    if len(letters) != math.prod(shape):
        raise ValueError(f"text of shape {shape} with {len(letters)} letters")
    return np.array([letters]) if shape[0] <= 1 else np.array(list(letters)).reshape(shape, order="F")
