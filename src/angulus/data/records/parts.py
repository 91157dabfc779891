"""How records are stored: Parquet files whose image column is one plain page, so that each image is a byte range.

    NAME/about.json              format, version, what the data is; `rows` and `parts` once the records are complete
    NAME/rows-00000.parquet      id, identity, image, image_bytes, width, height, score, landmarks, image_crc32,
                                 source_crc32; then rows-00001 ...
    NAME/column-norm.parquet     a column added later, one value per row, in the rows' order

Any Parquet reader reads them. Parquet's PLAIN encoding stores each byte string as its length (four bytes, little
endian) and the bytes. With one uncompressed page and no nulls, the strings end where the column chunk ends, so the
footer and the lengths tell where each image is.

Damage is found on reading: each page has Parquet's checksum, and each image its own, `image_crc32`, for reads that
bypass Parquet. `source_crc32` is the checksum of the row it was made from. Version 1 has no checksums.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError, nearest, one_line, shown
from angulus.core.formats import parquet, parquet_footer
from angulus.core.urls import ABOUT as ABOUT
from angulus.data import decode
from angulus.data.records.blobs import Blobs

FORMAT = "angulus-records"
VERSION = 2
READABLE = (1, VERSION)
PREFIX_BYTES = 4  # the length before each byte string
MOST_ROWS = 16_384  # per part; Parquet writers start a new page at 20,000 rows
MOST_IMAGE_BYTES = 2**28

_NUMBERS = (("image_bytes", pa.int32()), ("width", pa.int32()), ("height", pa.int32()), ("score", pa.float64()))
SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("id", "identity")]
    + [pa.field("image", pa.binary(), nullable=False)]
    + [pa.field(name, kind, nullable=False) for name, kind in _NUMBERS]
    + [pa.field("landmarks", pa.list_(pa.field("item", pa.float32(), nullable=False), 10), nullable=False)]
    + [pa.field(name, pa.uint32(), nullable=False) for name in ("image_crc32", "source_crc32")]
)
_SCHEMAS = (SCHEMA, pa.schema(list(SCHEMA)[:-2]))  # of both versions
_COLUMN_ROWS = 65_536  # of a later column, written at a time


class Place(NamedTuple):
    """Where the bytes of an image lie as they are, so that they can be read again: a file, first byte, length."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True, eq=False)
class Row:
    """One encoded image with its labels.

    Attributes:
        id: the image's name in lists, not empty; unique within records.
        image: the JPEG, PNG, WebP or BMP file, unchanged.
        identity: who or what it shows; "" if unknown.
        landmarks: [5, 2] float32, x and y in pixels of this image: eyes, nose, mouth corners, the image's left first.
        score: the detector's confidence.
        place: of the image in the source; None if it is packed there, or its reader does not know.

    Raises:
        checks.InputError: an empty id or image, landmarks of another shape, NaN or Inf.
    """

    id: str
    image: bytes
    identity: str
    landmarks: NDArray[np.float32] | None = None
    score: float | None = None
    place: Place | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InputError(f"a row's id must be text that is not empty; got {self.id!r}")
        if not isinstance(self.identity, str):
            raise InputError(f"row {self.id!r}: identity must be text, or '' if unknown; got {self.identity!r}")
        if not isinstance(self.image, bytes) or not self.image:
            got = f"{len(self.image)} bytes" if isinstance(self.image, bytes) else type(self.image).__name__
            raise InputError(f"row {self.id!r}: image must be the bytes of an image file; got {got}")
        if self.landmarks is not None:
            points = np.asarray(self.landmarks)
            if points.shape != (5, 2) or points.dtype.kind not in "fiu" or not np.isfinite(points).all():
                raise InputError(f"row {self.id!r}: landmarks must be [5, 2] finite numbers; got {self.landmarks!r}")
        if self.score is not None and not math.isfinite(self.score):
            raise InputError(f"row {self.id!r}: score must be finite, or None if unknown; got {self.score!r}")

    def checksum(self) -> int:
        """CRC-32 of everything but the id; it differs if the source has changed."""
        points = b"" if self.landmarks is None else np.asarray(self.landmarks, "<f4").tobytes()
        score = None if self.score is None else float(self.score)
        labels = f"{len(self.identity)} {self.identity} {score!r} {len(points)} ".encode(errors="surrogatepass")
        return zlib.crc32(self.image, zlib.crc32(labels + points))


