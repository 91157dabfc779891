"""Parquet files with the bytes of images in a column, as data set hubs store them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.sources import items
from angulus.data.sources.csv_list import check_column, unused_columns
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions

IMAGES = ("image", "img", "jpg", "png", "bytes")
IDS = ("id", "path", "file_name", "filename", "__key__")
_BATCH_ROWS = 64
# What pyarrow raises on damaged files; UnicodeDecodeError and the like are ValueErrors.
_DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, IndexError, RecursionError, MemoryError)


class _Columns(NamedTuple):
    """The columns to read: names within the file, None if it has none."""

    image: str
    identity: str | None
    id: str | None
    landmarks: str | None
    score: str | None


def read(paths: Sequence[Path], options: SourceOptions) -> Iterator[Item]:
    """The images of Parquet files, in their order.

    The image is a column of bytes, or of {bytes, path}, called image, img, jpg, png or bytes; the identity column is
    identity, label, labels, class, cls or person, whose numbers become names if the file's metadata name the classes;
    the id column is id, path, file_name, filename or __key__, else the image's path; `landmarks` (ten numbers or five
    pairs) and `score` are read too. Other columns are named as left out. If ids repeat, as file names without their
    folders do, the file's name and the row's number replace them, unless `options.id_column` asks for them.
    """
    return _read(paths, options, _ids_repeat(paths, options))


def _read(paths: Sequence[Path], options: SourceOptions, by_row: Remark | None) -> Iterator[Item]:
    if by_row is not None:
        yield by_row
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from _rows(path, file, options.id_column, by_row is not None)
        except _DAMAGED as error:
            yield options.left_out(path.name, items.as_input_error(path, "Parquet file", error))


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images; a damaged one may, and is refused when it is read."""
    try:
        with pq.ParquetFile(path) as file:
            return _image_column(file.schema_arrow) is not None
    except _DAMAGED:
        return True


def _image_column(schema: pa.Schema) -> str | None:
    return next((name for name in IMAGES if name in schema.names and _holds_bytes(schema.field(name).type)), None)


def _columns(path: Path, schema: pa.Schema, id_column: str | None) -> _Columns:
    names = schema.names
    image = _image_column(schema)
    if image is None:
        got = ", ".join(f"{field.name!r} ({field.type})" for field in schema)
        raise InputError(f"{path} must have a column of image bytes called {', '.join(IMAGES)}; got {got:.300}")
    check_column("id_column", id_column, path, names)
    others = [name for name in names if name != image]
    identity, id = (next((n for n in known if n in others), None) for known in (items.IDENTITIES, IDS))
    landmarks, score = (name if name in others else None for name in ("landmarks", "score"))
    identity = identity or items.column_of(path, others, "identity", items.IDENTITIES)
    return _Columns(image, identity, id_column or id, landmarks, score)


def _ids_repeat(paths: Sequence[Path], options: SourceOptions) -> Remark | None:
    """A remark if ids repeat, in one file or several; reads only their column."""
    ids: set[str] = set()
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                columns = _columns(path, file.schema_arrow, options.id_column)
                column = columns.id or f"{columns.image}.path"
                if columns.id is None and not _has_path(file.schema_arrow.field(columns.image).type):
                    continue
                for cells in _cells(path, file, [column]):
                    try:
                        id = _id(cells, columns)
                    except InputError:
                        continue  # that row is left out when it is read
                    if id in ids and options.id_column is not None:
                        rule = "id_column must name a column without repeats"
                        raise InputError(f"{rule}; {column} of {path} holds {id!r:.100} twice")
                    if id in ids:
                        fact = f"ids in the column {column} repeat, such as {id!r:.100}"
                        way = "`angulus convert --id-column NAME` takes another column"
                        return Remark(".", f"{fact}; so rows are named by file and number; {way}")
                    if id:
                        ids.add(id)
        except _DAMAGED as error:
            options.left_out(path.name, items.as_input_error(path, "Parquet file", error))
    return None


def _cells(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of some columns, in batches that fit in memory whatever they unpack to.

    A value stored once may be in every row, so a batch may hold its column's bytes as many times.
    """
    metadata, packed = file.metadata, path.stat().st_size
    if metadata.num_rows > max(packed, _BATCH_ROWS):
        raise InputError(f"{path} must have no more rows than bytes; it says {metadata.num_rows:,} in {packed:,}")
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).total_byte_size  # unpacked; asking a column ends the process if it is damaged
        limits.check_unpacked(size, packed, f"{path}, row group {group},")
        rows = max(1, min(_BATCH_ROWS, limits.most_unpacked(packed) // max(size, 1)))
        for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
            for number in range(batch.num_rows):
                yield from batch.slice(number, 1).to_pylist()


def _rows(path: Path, file: pq.ParquetFile, id_column: str | None, by_row: bool) -> Iterator[Item]:
    columns = _columns(path, file.schema_arrow, id_column)
    yield from unused_columns(path, file.schema_arrow.names, columns)
    classes = _class_names(file.schema_arrow, columns.identity)
    for number, cells in enumerate(_cells(path, file, [name for name in columns if name is not None])):
        where = f"{path.stem}-{number:08d}"
        try:
            yield _row((not by_row and _id(cells, columns)) or where, cells, columns, classes)
        except InputError as error:
            yield LeftOut(where, str(error))


def _id(cells: dict[str, Any], columns: _Columns) -> str:
    """The id that a row states, or ""."""
    stated = items.text_of(cells.get(columns.id or ""), "id")
    value = cells.get(columns.image)
    return stated or (items.text_of(value.get("path"), "path") if isinstance(value, dict) else "")


def _row(where: str, cells: dict[str, Any], columns: _Columns, classes: Sequence[str]) -> Item:
    value = cells[columns.image]
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        return LeftOut(where, "its image has no bytes in the file, at most a path to another one")
    reason = items.too_long(len(data))
    if reason:
        return LeftOut(where, reason)
    label = cells.get(columns.identity or "")
    if isinstance(label, int) and classes:
        if not -1 <= label < len(classes):
            return LeftOut(where, f"its label must be in [0, {len(classes)}); got {label}")
        label = None if label == -1 else classes[label]  # the hub marks an unknown label by -1
    try:
        identity = items.text_of(label, columns.identity or "identity")
        landmarks = items.landmarks_of(cells.get(columns.landmarks or ""))
        score = items.score_of(cells.get(columns.score or ""))
        return items.row_or_left_out(where, data, identity, landmarks=landmarks, score=score)
    except InputError as error:
        return LeftOut(where, f"its {error}")


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, identity: str | None) -> list[str]:
    """The names for the numbers of a column, if the file's metadata list them."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][identity]["names"] if text else []
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
