"""What the formats share: types, and text and numbers as what reads them wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError, shown
from angulus.core.formats.texts import is_missing, text_array

Columns = dict[str, NDArray[Any]]

MATRICES = ("embeddings", "flipped")

_WIDE = 256  # letters; arrays of text at least as wide may be mostly padding


def as_native(value: NDArray[Any]) -> NDArray[Any]:
    """The array in this machine's byte order."""
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def as_text(path: Path, name: str, value: NDArray[Any]) -> NDArray[np.str_]:
    """A column of text: whole numbers stand for their digits, bytes for UTF-8; None and NaN become ""."""
    kind = value.dtype.kind
    if kind == "U" and value.dtype.itemsize < 4 * _WIDE:
        return np.array(value, dtype=np.str_)
    if kind in "iu":
        return value.astype(np.str_)
    if kind not in ("USO" if name == "ids" else "USOf") or value.ndim != 1:
        raise InputError(f"{path}: {name} must be text or whole numbers; got {value.dtype} {list(value.shape)}")
    return text_array([_text(path, name, each) for each in value.tolist()])


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
    if value.ndim == 2 and value.shape[1] == 1:  # norms are often kept as [N, 1]
        value = value[:, 0]
    return value.astype(np.float64)
