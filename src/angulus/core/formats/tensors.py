"""Columns in `.safetensors`: matrices are memory-mapped; text is in the metadata or in files next to it."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError, one_line
from angulus.core.formats.columns import MATRICES, Columns, crc32_of, is_missing, text_array

_HEADER_LIMIT = 100_000_000  # bytes; what readers of safetensors accept as a header
_ROWS = 65_536  # rows copied at a time
_SUMS = "crc32"  # in the metadata: the checksum of each tensor's bytes, as JSON
_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
    """The known columns of a file, with text from its metadata or files next to it; and the other names.

    The format has no checksums; those that `write` puts in the metadata are verified.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _HEADER_LIMIT else b""
    try:
        # Its reader checks the header: offsets in range and order, sizes that fit shapes, nothing behind the last.
        with safetensors.safe_open(path, framework="np") as archive:
            names, metadata = list(archive.keys()), archive.metadata() or {}
            entries = json.loads(header)
            columns = {name: archive.get_tensor(name) for name in names if name in known and name not in MATRICES}
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} must be a whole .safetensors file; reading it gave: {one_line(error)}") from error
    for name in MATRICES:
        if name in names:
            columns[name] = _mapped_tensor(path, name, entries[name], 8 + length)
    _check_sums(path, metadata, entries, 8 + length)
    for name in texts:
        value = _text_column(path, name, metadata, name in columns)
        if value is not None:
            columns[name] = value
    return columns, [name for name in names if name not in known]


def _check_sums(path: Path, metadata: dict[str, str], entries: dict[str, Any], start: int) -> None:
    """Refuse tensors that differ from those that were written."""
    sums = limits.parse_json(metadata.get(_SUMS, "{}"), f"{path}: {_SUMS} in the metadata")
    with path.open("rb") as file:
        for name, entry in entries.items():
            if isinstance(sums, dict) and name in sums and name != "__metadata__":
                first, last = entry["data_offsets"]
                file.seek(start + first)
                if crc32_of(file, last - first) != sums[name]:
                    raise InputError(f"{path}: {name} has changed since it was written; the file is damaged")


def _mapped_tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise InputError(f"{path}: {name} must be F16, F32 or F64; got {entry['dtype']}; save it as float32")
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + entry["data_offsets"][0], shape=shape)


def _text_column(path: Path, name: str, metadata: dict[str, str], in_tensors: bool) -> NDArray[np.str_] | None:
    """A column of text from the metadata (a JSON list) or from `PATH.NAME.txt`; one place only."""
    text_file = text_file_of(path, name)
    places = ["a tensor"] * in_tensors + ["the metadata"] * (name in metadata) + [text_file.name] * text_file.is_file()
    if len(places) > 1:
        raise InputError(f"{path}: {name} must be in one place; got {' and '.join(places)}; remove all but one")
    if text_file.is_file():
        return read_text_file(text_file)
    if name not in metadata:
        return None
    value = limits.parse_json(metadata[name], f"{path}: {name} in the metadata")
    if not isinstance(value, list) or not all(isinstance(item, str) or is_missing(item) for item in value):
        raise InputError(f"{path}: {name} in the metadata must be a JSON list of text; got {metadata[name][:40]!r}")
    return text_array([item if isinstance(item, str) else "" for item in value])


def text_file_of(path: Path, name: str) -> Path:
    """The file next to `path` that may hold a column of text."""
    return path.with_name(f"{path.name}.{name}.txt")


def read_text_file(path: Path) -> NDArray[np.str_]:
    """A column of text, one per line."""
    try:
        lines = limits.read_file(path).decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text; got {error.reason}") from error
    return text_array(lines[:-1] if lines[-1] == "" else lines)


def write(file: BinaryIO, path: Path, columns: Columns) -> None:
    """Write the columns into an open file; text goes into the metadata, to write one file only."""
    metadata = {n: json.dumps(v.tolist(), ensure_ascii=False) for n, v in columns.items() if v.dtype.kind in "UO"}
    for name in metadata:
        text_file = text_file_of(path, name)
        if text_file.exists():
            raise InputError(f"{text_file} must not exist next to {path.name}, which holds {name}; remove it")
    tensors = {name: value for name, value in columns.items() if name not in metadata}
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))  # to align each
    offset = 0
    metadata[_SUMS] = json.dumps({name: _sum(value) for name, value in tensors.items()})
    header: dict[str, Any] = {"__metadata__": metadata}
    for name, value in tensors.items():
        code = {2: "F16", 4: "F32", 8: "F64"}[value.dtype.itemsize]
        header[name] = {"dtype": code, "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    packed = json.dumps(header, ensure_ascii=False).encode()
    packed += b" " * (-len(packed) % 8)
    if len(packed) > _HEADER_LIMIT:
        rule = f"the text columns must fit the {_HEADER_LIMIT} bytes of a safetensors header"
        raise InputError(f"{path.name}: {rule}; got {len(packed)}; write .npz or .parquet")
    file.write(len(packed).to_bytes(8, "little") + packed)
    for value in tensors.values():
        for block in _bytes(value):
            file.write(block)


def _bytes(value: NDArray[Any]) -> Iterator[bytes]:
    for start in range(0, len(value), _ROWS):
        yield np.ascontiguousarray(value[start : start + _ROWS]).tobytes()


def _sum(value: NDArray[Any]) -> int:
    return functools.reduce(lambda total, block: zlib.crc32(block, total), _bytes(value), 0)
