"""How records lie on disk: Parquet files whose image column is one plain page, so that a row is a range of bytes.

    NAME/about.json              format, version, what the data is; `rows` and `parts` once the records are whole
    NAME/rows-00000.parquet      id, identity, image, image_bytes, width, height, landmarks, score; then rows-00001 ...
    NAME/column-norm.parquet     a column that came later, one value a row, in the rows' order

Any Parquet reader reads them. Parquet's PLAIN encoding of byte strings is, for each, its length as four bytes, little
endian, then the bytes. With one uncompressed page and no nulls, the strings end where the column chunk ends, so the
footer and the lengths say where each image stands.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from angulus.checks import InputError
from angulus.data import decode
from angulus.data.rows import Row

FORMAT = "angulus-records"
VERSION = 1
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
)


def part_name(number: int) -> str:
    """The name of part `number`.

    >>> part_name(3)
    'rows-00003.parquet'
    """
    return f"rows-{number:05d}.parquet"


def part(rows: Sequence[Row], headers: Sequence[decode.Header]) -> memoryview:
    """A part as the bytes of a Parquet file, checked to hold each image where `first_image` and the lengths say.

    Landmarks and scores that are not known are NaN.
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
    )
    data = memoryview(sink.getvalue()).cast("B")
    starts, _ = image_places(pq.ParquetFile(io.BytesIO(data)), "the new part")
    for row, start in zip(rows, starts.tolist(), strict=True):
        if data[start : start + len(row.image)] != row.image:
            raise RuntimeError(f"pyarrow {pa.__version__} wrote images in another layout than one plain page")
    return data


def image_places(file: pq.ParquetFile, where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the images of a part stand in its file: first byte and length of each, from the footer and one column.

    Raises:
        checks.InputError: the file is no part of records.
    """
    metadata = file.metadata
    if file.schema_arrow.names != SCHEMA.names or metadata.num_row_groups != 1:
        raise InputError(
            f"{where} must be a part of records, with the columns {', '.join(SCHEMA.names)} in one row group; "
            f"got {', '.join(file.schema_arrow.names)} in {metadata.num_row_groups}"
        )
    lengths = file.read(["image_bytes"]).column(0).to_numpy().astype(np.int64)
    chunk = metadata.row_group(0).column(SCHEMA.names.index("image"))
    end = chunk.data_page_offset + chunk.total_compressed_size
    ends = end - (lengths + PREFIX_BYTES).sum() + np.cumsum(lengths + PREFIX_BYTES)
    return ends - lengths, lengths
