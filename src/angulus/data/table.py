"""The one table of data sets: name -> how it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from angulus import checks
from angulus.checks import InputError
from angulus.data import digits, mnist
from angulus.data.images import Splits


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Load a data set by its name.

    Arguments:
        name: one of `names()`.
        root: the folder to read it from instead of the usual places; "digits" has no files and refuses one.
        download: fetch the files if they are missing; "digits" has nothing to fetch.

    Raises:
        InputError: the name is unknown (the nearest is named), or the data set cannot be read from there.

    >>> load("digits").train.pixels.shape
    torch.Size([1198, 1, 8, 8])
    """
    checks.choice("name", name, names())
    return _TABLE[name](root=root, download=checks.flag("download", download))


def names() -> tuple[str, ...]:
    """Name the data sets that `load` knows.

    >>> names()
    ('digits', 'mnist', 'faces')
    """
    return tuple(_TABLE)


def _load_digits(*, root: str | os.PathLike[str] | None, download: bool) -> Splits:
    if root is not None:
        raise InputError(f"root must be left out for 'digits', which scikit-learn carries; got {str(Path(root))!r}")
    return digits.load()


def _load_faces(*, root: str | os.PathLike[str] | None, download: bool) -> Splits:
    from angulus.data import faces  # decoding and records are slow to import, and digits need neither

    return faces.load(root=root, download=download)


_TABLE: dict[str, Callable[..., Splits]] = {"digits": _load_digits, "mnist": mnist.load, "faces": _load_faces}
