"""Columns in `.npz`: matrices of an uncompressed archive are mapped from disk."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError
from angulus.columns.common import MATRICES, Columns, refuse_unknown


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> Columns:
    """The columns of an archive; `texts` need no care here."""
    with zipfile.ZipFile(path) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        infos = dict(zip(names, archive.infolist(), strict=True))
    refuse_unknown(path, names, known)
    if len(infos) < len(names):
        raise InputError(f"{path} must hold each name once; got {', '.join(sorted(names))}")
    mapped = {name: _mapped_member(path, infos[name]) for name in MATRICES if name in infos}
    columns = {name: value for name, value in mapped.items() if value is not None}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            if name not in columns:
                columns[name] = _member(path, name, archive)
    return columns


def _member(path: Path, name: str, archive: Any) -> NDArray[Any]:
    try:
        value: NDArray[Any] | bytes = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{path}: {name} is an array of Python objects, which only pickle reads, and pickle runs code; "
            f"save it as text or numbers, as in np.savez(..., {name}=np.array({name}, dtype=str))"
        ) from error
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path}: {name} must be an array as np.savez writes it; got other bytes")
    return value


def _mapped_member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any] | None:
    """The array of a stored member, mapped through its place in the archive; None for what has to be unpacked."""
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise InputError(f"{path}: the archive's entry {info.filename} must start with its header; it is damaged")
        file.seek(sum(struct.unpack("<HH", local[26:30])), 1)  # the name and the extra field
        start = file.tell()
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in headers:
            return None
        shape, fortran, dtype = headers[version](file)
        offset = file.tell()
    if dtype.hasobject:
        return None
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset - start + size != info.file_size:
        raise InputError(f"{path}: {info.filename} must hold {size} bytes, as its header says; the archive is damaged")
    if size == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


def writer(path: Path, columns: Columns) -> Callable[[BinaryIO], object]:
    """What writes the columns into an open file."""
    return lambda file: np.savez(file, **columns)  # type: ignore[arg-type]
