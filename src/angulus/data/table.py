"""The one table of data sets: name -> how it is loaded."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from angulus import checks
from angulus.checks import InputError
from angulus.data import digits, mnist
from angulus.data.images import Splits


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False, **options: Any) -> Splits:
    """Load a data set by its name.

    Arguments:
        name: one of `names()`.
        root: the folder to read it from instead of the usual places; "digits" has no files and refuses one.
        download: fetch the files if they are missing; "digits" has nothing to fetch.
        options: what else the set's own `load` takes.

    Raises:
        InputError: the name or an option is unknown (the nearest is named), or the data set cannot be read from there.

    >>> load("digits").train.pixels.shape
    torch.Size([1198, 1, 8, 8])
    """
    checks.choice("name", name, names())
    load_one = _TABLE[name]
    known = [each for each in inspect.signature(load_one).parameters if each not in ("root", "download")]
    for option in options:
        if option not in known:
            listed = ", ".join(known) if known else "none"
            raise InputError(f"{name!r} has no option {option!r}{checks.nearest(option, known)}; known: {listed}")
    return load_one(root=root, download=checks.flag("download", download), **options)


def names() -> tuple[str, ...]:
    """Name the data sets that `load` knows.

    >>> names()
    ('digits', 'mnist', 'cifar10', 'cifar100', 'celeba', 'luna16', 'faces', 'ms-celeb', 'casia-webface')
    """
    return tuple(_TABLE)


def _load_digits(*, root: str | os.PathLike[str] | None, download: bool) -> Splits:
    if root is not None:
        raise InputError(f"root must be left out for 'digits', which scikit-learn carries; got {str(Path(root))!r}")
    return digits.load()


def _load_records(name: str, every: int) -> Callable[..., Splits]:
    """How a set that is kept as records is loaded; of `every` images of an identity one is held out."""

    def load_one(*, root: str | os.PathLike[str] | None, download: bool, every: int = every) -> Splits:
        from angulus.data import faces  # decoding and records are slow to import, and digits need neither

        if root is None or download:
            raise InputError(
                f"{name!r} is your own to bring: give data.root, the records that `angulus convert SOURCE OUT` wrote; "
                "nothing is downloaded"
            )
        return faces.load(name, root, every)

    return load_one


def _load_cifar(name: str, *, root: str | os.PathLike[str] | None, download: bool) -> Splits:
    from angulus.data import cifar

    return cifar.load(name, root=root, download=download)


def _not_yet(name: str) -> Callable[..., Splits]:
    def load_one(*, root: str | os.PathLike[str] | None, download: bool) -> Splits:
        raise InputError(f"{name!r} cannot be read yet")

    return load_one


_TABLE: dict[str, Callable[..., Splits]] = {
    "digits": _load_digits,
    "mnist": mnist.load,
    "cifar10": partial(_load_cifar, "cifar10"),
    "cifar100": partial(_load_cifar, "cifar100"),
    "celeba": _load_records("celeba", 10),
    "luna16": _not_yet("luna16"),
    "faces": _load_records("faces", 10),
    "ms-celeb": _load_records("ms-celeb", 50),
    "casia-webface": _load_records("casia-webface", 50),
}
