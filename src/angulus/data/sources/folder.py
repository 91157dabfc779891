"""A folder per identity: `PERSON/anything.jpg`, at any depth; images at the top have no identity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from angulus.core import limits
from angulus.core.files import IMAGE_SUFFIXES
from angulus.data.sources.common import (
    ARCHIVES,
    Item,
    LeftOut,
    Remark,
    SystemFiles,
    is_system,
    row_or_left_out,
    too_long,
)
from angulus.data.sources.naming import Naming, Wish, find_naming

_Inode = tuple[int, int]


def read(folder: Path, wish: Wish | None = None) -> Iterator[Item]:
    """The images under a folder, in the order of their names; links are followed, loops are not.

    Args:
        folder: the top.
        wish: how paths name identities.

    Raises:
        checks.InputError: the split that is asked for is not there.
    """
    names = (found for found in _walk(folder, "", ()) if isinstance(found, str) and not is_system(found))
    naming, remarks = find_naming(names, folder, wish or Wish())
    return _read(folder, naming, remarks)


def holds_images(folder: Path) -> str | None:
    """The name of an image somewhere under a folder, or None."""
    names = (found for found in _walk(folder, "", ()) if isinstance(found, str) and not is_system(found))
    return next((name for name in names if name.lower().endswith(IMAGE_SUFFIXES)), None)


def _read(folder: Path, naming: Naming, remarks: tuple[Remark, ...]) -> Iterator[Item]:
    yield from remarks
    system = SystemFiles()
    for found in _walk(folder, "", ()):
        name = found.where if isinstance(found, LeftOut) else found
        if system.skips(name) or not naming.takes(name):
            continue
        yield found if isinstance(found, LeftOut) else _image(folder / found, found, naming.identity_of(found), naming)
    yield from system.remarks()


def _walk(top: Path, inside: str, above: tuple[_Inode, ...]) -> Iterator[str | LeftOut]:
    """Names of regular files, relative to the top; `above` are the folders that this one lies in."""
    try:
        here = os.stat(top / inside)
        inode = (here.st_dev, here.st_ino)
        if inode in above:
            yield LeftOut(inside, "it is a symbolic link to a folder that it lies in")
            return
        if len(above) == limits.MOST_DEPTH:
            yield LeftOut(inside, f"folders are read to a depth of {limits.MOST_DEPTH}")
            return
        with os.scandir(top / inside) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        yield LeftOut(inside or ".", f"the folder cannot be read: {error.strerror or error}")
        return
    for name in names:
        path = f"{inside}/{name}" if inside else name
        full = top / path
        if os.path.isdir(full):  # unlike Path.is_dir, without an error where a folder may be listed and not entered
            yield from _walk(top, path, (*above, inode))
        elif os.path.isfile(full):
            yield path
        elif os.path.islink(full):
            yield LeftOut(path, "it is a symbolic link that leads to no file")
        else:
            yield LeftOut(path, "it is no regular file")


def _image(path: Path, name: str, identity: str | None, naming: Naming) -> Item:
    if identity is None:
        return LeftOut(name, naming.no_folder())
    if name.lower().endswith(ARCHIVES):
        return LeftOut(name, "archives in a folder of photos are not opened; give it by its own path", image=False)
    try:
        reason = too_long(path.stat().st_size)
        return LeftOut(name, reason) if reason else row_or_left_out(name, path.read_bytes(), identity)
    except OSError as error:
        return LeftOut(name, f"it cannot be read: {error.strerror or error}")
