"""Tensors in safetensors files with a checksum each, and arrays in .npz, so that a flipped bit is detected."""

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
from angulus.core.checks import InputError

_SUM = "crc32 "  # prefix of a tensor's name in the file's metadata
_BLOCK = 2**26  # bytes to sum at a time when a part of a tensor is read


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with their checksums, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sums = {_SUM + name: str(_crc32(value)) for name, value in plain.items()}

    def fill(file: BinaryIO) -> None:
        try:
            # by name: as bytes it would be in memory twice; {} gives a bad header
            save_file(plain, file.name, sums or None)
        except SafetensorError as error:
            system = re.search(r"os error (\d+)", str(error))  # as when the disk is full
            if system is None:
                raise
            raise OSError(int(system[1]), os.strerror(int(system[1]))) from error

    files.write_atomically(path, fill)


def read(path: Path, rows: slice = slice(None), only: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, or `only` one, and of each these rows; checksums are verified if the file has them."""
    try:
        with safe_open(path, framework="pt") as file:
            sums = file.metadata() or {}
            names = [name for name in file.keys() if only in (None, name)]  # noqa: SIM118  # not a mapping
            return {name: _checked(file, path, name, rows, sums.get(_SUM + name)) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it from a copy") from error


def read_npz(path: Path, way_out: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, verified by its checksums, without running code; errors end in `way_out`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (  # NumPy and zipfile raise all of these for damaged files
        *(OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, RuntimeError, MemoryError),
        *(SyntaxError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise InputError(f"{path} cannot be read ({checks.one_line(error):.200}); {way_out}") from error


def _checked(file: Any, path: Path, name: str, rows: slice, written: str | None) -> Tensor:
    whole = rows == slice(None)
    tensor: Tensor = file.get_tensor(name) if whole else file.get_slice(name)[rows]
    if written is not None and written != str(_crc32(tensor) if whole else _crc32_of_slices(file.get_slice(name))):
        fault = f"{path} is damaged: the checksum of {name} is not the one that was written with it"
        raise InputError(f"{fault}; restore the file from a copy")
    return tensor


def _crc32(values: Tensor, start: int = 0) -> int:
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().data, start)


def _crc32_of_slices(tensor: Any) -> int:
    """The checksum of a tensor, with a few rows in memory at a time."""
    total, *rest = tensor.get_shape()
    step = max(1, _BLOCK // (8 * max(1, torch.Size(rest).numel())))
    checksum = 0
    for start in range(0, total, step):
        checksum = _crc32(tensor[start : start + step], checksum)
    return checksum
