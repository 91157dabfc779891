"""How records lie on disk: Parquet files whose image column is one plain page, so that a row is a range of bytes.

    NAME/about.json              format, version, what the data is; `rows` and `parts` once the records are whole
    NAME/rows-00000.parquet      id, identity, image, image_bytes, width, height, score, landmarks, image_crc32,
                                 source_crc32; then rows-00001 ...
    NAME/column-norm.parquet     a column that came later, one value a row, in the rows' order

Any Parquet reader reads them. Parquet's PLAIN encoding of byte strings is, for each, its length as four bytes, little
endian, then the bytes. With one uncompressed page and no nulls, the strings end where the column chunk ends, so the
footer and the lengths say where each image stands.

Damage is found when it is read: each page has Parquet's checksum, and each image one of its own, `image_crc32`, for
reads that go past Parquet. `source_crc32` is that of what the row was made from. Version 1 has none of these.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from angulus.core.checks import InputError, one_line
from angulus.core.formats import parquet_footer
from angulus.data import decode
from angulus.data.records.row import Row

FORMAT = "angulus-records"
VERSION = 2
READABLE = (1, VERSION)
ABOUT = "about.json"
PREFIX_BYTES = 4  # the length before each byte string
MOST_ROWS = 16_384  # a part; Parquet writers start a new page at 20,000 rows
MOST_IMAGE_BYTES = 2**28

_TEXTS = ("id", "identity")
_NUMBERS = (("image_bytes", pa.int32()), ("width", pa.int32()), ("height", pa.int32()), ("score", pa.float64()))
SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in _TEXTS]
    + [pa.field("image", pa.binary(), nullable=False)]
    + [pa.field(name, kind, nullable=False) for name, kind in _NUMBERS]
    + [pa.field("landmarks", pa.list_(pa.field("item", pa.float32(), nullable=False), 10), nullable=False)]
    + [pa.field(name, pa.uint32(), nullable=False) for name in ("image_crc32", "source_crc32")]
)
_SCHEMAS = (SCHEMA, pa.schema(list(SCHEMA)[:-2]))  # of both versions


@dataclass(frozen=True, eq=False)
class Places:
    """Where the N images of a part stand in its file: first byte and length of each, and its CRC-32, −1: not stored."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    checksums: NDArray[np.int64]


def part_name(number: int) -> str:
    """The name of part `number`.

    >>> part_name(3)
    'rows-00003.parquet'
    """
    return f"rows-{number:05d}.parquet"


def part(rows: Sequence[Row], headers: Sequence[decode.Header], sources: Sequence[int]) -> memoryview:
    """A part as the bytes of a Parquet file, checked to hold each image where `image_places` says.

    Landmarks and scores that are not known are NaN.

    Args:
        rows: N of them.
        headers: of their images.
        sources: the checksum of what each was made from.
    """
    unknown = np.full(10, np.nan, dtype=np.float32)
    points = [unknown if row.landmarks is None else np.asarray(row.landmarks, np.float32).ravel() for row in rows]
    lengths = np.array([len(row.image) for row in rows])
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "identity": [row.identity for row in rows],
        "image": [row.image for row in rows],
        "image_bytes": lengths,
        "width": [header.width for header in headers],
        "height": [header.height for header in headers],
        "score": [np.nan if row.score is None else float(row.score) for row in rows],
        "landmarks": pa.FixedSizeListArray.from_arrays(
            pa.array(np.concatenate(points)), type=SCHEMA.field("landmarks").type
        ),
        "image_crc32": [zlib.crc32(row.image) for row in rows],
        "source_crc32": list(sources),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA),
        sink,
        row_group_size=len(rows),
        data_page_size=2**30,  # one page
        data_page_version="1.0",
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    data = memoryview(sink.getvalue()).cast("B")
    places = image_places(io.BytesIO(data), "the new part")
    for row, start in zip(rows, places.starts.tolist(), strict=True):
        if data[start : start + len(row.image)] != row.image:
            raise RuntimeError(f"pyarrow {pa.__version__} wrote images in another layout than one plain page")
    return data


def open_part(file: Any) -> pq.ParquetFile:
    """A Parquet file whose pages are checked as they are read."""
    return pq.ParquetFile(file, page_checksum_verification=True)


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """What Parquet's reader raises over damaged bytes, of half a dozen types, as a sentence that names the file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise damaged(where, f"reading it gave: {one_line(error):.300}") from error


def image_places(file: BinaryIO, where: str) -> Places:
    """Where the images of a part stand in its file, from the footer and two columns.

    Raises:
        checks.InputError: the file is no part of records.
        ValueError: and what else Parquet's reader raises over damaged bytes.
    """
    chunks = list(parquet_footer.chunks(file))
    opened = open_part(file)
    metadata, schema = opened.metadata, opened.schema_arrow
    known = next((each for each in _SCHEMAS if (each.names, each.types) == (schema.names, schema.types)), None)
    if known is None or metadata.num_row_groups != 1:
        raise InputError(
            f"{where} must be a part of records, with the columns {', '.join(SCHEMA.names)} in one row group; "
            f"got {', '.join(schema.names)} in {metadata.num_row_groups}"
        )
    lengths = read_column(opened, "image_bytes", where).to_numpy().astype(np.int64)
    checksums = np.full(len(lengths), -1)
    if known is SCHEMA:
        checksums = read_column(opened, "image_crc32", where).to_numpy().astype(np.int64)
    end = max((chunk.start + chunk.packed for chunk in chunks if chunk.name == "image"), default=0)
    ends = end - (lengths + PREFIX_BYTES).sum() + np.cumsum(lengths + PREFIX_BYTES)
    starts = ends - lengths
    if (lengths < 1).any() or (starts < PREFIX_BYTES).any():
        raise damaged(where, "images stand outside of the file")
    return Places(starts, lengths, checksums)


def read_column(file: pq.ParquetFile, name: str, where: str) -> pa.ChunkedArray:
    """A column of a part, one value per row.

    Raises:
        checks.InputError: it has another number of values.
    """
    column = file.read([name]).column(0)
    if len(column) != file.metadata.num_rows:
        raise damaged(where, f"its column {name} has {len(column)} values for {file.metadata.num_rows} rows")
    return column


def damaged(where: str, found: str) -> InputError:
    """The error for a file that is not as it was written."""
    return InputError(
        f"{where} must be as it was written; it is damaged: {found}; copy it again from where it came, or make it again"
    )
