"""Arrow files with images, as the package `datasets` stores them; the bytes of an image can be read again in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.records import Place
from angulus.data.sources import tables
from angulus.data.sources.items import Item, SourceOptions


def read(paths: Sequence[Path], options: SourceOptions) -> Iterator[Item]:
    """The images of Arrow files, streams or random-access ones, in their order; see `tables.read`."""
    return tables.read(paths, options, ArrowTable)


class ArrowTable:
    """An Arrow file, mapped into memory."""

    kind = "Arrow file"

    def __init__(self, path: Path) -> None:
        """Map the file and read its schema."""
        self.path = path
        self._map = pa.memory_map(str(path))
        self._start = self._map.read_buffer(self._map.size()).address
        self.schema: pa.Schema = self._open().schema

    def _open(self) -> Any:
        self._map.seek(0)
        try:
            return pa.ipc.open_stream(self._map)
        except pa.ArrowInvalid:
            self._map.seek(0)
            return pa.ipc.open_file(self._map)

    def cells(self, columns: list[str], image: str | None = None) -> Iterator[tuple[dict[str, Any], Place | None]]:
        """Rows of some columns, and where the bytes of the image column lie."""
        reader = self._open()
        stream = hasattr(reader, "read_next_batch")
        batches = reader if stream else (reader.get_batch(number) for number in range(reader.num_record_batches))
        for batch in batches:
            chosen = batch.select(list(dict.fromkeys(name.partition(".")[0] for name in columns)))
            chosen.validate(full=True)  # a stranger's offsets may lead out of the file
            limits.check_unpacked(chosen.nbytes, self._map.size(), f"{self.path}, a batch of rows,")
            place = None if image is None else self._places(chosen.column(image))
            for number in range(chosen.num_rows):
                yield chosen.slice(number, 1).to_pylist()[0], place(number) if place else None

    def _places(self, column: Any) -> Any:
        """Row -> the place of its bytes; None for those that are compressed, which are not in the map."""
        values = column.field("bytes") if pa.types.is_struct(column.type) else column
        if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
            return None
        _, ends, data = values.buffers()
        first = 0 if data is None else data.address - self._start
        if ends is None or data is None or not 0 <= first <= first + data.size <= self._map.size():
            return None
        size = 8 if pa.types.is_large_binary(values.type) else 4
        offsets = np.frombuffer(ends, f"i{size}", len(values) + 1, values.offset * size).tolist()
        return lambda row: Place(self.path, first + offsets[row], offsets[row + 1] - offsets[row])

    def __enter__(self) -> ArrowTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._map.close()


def refuse_selection(state: dict[str, Any], folder: Path) -> None:
    """Refuse a saved data set whose rows are chosen by a list of their own, which this reader would not follow."""
    if state.get("_indices_data_files"):
        raise InputError(f"{folder} chooses its rows by an index; call flatten_indices() on it and save it again")
