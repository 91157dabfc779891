"""Where a data set's files are looked for, and where a download puts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from angulus.core.checks import InputError


def places(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """The folders that a set of that name is looked for in, in this order.

    With a root: it and the folder NAME in it. Without: $ANGULUS_DATA/NAME if that variable is set, then the cache,
    $XDG_CACHE_HOME or ~/.cache, then angulus/NAME.
    """
    if root is not None:
        folder = as_path("root", root)
        return (folder, folder / name)
    data = os.environ.get("ANGULUS_DATA", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # unset, empty or relative: the XDG specification says to ignore it
        cache = Path("~/.cache").expanduser()
    cached = cache / "angulus" / name
    return (Path(data).expanduser() / name, cached) if data else (cached,)


def folder_for(name: str, root: str | os.PathLike[str] | None, begun: Callable[[Path], bool]) -> Path:
    """Where a download puts the files, which is one of `places`.

    `root` itself if it is called NAME or a download has `begun` there, else NAME in it; without a root the first place.
    """
    first = places(name, root)[0]
    return first if root is None or first.name == name or begun(first) else first / name


def as_path(name: str, value: object) -> Path:
    """Return `value` as a path, with ~ resolved, or say that it is none."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name} must be a path; got {value!r}")
    return Path(os.fspath(value)).expanduser()
