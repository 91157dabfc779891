"""Tensors in safetensors files that hold the checksum of each, and arrays in .npz: a flipped bit is found."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from angulus.core import checks, files

_SUM = "crc32 "  # before a tensor's name, in the file's metadata
_BLOCK = 2**26  # bytes that are summed at a time where a part of a tensor is read


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with their checksums, atomically.

    Raises:
        checks.InputError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sums = {_SUM + name: str(_crc32(value)) for name, value in plain.items()}

    def fill(file: BinaryIO) -> None:
        try:
            save_file(
                plain, file.name, sums or None
            )  # by name: as bytes it would be in memory twice; {} gives a bad header
        except SafetensorError as error:
            system = re.search(r"os error (\d+)", str(error))  # how it tells of a full disk
            if system is None:
                raise
            raise OSError(int(system[1]), os.strerror(int(system[1]))) from error

    files.write_atomically(path, fill)


def read(path: Path, rows: slice = slice(None), only: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, or one; of each the rows asked for. A file without checksums is taken as it is.

    Raises:
        checks.InputError: it cannot be read, or a tensor is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sums = file.metadata() or {}
            names = [name for name in file.keys() if only in (None, name)]  # noqa: SIM118  # not a mapping
            return {name: _checked(file, path, name, rows, sums.get(_SUM + name)) for name in names}
    except (OSError, SafetensorError) as error:
        raise checks.InputError(f"{path} cannot be read ({error}); restore it from a copy") from error


def read_npz(path: Path, way_out: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, by the checksums that it holds; nothing in it can run code.

    Raises:
        checks.InputError: it cannot be read, or is damaged; ends in `way_out`.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (  # NumPy and zipfile raise all of these for damaged files
        *(OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, RuntimeError, MemoryError),
        *(SyntaxError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise checks.InputError(f"{path} cannot be read ({checks.one_line(error):.200}); {way_out}") from error


def _checked(file: Any, path: Path, name: str, rows: slice, written: str | None) -> Tensor:
    whole = rows == slice(None)
    found: Tensor = file.get_tensor(name) if whole else file.get_slice(name)[rows]
    if written is not None and written != str(_crc32(found) if whole else _crc32_of_slices(file.get_slice(name))):
        raise checks.InputError(
            f"{path} is damaged: the checksum of {name} is not the one that was written with it; restore the file from "
            "a copy"
        )
    return found


def _crc32(values: Tensor, start: int = 0) -> int:
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().data, start)


def _crc32_of_slices(tensor: Any) -> int:
    """The checksum of a tensor of which a few rows at a time are in memory."""
    total, *rest = tensor.get_shape()
    step = max(1, _BLOCK // (8 * max(1, torch.Size(rest).numel())))
    found = 0
    for start in range(0, total, step):
        found = _crc32(tensor[start : start + step], found)
    return found
