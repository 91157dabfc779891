"""Columns in `.parquet`: matrices are lists of floats, read and written a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.checks import InputError, one_line
from angulus.columns.common import MATRICES, Columns, library, refuse_unknown

_ROWS = 65_536  # a row group


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> Columns:
    """The columns of a file; `texts` need no care here. A matrix is filled in place, so that it is in memory once."""
    arrow, parquet = library("pyarrow", path), library("pyarrow.parquet", path)
    columns: Columns = {}
    try:
        with parquet.ParquetFile(path) as file:
            refuse_unknown(path, file.schema_arrow.names, known)
            parts: dict[str, list[NDArray[Any]]] = {
                name: [] for name in file.schema_arrow.names if name not in MATRICES
            }
            start = 0
            for batch in file.iter_batches(_ROWS):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    value = _arrow_column(path, name, column, arrow)
                    if name in parts:
                        parts[name].append(value)
                        continue
                    if name not in columns:
                        columns[name] = np.empty((file.metadata.num_rows, value.shape[1]), value.dtype)
                    if value.shape[1] != columns[name].shape[1]:
                        raise _uneven(path, name, columns[name].shape[1], value.shape[1])
                    columns[name][start : start + len(value)] = value
                start += len(batch)
    except arrow.ArrowException as error:
        raise InputError(f"{path} must be a whole .parquet file; reading it gave: {one_line(error)}") from error
    return columns | {name: np.concatenate(pieces) for name, pieces in parts.items() if pieces}


def _arrow_column(path: Path, name: str, column: Any, arrow: ModuleType) -> NDArray[Any]:
    kinds = arrow.types
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    is_list = kinds.is_fixed_size_list(column.type) or kinds.is_list(column.type) or kinds.is_large_list(column.type)
    values = column.flatten() if is_list else column
    if column.null_count or values.null_count:
        raise InputError(f"{path}: {name} must have no empty entries; got {column.null_count or values.null_count}")
    if is_list != (name in MATRICES):
        raise InputError(
            f"{path}: {name} must be {'lists of floats' if name in MATRICES else 'single values'}; got {column.type}"
        )
    if kinds.is_string(column.type) or kinds.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    if not (kinds.is_floating(values.type) or kinds.is_integer(values.type)):
        raise InputError(f"{path}: {name} must be text or numbers; got {column.type}")
    plain: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if not is_list:
        return plain
    lengths = np.diff(column.offsets.to_numpy()) if hasattr(column, "offsets") else np.full(1, column.type.list_size)
    if len(set(lengths.tolist())) != 1:
        raise _uneven(path, name, int(lengths.min()), int(lengths.max()))
    return plain.reshape(len(column), int(lengths[0]))


def _uneven(path: Path, name: str, low: int, high: int) -> InputError:
    return InputError(f"{path}: {name} must be lists of one length; got {low} and {high}")


def writer(path: Path, columns: Columns) -> Callable[[BinaryIO], object]:
    """What writes the columns into an open file."""
    arrow, parquet = library("pyarrow", path), library("pyarrow.parquet", path)

    def as_arrow(value: NDArray[Any]) -> Any:
        if value.ndim == 1:
            return arrow.array(value.tolist() if value.dtype.kind == "U" else value)
        return arrow.FixedSizeListArray.from_arrays(arrow.array(np.ascontiguousarray(value).ravel()), value.shape[1])

    def table(start: int) -> Any:
        return arrow.table({name: as_arrow(value[start : start + _ROWS]) for name, value in columns.items()})

    def fill(file: BinaryIO) -> None:
        words = [name for name, value in columns.items() if value.dtype.kind == "U" and name != "ids"]
        with parquet.ParquetWriter(file, table(0).schema, use_dictionary=words, compression="none") as writer:
            for start in range(0, len(columns["ids"]), _ROWS):
                writer.write_table(table(start))

    return fill
