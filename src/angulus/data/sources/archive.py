"""A zip with a folder per identity; nothing is unpacked to disk."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from angulus.core.checks import InputError, one_line
from angulus.data.sources.common import (
    MOST_BYTES,
    Item,
    LeftOut,
    Remark,
    SystemFiles,
    is_system,
    row_or_left_out,
    slashed,
    too_long,
    unsafe,
)
from angulus.data.sources.naming import Naming, Wish, find_naming

# What a damaged zip makes zipfile raise; RuntimeError is a password that is missing, MemoryError a dictionary of 4 GB.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError),
    *(RuntimeError, ValueError, IndexError, MemoryError),
)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises:
        checks.InputError: it is none, or is cut short.
    """
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise InputError(f"{path} must be a whole zip; opening it gave: {one_line(error)}") from error


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an image in a zip.

    Raises:
        checks.InputError: it is damaged, needs a password or is too long; a clause without the entry's name.
    """
    reason = too_long(info.file_size)
    if reason:
        raise InputError(reason)
    try:
        with archive.open(info) as file:
            data = file.read(MOST_BYTES + 1)  # the size in the directory may be a lie
    except _DAMAGED as error:
        raise InputError(f"it cannot be unpacked: {one_line(error)}") from error
    if len(data) > MOST_BYTES:
        raise InputError(too_long(len(data)) or "")
    return data


def read(path: Path, wish: Wish | None = None) -> Iterator[Item]:
    """The images of a zip, in its order; folders give identities as in a folder per identity.

    Raises:
        checks.InputError: it is no zip, or is cut short; the split that is asked for is not there.
    """
    with open_zip(path) as archive:
        names = [slashed(info.filename) for info in archive.infolist()]
    naming, remarks = find_naming((name for name in names if not is_system(name)), path, wish or Wish())
    return _read(path, naming, remarks)


def _read(path: Path, naming: Naming, remarks: tuple[Remark, ...]) -> Iterator[Item]:
    yield from remarks
    system, seen = SystemFiles(), set[str]()
    with open_zip(path) as archive:
        for info in archive.infolist():
            name = slashed(info.filename)
            if not name.endswith("/") and not system.skips(name) and naming.takes(name):
                yield _entry(archive, info, name, naming, seen)
            seen.add(name)
    yield from system.remarks()


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, naming: Naming, seen: set[str]) -> Item:
    reason = unsafe(name)
    if stat.S_ISLNK(info.external_attr >> 16):
        reason = "it is a symbolic link"
    if name in seen:
        reason = "the archive has an entry of this name before it"
    identity = naming.identity_of(name)
    if identity is None:
        reason = reason or naming.no_folder()
    if reason or identity is None:
        return LeftOut(name, reason or "")
    try:
        return row_or_left_out(name, read_entry(archive, info), identity)
    except InputError as error:
        return LeftOut(name, str(error))
