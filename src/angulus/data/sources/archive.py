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
from angulus.data.sources import items
from angulus.data.sources.folder import Naming, find_naming
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions

# What zipfile raises on damage; RuntimeError is a missing password, MemoryError a dictionary of 4 GB.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError),
    *(RuntimeError, ValueError, IndexError, MemoryError),
)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip; `InputError` if it is not one or is cut short."""
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise InputError(f"{path} must be a whole zip; opening it gave: {one_line(error)}") from error


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an image in a zip."""
    reason = items.too_long(info.file_size)
    if reason:
        raise InputError(reason)
    try:
        with archive.open(info) as file:
            data = file.read(items.MOST_BYTES + 1)  # the size in the directory may be a lie
    except _DAMAGED as error:
        raise InputError(f"it cannot be unpacked: {one_line(error)}") from error
    if len(data) > items.MOST_BYTES:
        raise InputError(items.too_long(len(data)) or "")
    return data


def read(path: Path, options: SourceOptions) -> Iterator[Item]:
    """The images of a zip, in its order; folders give identities as in a folder per identity."""
    with open_zip(path) as archive:
        names = [items.slashed(info.filename) for info in archive.infolist()]
    naming, remarks = find_naming((name for name in names if not items.is_system(name)), path, options)
    return _read(path, naming, remarks)


def _read(path: Path, naming: Naming, remarks: tuple[Remark, ...]) -> Iterator[Item]:
    yield from remarks
    system, seen = items.SystemFiles(), set[str]()
    with open_zip(path) as archive:
        for info in archive.infolist():
            name = items.slashed(info.filename)
            if not name.endswith("/") and not system.skips(name) and naming.takes(name):
                yield _entry(archive, info, name, naming, seen)
            seen.add(name)
    yield from system.remarks()


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, naming: Naming, seen: set[str]) -> Item:
    reason = items.unsafe(name)
    if stat.S_ISLNK(info.external_attr >> 16):
        reason = "it is a symbolic link"
    if name in seen:
        reason = "the archive has an entry of this name before it"
    if reason:
        return LeftOut(name, reason)
    try:
        identity = naming.identity_of(name)
        return items.row_or_left_out(name, read_entry(archive, info), identity)
    except InputError as error:
        return LeftOut(name, str(error))
