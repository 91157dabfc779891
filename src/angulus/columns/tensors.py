"""Columns in `.safetensors`: matrices are mapped from disk; text stands in the metadata or in files beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError, one_line
from angulus.columns.common import MATRICES, Columns, library, refuse_unknown

_HEADER_LIMIT = 100_000_000  # bytes; what readers of safetensors accept as a header
_ROWS = 65_536  # rows copied at a time
_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> Columns:
    """The columns of a file, and of the text that its metadata or files beside it hold."""
    safetensors = library("safetensors", path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _HEADER_LIMIT else b""
    try:
        # Its reader checks the header: offsets in range and order, sizes that fit shapes, nothing behind the last.
        with safetensors.safe_open(path, framework="np") as archive:
            names, metadata = list(archive.keys()), archive.metadata() or {}
            refuse_unknown(path, names, known)
            entries = json.loads(header)
            columns = {name: archive.get_tensor(name) for name in names if name not in MATRICES}
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} must be a whole .safetensors file; reading it gave: {one_line(error)}") from error
    for name in MATRICES:
        if name in names:
            columns[name] = _mapped_tensor(path, name, entries[name], 8 + length)
    for name in texts:
        value = _text_beside(path, name, metadata, name in columns)
        if value is not None:
            columns[name] = value
    return columns


def _mapped_tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise InputError(f"{path}: {name} must be F16, F32 or F64; got {entry['dtype']}; save it as float32")
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + entry["data_offsets"][0], shape=shape)


def _text_beside(path: Path, name: str, metadata: dict[str, str], in_tensors: bool) -> NDArray[np.str_] | None:
    """A column of text from the metadata (a JSON list) or from `PATH.NAME.txt`; one place only."""
    beside = _beside(path, name)
    places = ["a tensor"] * in_tensors + ["the metadata"] * (name in metadata) + [beside.name] * beside.is_file()
    if len(places) > 1:
        raise InputError(f"{path}: {name} must stand in one place; got {' and '.join(places)}; remove all but one")
    if beside.is_file():
        lines = beside.read_text(encoding="utf-8-sig").split("\n")
        return np.array(lines[:-1] if lines[-1] == "" else lines, dtype=np.str_)
    if name not in metadata:
        return None
    value = json.loads(metadata[name])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{path}: {name} in the metadata must be a JSON list of text; got {metadata[name][:40]!r}")
    return np.array(value, dtype=np.str_)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}.txt")


def writer(path: Path, columns: Columns) -> Callable[[BinaryIO], object]:
    """What writes the columns into an open file; text goes into the metadata: one file is replaced in one step."""
    metadata = {n: json.dumps(v.tolist(), ensure_ascii=False) for n, v in columns.items() if v.dtype.kind == "U"}
    for name in metadata:
        if _beside(path, name).exists():
            raise InputError(f"{_beside(path, name)} must not stand beside {path.name}, which holds {name}; remove it")
    tensors = {name: value for name, value in columns.items() if name not in metadata}
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))  # so that each is aligned
    offset = 0
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for name, value in tensors.items():
        code = {2: "F16", 4: "F32", 8: "F64"}[value.dtype.itemsize]
        header[name] = {"dtype": code, "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    packed = json.dumps(header, ensure_ascii=False).encode()
    packed += b" " * (-len(packed) % 8)
    if len(packed) > _HEADER_LIMIT:
        raise InputError(
            f"{path.name}: the text columns must fit the {_HEADER_LIMIT} bytes of a safetensors header; got "
            f"{len(packed)}; write .npz or .parquet"
        )

    def fill(file: BinaryIO) -> None:
        file.write(len(packed).to_bytes(8, "little") + packed)
        for value in tensors.values():
            for start in range(0, len(value), _ROWS):
                file.write(np.ascontiguousarray(value[start : start + _ROWS]).tobytes())

    return fill
