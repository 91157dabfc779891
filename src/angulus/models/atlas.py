"""Embeddings with their images in one file, for Apple's Embedding Atlas."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from angulus.core import files
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data import decode
from angulus.models import inputs

SHOWN = ("JPEG", "PNG", "WebP", "GIF", "AVIF", "BMP")  # kinds that browsers show; others become PNG

_ROWS = 4096  # a row group


def write(embeddings: Path, source: Path, out: Path) -> int:
    """Write the embeddings of a source's images with the images, as .parquet; returns the number of rows.

    The columns are those of the embeddings file but for the model's name, and `image`, {bytes, path} as Hugging Face's
    datasets store it. Images are read one row group at a time.

    Args:
        embeddings: the file that `embed.run` wrote.
        source: the images that it was made of.
        out: the .parquet file to write.

    Raises:
        checks.InputError: an image of the embeddings is not in the source.
    """
    import pyarrow as arrow  # here, because it loads slowly
    from pyarrow import parquet

    found = Embeddings.read(embeddings)
    numbers = {name: number for number, name in enumerate(found.ids.tolist())}
    columns = {"ids": found.ids, "labels": found.labels, "norms": found.feature_norms}
    columns["detector_scores"] = found.detector_scores
    size = found.vectors.shape[1]

    def table(part: list[tuple[int, bytes]]) -> Any:
        rows = [number for number, _ in part]
        values = {name: arrow.array(value[rows].tolist()) for name, value in columns.items() if value is not None}
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        names = found.ids[rows].tolist()
        images = [{"bytes": image, "path": name} for name, (_, image) in zip(names, part, strict=True)]
        values["image"] = arrow.array(images, kind)
        vectors = arrow.array(np.ascontiguousarray(found.vectors[rows], np.float32).ravel())
        values["embeddings"] = arrow.FixedSizeListArray.from_arrays(vectors, size)  # last: tables show it in full
        return arrow.table(values)

    def fill(file: Any) -> None:
        images, count = _images(source, numbers), 0
        first = list(islice(images, _ROWS))
        with parquet.ParquetWriter(file, table(first).schema) as writer:
            part = first
            while part:
                writer.write_table(table(part))
                count += len(part)
                part = list(islice(images, _ROWS))
        if count != len(numbers):
            rule = f"{source} must hold the {len(numbers):,} images of {embeddings}"
            raise InputError(f"{rule}; it holds {count:,} of them; embed it again")

    files.write_atomically(out, fill)
    return len(numbers)


def _images(source: Path, numbers: dict[str, int]) -> Iterator[tuple[int, bytes]]:
    """The row number of each image among the embeddings, and the file of the image as browsers show it."""
    for row in inputs.rows(source, []):
        if row.id in numbers:
            yield numbers[row.id], _for_browsers(row.image)


def _for_browsers(image: bytes) -> bytes:
    if decode.header(image).kind in SHOWN:
        return image
    stream = io.BytesIO()
    Image.fromarray(decode.decode(image)).save(stream, "PNG")
    return stream.getvalue()
