"""A zip with a folder per identity; nothing is unpacked to disk."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from angulus.checks import InputError, one_line
from angulus.data.sources.common import (
    MOST_BYTES,
    Item,
    LeftOut,
    identity_of,
    no_folder,
    row_or_left_out,
    too_long,
    unsafe,
)


def read(path: Path, depth: int | None = None) -> Iterator[Item]:
    """The images of a zip, in its order; folders give identities as in a folder per identity.

    Raises:
        checks.InputError: it is no zip, or is cut short.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} must be a whole zip; opening it gave: {one_line(error)}") from error
    seen: set[str] = set()
    with archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield _entry(archive, info, depth, seen)
            seen.add(info.filename)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, depth: int | None, seen: set[str]) -> Item:
    name = info.filename
    reason = unsafe(name) or too_long(info.file_size)
    if stat.S_ISLNK(info.external_attr >> 16):
        reason = "it is a symbolic link"
    if name in seen:
        reason = "the archive has an entry of this name before it"
    if reason:
        return LeftOut(name, reason)
    identity = identity_of(name, depth)
    if identity is None:
        return LeftOut(name, no_folder(depth or 0))
    try:
        with archive.open(info) as file:
            data = file.read(MOST_BYTES + 1)  # the size in the directory may be a lie
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        return LeftOut(name, f"it cannot be unpacked: {one_line(error)}")  # RuntimeError: it needs a password
    return row_or_left_out(name, data, identity)
