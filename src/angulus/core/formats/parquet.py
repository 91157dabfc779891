"""Columns in `.parquet`: matrices are lists of floats, read and written a block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError, one_line
from angulus.core.formats import parquet_footer
from angulus.core.formats.columns import MATRICES, Columns, object_array

_ROWS = 65_536  # a row group


def open_file(source: Any, **options: Any) -> Any:
    """Open a Parquet file for `read` and `iter_batches`, both with `use_threads=False`, on the calling thread alone.

    By default pyarrow reads ahead on other threads. One that still needs a Python file while the process exits aborts
    it, as after an error; some damaged pages abort it at once.
    """
    from pyarrow import parquet

    return parquet.ParquetFile(source, pre_buffer=False, **options)


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
    """The known columns of a file, and the names of the others.

    A matrix is filled in place, so that it is in memory once; so is each text, however often it occurs.
    """
    import pyarrow as arrow  # here, because it loads slowly

    columns: Columns = {}
    try:
        with path.open("rb") as footer:
            size = sum(chunk.unpacked for chunk in parquet_footer.chunks(footer) if chunk.name in known)
        limits.check_unpacked(size, path.stat().st_size, str(path))  # repeated values take a few bits in the file
        with open_file(path) as file:
            names = file.schema_arrow.names
            wanted = [name for name in names if name in known]
            words = [name for name in wanted if _is_words(file.schema_arrow.field(name).type, arrow)]
        if len(set(names)) < len(names):
            raise InputError(f"{path} must hold each name once; got {', '.join(sorted(names)):.300}")
        with open_file(path, read_dictionary=words, page_checksum_verification=True) as file:
            parts: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted if name not in MATRICES}
            start = 0
            for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if name in parts:
                        parts[name].append(_single(path, name, column, name in texts, arrow))
                        continue
                    value = _matrix(path, name, column, arrow)
                    if name not in columns:
                        columns[name] = np.empty((file.metadata.num_rows, value.shape[1]), value.dtype)
                    if value.shape[1] != columns[name].shape[1]:
                        raise _uneven(path, name, columns[name].shape[1], value.shape[1])
                    columns[name][start : start + len(value)] = value
                start += len(batch)
    except arrow.ArrowException as error:
        raise InputError(f"{path} must be a whole .parquet file; reading it gave: {one_line(error)}") from error
    columns |= {name: np.concatenate(pieces) for name, pieces in parts.items() if pieces}
    return columns, [name for name in names if name not in known]


def _is_words(kind: Any, arrow: ModuleType) -> bool:
    kinds = arrow.types
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    checks = (kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary)
    return any(check(kind) for check in checks)


def _single(path: Path, name: str, column: Any, is_text: bool, arrow: ModuleType) -> NDArray[Any]:
    """A column of single values: text and bytes as objects, numbers as they are; missing values are None or NaN."""
    kinds = arrow.types
    if column.null_count and name == "ids":
        raise InputError(f"{path}: {name} must have no empty entries; got {column.null_count}")
    if kinds.is_dictionary(column.type):
        words = [*column.dictionary.to_pylist(), None]
        return object_array([words[place] for place in column.indices.fill_null(len(words) - 1).to_pylist()])
    if kinds.is_nested(column.type):
        raise InputError(f"{path}: {name} must be single values; got {column.type}")
    if is_text and (kinds.is_integer(column.type) or _is_words(column.type, arrow)):
        return object_array(column.to_pylist())
    if not (kinds.is_floating(column.type) or kinds.is_integer(column.type) or kinds.is_null(column.type)):
        raise InputError(f"{path}: {name} must be text or numbers; got {column.type}")
    plain: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return plain


def _matrix(path: Path, name: str, column: Any, arrow: ModuleType) -> NDArray[Any]:
    kinds = arrow.types
    if not (kinds.is_fixed_size_list(column.type) or kinds.is_list(column.type) or kinds.is_large_list(column.type)):
        raise InputError(f"{path}: {name} must be lists of floats; got {column.type}")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise InputError(f"{path}: {name} must have no empty entries; got {column.null_count or values.null_count}")
    if not (kinds.is_floating(values.type) or kinds.is_integer(values.type)):
        raise InputError(f"{path}: {name} must be lists of floats; got {column.type}")
    plain: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    lengths = np.diff(column.offsets.to_numpy()) if hasattr(column, "offsets") else np.full(1, column.type.list_size)
    if len(set(lengths.tolist())) != 1:
        raise _uneven(path, name, int(lengths.min()), int(lengths.max()))
    return plain.reshape(len(column), int(lengths[0]))


def _uneven(path: Path, name: str, low: int, high: int) -> InputError:
    return InputError(f"{path}: {name} must be lists of one length; got {low} and {high}")


def write(file: BinaryIO, path: Path, columns: Columns) -> None:
    """Write the columns into an open file."""
    import pyarrow as arrow
    from pyarrow import parquet

    def as_arrow(value: NDArray[Any]) -> Any:
        if value.ndim == 1:
            return arrow.array(value.tolist() if value.dtype.kind in "UO" else value)
        return arrow.FixedSizeListArray.from_arrays(arrow.array(np.ascontiguousarray(value).ravel()), value.shape[1])

    def table(start: int) -> Any:
        return arrow.table({name: as_arrow(value[start : start + _ROWS]) for name, value in columns.items()})

    words = [name for name, value in columns.items() if value.dtype.kind in "UO" and name != "ids"]
    options = {"use_dictionary": words, "compression": "none", "write_page_checksum": True}
    with parquet.ParquetWriter(file, table(0).schema, **options) as writer:
        for start in range(0, len(columns["ids"]), _ROWS):
            writer.write_table(table(start))