@dataclass(frozen=True, eq=False)
class Places:
    """Where the N images of a part are in its file: first byte, length and CRC-32 of each (−1 if not stored)."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    checksums: NDArray[np.int64]


def part_name(number: int) -> str:
    """The name of part `number`.

    >>> part_name(3)
    'rows-00003.parquet'
    """
    return f"rows-{number:05d}.parquet"


def encode_part(rows: Sequence[Row], headers: Sequence[decode.Header], sources: Sequence[int]) -> memoryview:
    """Encode rows as a Parquet file, and check that each image is where `image_places` expects it.

    Unknown landmarks and scores are stored as NaN; `sources` are the checksums of the rows they were made from.
    """
    unknown = np.full(10, np.nan, dtype=np.float32)
    points = [unknown if row.landmarks is None else np.asarray(row.landmarks, np.float32).ravel() for row in rows]
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "identity": [row.identity for row in rows],
        "image": [row.image for row in rows],
        "image_bytes": [len(row.image) for row in rows],
        "width": [header.width for header in headers],
        "height": [header.height for header in headers],
        "score": [np.nan if row.score is None else float(row.score) for row in rows],
        "landmarks": pa.FixedSizeListArray.from_arrays(np.concatenate(points), type=SCHEMA.field("landmarks").type),
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
            raise RuntimeError(f"pyarrow {pa.__version__} did not write the images as one plain page")
    return data


def open_part(file: Any) -> pq.ParquetFile:
    """Open a Parquet file with its page checksums verified."""
    return parquet.open_file(file, page_checksum_verification=True)


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn the many errors of Parquet's reader on damaged bytes into one that names the file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise damaged(where, f"reading it gave: {one_line(error):.300}") from error


def image_places(file: BinaryIO, where: str) -> Places:
    """Find the images of a part in its file, from the footer and two columns."""
    chunks = list(parquet_footer.chunks(file))
    opened = open_part(file)
    metadata, schema = opened.metadata, opened.schema_arrow
    version = next((known for known in _SCHEMAS if (known.names, known.types) == (schema.names, schema.types)), None)
    if version is None or metadata.num_row_groups != 1:
        rule = f"{where} must be a part of records, with the columns {', '.join(SCHEMA.names)} in one row group"
        raise InputError(f"{rule}; got {', '.join(schema.names)} in {metadata.num_row_groups}")
    lengths = stored_column(opened, "image_bytes", where).to_numpy().astype(np.int64)
    checksums = np.full(len(lengths), -1)
    if version is SCHEMA:
        checksums = stored_column(opened, "image_crc32", where).to_numpy().astype(np.int64)
    end = max((chunk.start + chunk.packed for chunk in chunks if chunk.name == "image"), default=0)
    ends = end - (lengths + PREFIX_BYTES).sum() + np.cumsum(lengths + PREFIX_BYTES)
    starts = ends - lengths
    if (lengths < 1).any() or (starts < PREFIX_BYTES).any():
        raise damaged(where, "images lie outside the file")
    return Places(starts, lengths, checksums)


def stored_column(file: pq.ParquetFile, name: str, where: str) -> pa.ChunkedArray:
    """Read a column of a part; `InputError` unless it has one value per row."""
    column = file.read([name], use_threads=False).column(0)
    if len(column) != file.metadata.num_rows:
        raise damaged(where, f"its column {name} has {len(column)} values for {file.metadata.num_rows} rows")
    return column


def damaged(where: str, reason: str) -> InputError:
    """The error for a file that is not as it was written."""
    rule = f"{where} must be as it was written; it is damaged: {reason}"
    return InputError(f"{rule}; copy it again from its origin, or rebuild it")


def read_about(blobs: Blobs) -> dict[str, Any]:
    """Read the description of records, complete or not."""
    where = f"{blobs.where}/{ABOUT}"
    if ABOUT not in blobs.names():
        rule = f"{blobs.where} must hold records; there is no {ABOUT} in it"
        raise InputError(f"{rule}; make them with `angulus convert` or `angulus prepare faces`")
    with blobs.open(ABOUT) as file:
        description = limits.parse_json(file.read(), where)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(f"{where} must say that its format is {FORMAT}; it does not")
    if description.get("version") not in READABLE:
        rule = f"{blobs.where} must be records of version {VERSION} or before; got {shown(description.get('version'))}"
        raise InputError(f"{rule}; read it with the version of angulus that wrote it, or a later one")
    description = {"about": {}} | description
    if not isinstance(description["about"], dict):
        raise InputError(f"{where} must hold a mapping as about; got {shown(description['about'])}")
    return description


def part_names(names: Iterable[str], where: str) -> list[str]:
    """The parts among the names of a folder, in order; `InputError` if one is missing."""
    present = sorted(name for name in names if name.startswith("rows-"))
    expected = [part_name(number) for number in range(len(present))]
    if present != expected:
        missing = sorted(set(expected) - set(present))
        raise InputError(f"{where} must hold its parts without a gap; {missing[0]} is missing")
    return present


def later_columns(blobs: Blobs) -> tuple[str, ...]:
    """The names of the columns added to finished records."""
    matches = (re.fullmatch(r"column-(.*)\.parquet", name) for name in blobs.names())
    return tuple(match[1] for match in matches if match)


def read_column(blobs: Blobs, name: str, count: int) -> NDArray[Any]:
    """Read an added column as [N] or [N, d], where N is `count`."""
    known = later_columns(blobs)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise InputError(f"column must be one of {listed} of {blobs.where}; got {name!r}{nearest(name, known)}")
    where = f"{blobs.where}/{_column_file(name)}"
    with blobs.open(_column_file(name)) as file, reading(where):
        column = open_part(file).read(use_threads=False).column(0).combine_chunks()
        if len(column) != count:
            rule = f"column {name!r} of {blobs.where} must have {count} values, one per row"
            raise InputError(f"{rule}; got {len(column)}")
        if pa.types.is_fixed_size_list(column.type):
            matrix: NDArray[Any] = column.flatten().to_numpy()
            return matrix.reshape(count, column.type.list_size)
        if pa.types.is_string(column.type):
            return np.array(column.to_pylist(), dtype=np.str_)
        if not pa.types.is_primitive(column.type):
            raise damaged(where, f"it holds values of type {column.type}")
        return np.asarray(column.to_numpy(zero_copy_only=False))


def write_column(blobs: Blobs, name: str, values: NDArray[Any], count: int, replace: bool) -> None:
    """Add a column, completely or not at all."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
        raise InputError(f"a column's name must be letters, digits and underscores; got {name!r}")
    if name in SCHEMA.names:
        raise InputError(f"a column's name must not be that of a stored one ({', '.join(SCHEMA.names)}); got {name!r}")
    if name in later_columns(blobs) and not replace:
        raise InputError(f"column {name!r} is in {blobs.where} already; pass replace=True to write it again")
    if values.ndim not in (1, 2) or len(values) != count or 0 in values.shape:
        raise InputError(f"column {name!r} must have shape [{count}] or [{count}, d]; got {list(values.shape)}")
    if values.dtype.kind not in ("biufU" if values.ndim == 1 else "biuf"):
        raise InputError(f"column {name!r} must be numbers, flags or, as [{count}], text; got {values.dtype}")
    schema = pa.schema([pa.field(name, _as_arrow(values[:1]).type, nullable=False)])

    def fill(file: BinaryIO) -> None:
        options = {"compression": "none", "use_dictionary": values.dtype.kind == "U", "write_page_checksum": True}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for start in range(0, count, _COLUMN_ROWS):
                writer.write_table(pa.table([_as_arrow(values[start : start + _COLUMN_ROWS])], schema=schema))

    blobs.write(_column_file(name), fill)


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
    return pa.array(values.tolist() if values.dtype.kind == "U" else values)


def _column_file(name: str) -> str:
    return f"column-{name}.parquet"
