"""Parquet files with images, as data set hubs store them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.core.formats import parquet
from angulus.data.sources import tables
from angulus.data.sources.items import Item, SourceOptions

_BATCH_ROWS = 64


def read(paths: Sequence[Path], options: SourceOptions) -> Iterator[Item]:
    """The images of Parquet files, in their order; see `tables.read`."""
    return tables.read(paths, options, ParquetTable)


class ParquetTable:
    """A Parquet file. Its pages are packed, so no image can be read in place."""

    kind = "Parquet file"

    def __init__(self, path: Path) -> None:
        """Open the file and read its schema."""
        self.path, self._file = path, parquet.open_file(path)
        self.schema: pa.Schema = self._file.schema_arrow

    def cells(self, columns: list[str], image: str | None = None) -> Iterator[tuple[dict[str, Any], None]]:
        """Rows of some columns, in batches that fit in memory whatever they unpack to.

        A value stored once may be in every row, so a batch may hold its column's bytes as many times.
        """
        metadata, packed = self._file.metadata, self.path.stat().st_size
        if metadata.num_rows > max(packed, _BATCH_ROWS):
            got = f"{metadata.num_rows:,} in {packed:,}"
            raise InputError(f"{self.path} must have no more rows than bytes; it says {got}")
        for group in range(metadata.num_row_groups):
            size = metadata.row_group(group).total_byte_size  # unpacked; asking a column fails hard if it is damaged
            limits.check_unpacked(size, packed, f"{self.path}, row group {group},")
            rows = max(1, min(_BATCH_ROWS, limits.most_unpacked(packed) // max(size, 1)))
            for batch in self._file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                for number in range(batch.num_rows):
                    yield batch.slice(number, 1).to_pylist()[0], None

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
