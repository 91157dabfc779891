"""Columns of text: arrays of one width, or of `str` objects where one long text would widen all the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = frozenset({"", "None", "nan", "NaN", "null", "<NA>"})  # what tools write where nobody is known

_OBJECT = 64  # bytes that a str takes besides its letters, and the place that points to it
_SMALL = 2**18  # letters: of no weight, whatever the widths
_LONG = 256  # letters of a text that is stored as it is


def text_array(values: Sequence[str]) -> NDArray[np.str_]:
    """An array [N] of text; of objects, each a `str`, where padding all to the longest would take far more memory.

    >>> text_array(["a", "bc"]).dtype.kind, text_array(["a"] * 99 + ["b" * 9999]).dtype.kind
    ('U', 'O')
    """
    longest = max(map(len, values), default=0)
    letters = sum(map(len, set(values)))  # an object stands in memory once, however often it is in the column
    if longest * len(values) <= max(_SMALL, letters + _OBJECT * len(values)):
        return np.array(values, dtype=np.str_)
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def is_text(value: NDArray[Any]) -> bool:
    """Whether an array holds nothing but text."""
    return value.dtype.kind == "U" or (value.dtype.kind == "O" and all(type(each) is str for each in value.tolist()))


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, NaN, or pandas' NA and NaT.

    >>> [is_missing(each) for each in (None, float("nan"), "nan", 0)]
    [True, True, False, False]
    """
    named = type(value).__name__ in ("NAType", "NaTType")
    return value is None or named or (isinstance(value, float) and math.isnan(value))


def known_or_empty(values: NDArray[np.str_]) -> NDArray[np.str_]:
    """The texts with "" for each that stands for an unknown one (`UNKNOWN`, and nothing but spaces)."""
    names = np.unique(values).tolist()
    unknown = [name for name in names if name and (name in UNKNOWN or not name.strip())]
    return np.where(np.isin(values, unknown), "", values) if unknown else values


def shortened(values: NDArray[Any]) -> NDArray[Any]:
    """Texts that one width can hold: a long one keeps its beginning, and a digest that tells it from others."""
    if values.dtype != object:
        return values
    return np.array([_short(text) for text in values.tolist()], dtype=np.str_)


def _short(text: str) -> str:
    if len(text) <= _LONG:
        return text
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{text[: _LONG - 40]}... {digest}"
