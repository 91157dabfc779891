"""A folder per identity: `PERSON/anything.jpg`, at any depth; images at the top have no identity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from angulus.data.sources.common import Item, LeftOut, identity_of, no_folder, row_or_left_out, too_long

_Inode = tuple[int, int]


def read(folder: Path, depth: int | None = None) -> Iterator[Item]:
    """The images under a folder, in the order of their names; links are followed, loops are not.

    Args:
        folder: the top.
        depth: which folder of the path, from 1, names the identity; None: the whole path of the image's folder.
    """
    for found in _walk(folder, "", ()):
        if isinstance(found, LeftOut):
            yield found
            continue
        identity = identity_of(found, depth)
        yield LeftOut(found, no_folder(depth or 0)) if identity is None else _image(folder / found, found, identity)


def _walk(top: Path, inside: str, above: tuple[_Inode, ...]) -> Iterator[str | LeftOut]:
    """Names of regular files, relative to the top; `above` are the folders that this one lies in."""
    try:
        here = os.stat(top / inside)
        inode = (here.st_dev, here.st_ino)
        if inode in above:
            yield LeftOut(inside, "it is a symbolic link to a folder that it lies in")
            return
        with os.scandir(top / inside) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        yield LeftOut(inside or ".", f"the folder cannot be read: {error.strerror or error}")
        return
    for name in names:
        path = f"{inside}/{name}" if inside else name
        full = top / path
        if full.is_dir():
            yield from _walk(top, path, (*above, inode))
        elif full.is_file():
            yield path
        elif full.is_symlink():
            yield LeftOut(path, "it is a symbolic link that leads to no file")
        else:
            yield LeftOut(path, "it is no regular file")


def _image(path: Path, name: str, identity: str) -> Item:
    try:
        reason = too_long(path.stat().st_size)
        return LeftOut(name, reason) if reason else row_or_left_out(name, path.read_bytes(), identity)
    except OSError as error:
        return LeftOut(name, f"it cannot be read: {error.strerror or error}")
