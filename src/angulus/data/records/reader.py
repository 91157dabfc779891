"""Records: images as they were encoded, with identity, landmarks and score, readable by row.

Chosen over Lance, a folder of files, a zip and Arrow's IPC files; docs/records.md has the figures and the reasons.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from angulus.core.checks import InputError, shown
from angulus.core.formats import text_array
from angulus.data.records import layout
from angulus.data.records.later_columns import later_columns, read_column, write_column
from angulus.data.records.row import Row
from angulus.data.records.store import open_store
from angulus.data.records.writer import RecordWriter, about_of, part_names, write_records

__all__ = ["RecordWriter", "Records", "Row", "write_records"]

_READERS = 16  # parts whose columns are read at once; over a network the wait is what costs


class Records:
    """N rows, opened by path; images are read by row, columns without touching the images.

    Cheap to open, to fork and to pickle: workers get the places of the images, and open the files themselves.
    """

    def __init__(self, path: Path | str, *, unfinished: bool = False) -> None:
        """Open records in a folder, or under a URL that fsspec knows (s3://, gs://, ...).

        Args:
            path: what a `RecordWriter` was given.
            unfinished: take records whose writer has not finished, as far as they were committed.

        Raises:
            checks.InputError: no records there, unfinished ones, missing or damaged parts.
        """
        self._store = open_store(path)
        self.where = self._store.where
        described = about_of(self._store)
        self.about: dict[str, Any] = described["about"]
        if "rows" not in described and not unfinished:
            raise InputError(
                f"{self.where} must be whole; its writer has not finished: run the same command again to go on, "
                "or pass unfinished=True to read what is there"
            )
        self._parts = part_names(self._store.names(), self.where)
        found = self._each_part(layout.image_places)
        counts = [len(places.lengths) for places in found]
        self._first_rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        none = np.empty(0, np.int64)
        self._starts = np.concatenate([none, *(places.starts for places in found)])
        self._lengths = np.concatenate([none, *(places.lengths for places in found)])
        self._checksums = np.concatenate([none, *(places.checksums for places in found)])
        if described.get("rows", len(self)) != len(self):
            raise InputError(f"{self.where} must hold {shown(described['rows'])} rows, as it says; got {len(self)}")

    def __getstate__(self) -> dict[str, Any]:
        """Without the columns that were read: workers want images."""
        columns = ("ids", "identities", "landmarks", "scores", "sizes", "source_checksums")
        return {name: value for name, value in self.__dict__.items() if name not in columns}

    def __len__(self) -> int:
        return len(self._lengths)

    def __repr__(self) -> str:
        return f"Records({self.where!r}, {len(self):,} rows)"

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """[N] what lists call the images."""
        return self._texts("id")

    @cached_property
    def identities(self) -> NDArray[np.str_]:
        """[N] who or what is shown; "" where not known."""
        return self._texts("identity")

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """[N, 5, 2] pixels of the image; NaN where not known."""
        flat: NDArray[np.float32] = self._stored("landmarks").combine_chunks().flatten().to_numpy()
        return flat.reshape(-1, 5, 2)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """[N] the detector's confidence; NaN where not known."""
        return np.asarray(self._stored("score").to_numpy(), dtype=np.float64)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[N, 2] width and height in pixels, as stored: before an EXIF tag turns the image."""
        return np.stack([self._stored(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.int64)

    @cached_property
    def source_checksums(self) -> NDArray[np.int64] | None:
        """[N] `Row.checksum` of what each row was made from; None in records of version 1, which have none."""
        return None if (self._checksums < 0).any() else self._stored("source_crc32").to_numpy().astype(np.int64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that came later."""
        return later_columns(self._store)

    def column(self, name: str) -> NDArray[Any]:
        """A column that came later, [N] or [N, d].

        Raises:
            checks.InputError: there is none of that name, or it has not one value a row.
        """
        return read_column(self._store, name, len(self))

    def add_column(self, name: str, values: ArrayLike, *, replace: bool = False) -> None:
        """Put a column beside the rows: [N] or [N, d] numbers, or [N] flags or text.

        Args:
            name: letters, digits and underscores.
            values: one a row; may be a memory map.
            replace: take the place of a column of that name.

        Raises:
            checks.InputError: the name is taken or not allowed, or the values do not fit.
        """
        write_column(self._store, name, np.asarray(values), len(self), replace)

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The encoded images of K rows, in the order asked; repeats are fine.

        Raises:
            checks.InputError: a row outside [0, N), or bytes that are not where they should be.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.dtype.kind not in "iu" and wanted.size):
            raise InputError(f"rows must be a list of whole numbers; got shape {list(wanted.shape)} of {wanted.dtype}")
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise InputError(f"rows must be in [0, {len(self)}) of {self.where}; got {outside[0]}")
        wanted = wanted.astype(np.int64)
        parts = np.searchsorted(self._first_rows, wanted, side="right") - 1
        starts, lengths = self._starts[wanted].tolist(), self._lengths[wanted].tolist()
        prefix = layout.PREFIX_BYTES
        found = self._store.ranges(
            [
                (self._parts[part], start - prefix, length + prefix)
                for part, start, length in zip(parts.tolist(), starts, lengths, strict=True)
            ]
        )
        images = [data[prefix:] for data in found]
        checksums = self._checksums[wanted].tolist()
        for place, (image, length, checksum) in enumerate(zip(images, lengths, checksums, strict=True)):
            whole = len(image) == length == int.from_bytes(found[place][:prefix], "little")
            if not whole or (checksum >= 0 and zlib.crc32(image) != checksum):
                raise layout.damaged(
                    f"{self.where}/{self._parts[parts[place]]}",
                    f"it holds other bytes as the image of row {wanted[place]}",
                )
        return images

    def rows(self, rows: ArrayLike) -> list[Row]:
        """K rows with all that was written of them."""
        wanted = np.asarray(rows, dtype=np.int64)
        return [
            Row(
                str(self.ids[row]),
                image,
                str(self.identities[row]),
                None if np.isnan(self.landmarks[row]).any() else self.landmarks[row],
                None if np.isnan(self.scores[row]) else float(self.scores[row]),
            )
            for row, image in zip(wanted.tolist(), self.images(wanted), strict=True)
        ]

    def _texts(self, name: str) -> NDArray[np.str_]:
        stored = self._stored(name)
        with layout.reading(self.where):  # text that is not UTF-8
            return text_array(stored.to_pylist())

    def _stored(self, name: str) -> pa.ChunkedArray:
        found = self._each_part(lambda file, where: layout.read_column(layout.open_part(file), name, where).chunks)
        chunks = [chunk for part in found for chunk in part]
        return pa.chunked_array(chunks, type=layout.SCHEMA.field(name).type)

    def _each_part(self, use: Callable[[BinaryIO, str], Any]) -> list[Any]:
        def one(name: str) -> Any:
            where = f"{self.where}/{name}"
            with self._store.open(name) as file, layout.reading(where):
                return use(file, where)

        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(one, self._parts))
