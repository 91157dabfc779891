"""What the formats share: known names, optional libraries, errors in a line."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError

Columns = dict[str, NDArray[Any]]

MATRICES = ("embeddings", "flipped")


def refuse_unknown(path: Path, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is none of `known`, with the nearest one."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{path} must hold nothing but {', '.join(known)}; got {name!r}{meant}")


def library(name: str, path: Path) -> ModuleType:
    """A library that only some files need, or the error that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"{path} needs the package {package} to be read or written; pip install {package}") from error


def as_native(value: NDArray[Any]) -> NDArray[Any]:
    """The array in this machine's byte order."""
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def as_text(path: Path, name: str, value: NDArray[Any]) -> NDArray[np.str_]:
    """A column of text; whole numbers stand for their digits."""
    if value.dtype.kind == "S":
        try:
            return np.char.decode(value, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {name} must be text in UTF-8; got {error.object[:40]!r}") from error
    if value.dtype.kind in "iuU":
        return value.astype(np.str_)
    raise InputError(f"{path}: {name} must be text or whole numbers; got {value.dtype}")


def as_numbers(path: Path, name: str, value: NDArray[Any]) -> NDArray[np.float64]:
    """A column of numbers as float64."""
    if value.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} must be numbers; got {value.dtype}")
    if value.ndim == 2 and value.shape[1] == 1:  # norms are often kept as [N, 1]
        value = value[:, 0]
    return value.astype(np.float64)
