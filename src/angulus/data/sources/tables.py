"""Parquet files with the bytes of images in a column, as the hubs of data sets have them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from angulus.checks import InputError, one_line
from angulus.data.sources.common import Item, LeftOut, points, row_or_left_out

IMAGES = ("image", "img", "jpg", "png", "bytes")
IDENTITIES = ("identity", "label", "labels", "class", "cls", "person")
IDS = ("id", "path", "file_name", "filename", "__key__")
_BATCH_ROWS = 64


def read(paths: Sequence[Path]) -> Iterator[Item]:
    """The images of Parquet files, in their order.

    The image is a column of bytes, or of {bytes, path}, called image, img, jpg, png or bytes; the identity one called
    identity, label, labels, class, cls or person, whose numbers become names where the file's metadata name the
    classes; the id one called id, path, file_name, filename or __key__, else the image's path, else the file's name
    and the row's number; `landmarks` (ten numbers or five pairs) and `score` are taken too. Other columns are named as
    left out.

    Raises:
        checks.InputError: no such columns, or a damaged file.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from _rows(path, file)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} must be a whole Parquet file; reading it gave: {one_line(error)}") from error


def _rows(path: Path, file: pq.ParquetFile) -> Iterator[Item]:
    names = file.schema_arrow.names
    image = next((name for name in IMAGES if name in names and _holds_bytes(file.schema_arrow.field(name).type)), None)
    if image is None:
        raise InputError(
            f"{path} must have a column of image bytes called {', '.join(IMAGES)}; got {file.schema_arrow}"
        )
    identity, id = (next((n for n in known if n in names), None) for known in (IDENTITIES, IDS))
    used = [name for name in (image, identity, id, "landmarks", "score") if name is not None and name in names]
    unused = [name for name in names if name not in used]
    if unused:
        yield LeftOut(path.name, f"its columns {', '.join(unused)} have no place in records", image=False)
    classes = _class_names(file.schema_arrow, identity)
    number = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=used):
        for cells in batch.to_pylist():
            own = cells.get(id or "")
            yield _row(f"{path.stem}-{number:08d}", None if own is None else str(own), cells, image, identity, classes)
            number += 1


def _row(
    where: str, id: str | None, cells: dict[str, Any], image: str, identity: str | None, classes: Sequence[str]
) -> Item:
    value = cells[image]
    data, inner = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    where = id or inner or where
    if data is None:
        return LeftOut(where, "its image has no bytes in the file, at most a path to another one")
    shown = cells.get(identity or "")
    if isinstance(shown, int) and classes:
        if not 0 <= shown < len(classes):
            return LeftOut(where, f"its label must be in [0, {len(classes)}); got {shown}")
        shown = classes[shown]
    marks, score = cells.get("landmarks"), cells.get("score")
    flat = None if marks is None else np.asarray(marks, dtype=np.float32).ravel()
    if flat is not None and flat.shape != (10,):
        return LeftOut(where, f"its landmarks must be ten numbers; got {flat.size}")
    landmarks = None if flat is None or np.isnan(flat).any() else points(flat.tolist())
    score = None if score is None or math.isnan(score) else float(score)
    return row_or_left_out(where, data, "" if shown is None else str(shown), landmarks=landmarks, score=score)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, identity: str | None) -> list[str]:
    """The names that stand for the numbers of a column, where the file's metadata list them."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][identity]["names"] if text else []
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names]
