"""Columns that come after the rows were written (a norm, an embedding): a Parquet file each, beside the parts."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.checks import nearest as nearest_of
from angulus.data.records import layout
from angulus.data.records.store import Store

_PREFIX, _SUFFIX = "column-", ".parquet"
_BLOCK_ROWS = 65_536


def later_columns(store: Store) -> tuple[str, ...]:
    """The names of the columns that stand beside the parts."""
    found = [name for name in store.names() if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return tuple(name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in found)


def read_column(store: Store, name: str, count: int) -> NDArray[Any]:
    """A column as [N] or [N, d]; `count` is N.

    Raises:
        checks.InputError: no such column, a damaged file, another number of values.
    """
    known = later_columns(store)
    if name not in known:
        raise InputError(
            f"column must be one of {', '.join(known) or 'none'} of {store.where}; got {name!r}"
            + nearest_of(name, known)
        )
    with store.open(_file(name)) as file, layout.reading(f"{store.where}/{_file(name)}"):
        column = layout.open_part(file).read().column(0).combine_chunks()
        if len(column) != count:
            raise InputError(
                f"column {name!r} of {store.where} must have {count} values, one per row; got {len(column)}"
            )
        if pa.types.is_fixed_size_list(column.type):
            matrix: NDArray[Any] = column.flatten().to_numpy()
            return matrix.reshape(count, column.type.list_size)
        if pa.types.is_string(column.type):
            return np.array(column.to_pylist(), dtype=np.str_)
        if not pa.types.is_primitive(column.type):
            raise layout.damaged(f"{store.where}/{_file(name)}", f"it holds values of type {column.type}")
        return np.asarray(column.to_numpy(zero_copy_only=False))


def write_column(store: Store, name: str, values: NDArray[Any], count: int, replace: bool) -> None:
    """Write a column, whole or not at all.

    Raises:
        checks.InputError: the name is taken or not allowed, or the values are not [N] or [N, d] of a type that is kept.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
        raise InputError(f"a column's name must be letters, digits and underscores; got {name!r}")
    if name in layout.SCHEMA.names:
        raise InputError(
            f"a column's name must not be that of a stored one ({', '.join(layout.SCHEMA.names)}); got {name!r}"
        )
    if name in later_columns(store) and not replace:
        raise InputError(f"column {name!r} is in {store.where} already; pass replace=True to write it again")
    if values.ndim not in (1, 2) or len(values) != count or 0 in values.shape:
        raise InputError(f"column {name!r} must have shape [{count}] or [{count}, d]; got {list(values.shape)}")
    kinds = "biufU" if values.ndim == 1 else "biuf"
    if values.dtype.kind not in kinds:
        raise InputError(f"column {name!r} must be numbers, flags or, as [{count}], text; got {values.dtype}")
    schema = pa.schema([pa.field(name, _as_arrow(values[:1]).type, nullable=False)])

    def fill(file: BinaryIO) -> None:
        options = {"compression": "none", "use_dictionary": values.dtype.kind == "U", "write_page_checksum": True}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for start in range(0, count, _BLOCK_ROWS):
                writer.write_table(pa.table([_as_arrow(values[start : start + _BLOCK_ROWS])], schema=schema))

    store.write(_file(name), fill)


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
    return pa.array(values.tolist() if values.dtype.kind == "U" else values)


def _file(name: str) -> str:
    return f"{_PREFIX}{name}{_SUFFIX}"
