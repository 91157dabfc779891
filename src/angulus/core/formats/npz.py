"""Columns in `.npz`: matrices and text of an uncompressed archive are memory-mapped; every checksum is verified."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.core.formats.columns import MATRICES, Columns, crc32_of

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
    """The known columns of an archive, and the names of the others."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        names = [info.filename.removesuffix(".npy") for info in infos]
        if len(set(names)) < len(names):
            raise InputError(f"{path} must hold each name once; got {', '.join(sorted(names)):.300}")
        mapped = (*MATRICES, *texts)
        members = [(name, info) for name, info in zip(names, infos, strict=True) if name in known]
        columns = {name: _member(path, name, archive, info, mapped=name in mapped) for name, info in members}
    return columns, [name for name in names if name not in known]


def _member(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, mapped: bool) -> NDArray[Any]:
    """The array of a member: mapped if `mapped` and it is stored uncompressed, else read."""
    if info.compress_type != zipfile.ZIP_STORED:
        limits.check_unpacked(info.file_size, info.compress_size, f"{path}: {name}")
    with archive.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
        except ValueError as error:
            raise InputError(f"{path}: {name} must be an array as np.savez writes it; got other bytes") from error
        if version not in _HEADERS:  # field names beyond ASCII, which no column needs
            stream.seek(0)
            value: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return value
        shape, fortran, dtype = _HEADERS[version](stream)
        offset = stream.tell()
        if dtype.hasobject:
            way = f'np.savez(..., {name}=np.array({name}, dtype=str)), with "" for an unknown'
            why = "is an array of Python objects, which only pickle reads, and pickle runs code"
            raise InputError(f"{path}: {name} {why}; save it as text or numbers, as in {way}")
        size = math.prod(shape) * dtype.itemsize
        if offset + size != info.file_size:
            rule = f"{info.filename} must hold {size} bytes, as its header says"
            raise InputError(f"{path}: {rule}; the archive is damaged")
        if not mapped or info.compress_type != zipfile.ZIP_STORED or size == 0:
            plain: NDArray[Any] = np.frombuffer(stream.read(), dtype) if size else np.empty(shape, dtype)
            return plain.reshape(shape, order="F" if fortran else "C")
    start = _checked_start(path, info) + offset
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")


def _checked_start(path: Path, info: zipfile.ZipInfo) -> int:
    """The first byte of a stored member in the file, after verifying its checksum."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # zipfile has checked the bytes before
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)  # the name and the extra field
        start = file.tell()
        if crc32_of(file, info.file_size) != info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
    return start


def write(file: BinaryIO, path: Path, columns: Columns) -> None:
    """Write the columns into an open file."""
    np.savez(file, **{name: _fixed_width(path, name, value) for name, value in columns.items()})  # type: ignore[arg-type]


def _fixed_width(path: Path, name: str, value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype != object:
        return value
    size = 4 * len(value) * max(map(len, value.tolist()))
    if size > limits.most_unpacked():
        why = ".npz pads each text to the longest"
        raise InputError(f"{path}: {name} would take {size:,} bytes, because {why}; write .parquet")
    return value.astype(np.str_)
