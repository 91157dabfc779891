"""Records: encoded images with identity, landmarks and score, readable by row.

docs/records.md compares them with Lance, a folder of files, a zip and Arrow's IPC files.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from angulus.core.checks import InputError, shown
from angulus.core.formats import text_array
from angulus.data.records import parts
from angulus.data.records.blobs import Range, open_blobs
from angulus.data.records.parts import Row

_THREADS = 16  # parts whose columns are read at once: over a network, waiting takes the time
_BLOCK = 2**18  # bytes of images that a store is asked for at once: 70 faces then share the 0.2 ms of a request


class Records:
    """N rows, opened by path: `records[i]` is a `Row`; columns are read without touching the images.

    Cheap to open, fork and pickle: workers receive the places of the images and open the files themselves.
    """

    def __init__(self, path: Path | str, *, unfinished: bool = False) -> None:
        """Open records in a folder, or under a URL that fsspec knows (s3://, gs://, ...).

        `unfinished` accepts records whose writer has not finished, with the rows committed so far.

        Raises:
            checks.InputError: no records there, unfinished ones, missing or damaged parts.
        """
        self._blobs = open_blobs(path)
        self.where = self._blobs.where
        description = parts.read_about(self._blobs)
        self.about: dict[str, Any] = description["about"]
        if "rows" not in description and not unfinished:
            rule = f"{self.where} must be whole; its writer has not finished: run the same command again to resume"
            raise InputError(f"{rule}, or pass unfinished=True to read what is there")
        self._parts = parts.part_names(self._blobs.names(), self.where)
        places = self._map_parts(parts.image_places)
        self._first_rows = np.cumsum([0, *(len(place.lengths) for place in places)], dtype=np.int64)
        self._starts, self._lengths, self._checksums = (
            np.concatenate([np.empty(0, np.int64), *(getattr(place, name) for place in places)])
            for name in ("starts", "lengths", "checksums")
        )
        edges = [np.flatnonzero(np.diff(place.starts // _BLOCK)) + 1 for place in places]
        firsts = [first + own for first, own in zip(self._first_rows[:-1], edges, strict=True)]
        self._blocks = np.unique(np.concatenate([self._first_rows, *firsts]))  # the first row of each, and N
        if description.get("rows", len(self)) != len(self):
            raise InputError(f"{self.where} must hold {shown(description['rows'])} rows, as it says; got {len(self)}")

    def __getstate__(self) -> dict[str, Any]:
        """Without the cached columns: workers want images."""
        columns = ("ids", "identities", "landmarks", "scores", "sizes", "source_checksums")
        return {name: value for name, value in self.__dict__.items() if name not in columns}

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, row: int) -> Row:
        """One row; `rows` reads several faster."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row must be in [{-len(self)}, {len(self)}) of {self.where}; got {row}")
        return self.rows([row % len(self)])[0]

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Records({self.where!r}, {len(self):,} rows)"

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """[N] the images' names in lists."""
        return self._texts("id")

    @cached_property
    def identities(self) -> NDArray[np.str_]:
        """[N] who or what is shown; "" if unknown."""
        return self._texts("identity")

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """[N, 5, 2] pixels of the image; NaN if unknown."""
        flat: NDArray[np.float32] = self._stored("landmarks").combine_chunks().flatten().to_numpy()
        return flat.reshape(-1, 5, 2)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """[N] the detector's confidence; NaN if unknown."""
        return np.asarray(self._stored("score").to_numpy(), dtype=np.float64)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[N, 2] width and height in pixels, as stored: before an EXIF tag turns the image."""
        return np.stack([self._stored(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.int64)

    @cached_property
    def source_checksums(self) -> NDArray[np.int64] | None:
        """[N] `Row.checksum` of the rows these were made from; None in version 1, which stores none."""
        return None if (self._checksums < 0).any() else self._stored("source_crc32").to_numpy().astype(np.int64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the added columns."""
        return parts.later_columns(self._blobs)

    def column(self, name: str) -> NDArray[Any]:
        """An added column, [N] or [N, d]; `InputError` if there is none of that name or its length is wrong."""
        return parts.read_column(self._blobs, name, len(self))

    def add_column(self, name: str, values: ArrayLike, *, replace: bool = False) -> None:
        """Add a column: [N] or [N, d] numbers, or [N] flags or text; may be a memory map.

        InputError if the name is not letters, digits and underscores, or taken (without `replace`), or the values do
        not fit.
        """
        parts.write_column(self._blobs, name, np.asarray(values), len(self), replace)

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The encoded images of K rows in [0, N), in the order asked; repeats are fine. InputError on damage."""
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.dtype.kind not in "iu" and wanted.size):
            raise InputError(f"rows must be a list of whole numbers; got shape {list(wanted.shape)} of {wanted.dtype}")
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise InputError(f"rows must be in [0, {len(self)}) of {self.where}; got {outside[0]}")
        wanted = wanted.astype(np.int64)
        numbers = np.searchsorted(self._first_rows, wanted, side="right") - 1
        names = [self._parts[number] for number in numbers.tolist()]
        starts, lengths = self._starts[wanted].tolist(), self._lengths[wanted].tolist()
        prefix = parts.PREFIX_BYTES
        places = zip(names, starts, lengths, strict=True)
        ranges = [(name, start - prefix, length + prefix) for name, start, length in places]
        checksums = self._checksums[wanted].tolist()

        def whole(place: int, data: bytes) -> bool:
            complete = len(data) - prefix == lengths[place] == int.from_bytes(data[:prefix], "little")
            return bool(complete and (checksums[place] < 0 or zlib.crc32(data[prefix:]) == checksums[place]))

        def around(places: list[int]) -> list[Range]:
            return self._blocks_of(wanted[places])

        found = self._blobs.ranges(ranges, whole, around if min(checksums, default=0) >= 0 else None)
        wrong = next((place for place, data in enumerate(found) if not whole(place, data)), None)
        if wrong is not None:
            fault = f"it holds other bytes as the image of row {wanted[wrong]}"
            raise parts.damaged(f"{self.where}/{names[wrong]}", fault)
        return [data[prefix:] for data in found]

    def _blocks_of(self, rows: NDArray[np.int64]) -> list[Range]:
        """The blocks that hold some rows, each once; a block is the images that begin in the same _BLOCK bytes."""
        numbers = np.unique(np.searchsorted(self._blocks, rows, side="right") - 1)
        firsts, lasts = self._blocks[numbers], self._blocks[numbers + 1] - 1
        parts_of = np.searchsorted(self._first_rows, firsts, side="right") - 1
        starts, ends = self._starts[firsts] - parts.PREFIX_BYTES, self._starts[lasts] + self._lengths[lasts]
        places = zip(parts_of.tolist(), starts.tolist(), (ends - starts).tolist(), strict=True)
        return [(self._parts[part], start, length) for part, start, length in places]

    def rows(self, rows: ArrayLike) -> list[Row]:
        """K rows with image, identity, landmarks and score."""
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
        with parts.reading(self.where):  # text that is not UTF-8
            return text_array(stored.to_pylist())

    def _stored(self, name: str) -> pa.ChunkedArray:
        columns = self._map_parts(lambda file, where: parts.stored_column(parts.open_part(file), name, where))
        chunks = [chunk for column in columns for chunk in column.chunks]
        return pa.chunked_array(chunks, type=parts.SCHEMA.field(name).type)

    def _map_parts(self, use: Callable[[BinaryIO, str], Any]) -> list[Any]:
        def use_part(name: str) -> Any:
            where = f"{self.where}/{name}"
            with self._blobs.open(name) as file, parts.reading(where):
                return use(file, where)

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(use_part, self._parts))
