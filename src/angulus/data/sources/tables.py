"""Tables with the images, or their paths, in a column, as data set hubs store them: what Parquet and Arrow share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from angulus.core.checks import InputError
from angulus.data.records import Place
from angulus.data.sources import items
from angulus.data.sources.csv_list import check_columns, name_it, read_listed, unused_columns
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions

IMAGES = ("image", "img", "jpg", "png", "bytes")
IDS = ("id", "path", "file_name", "filename", "__key__")
# What pyarrow raises on damaged files; UnicodeDecodeError and the like are ValueErrors.
DAMAGED = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, IndexError, RecursionError, MemoryError)


class Table(Protocol):
    """An open file, such as `ArrowTable`."""

    path: Path
    kind: str  # in errors
    schema: pa.Schema

    def cells(self, columns: list[str], image: str | None = None) -> Iterator[tuple[dict[str, Any], Place | None]]:
        """Rows of some columns; with the name of the image column, where its bytes lie, if they can be read there."""

    def __enter__(self) -> Table: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


Open = Callable[[Path], Table]


class _Columns(NamedTuple):
    """The columns to read: names within the file, None if it has none."""

    image: str
    identity: str | None
    id: str | None
    landmarks: str | None
    score: str | None


def read(paths: Sequence[Path], options: SourceOptions, open_table: Open) -> Iterator[Item]:
    """The images of tables, in their order.

    The image is a column of bytes, of {bytes, path}, or of paths of files, called image, img, jpg, png or bytes, or as
    `options.image_column` says; paths are relative to `options.root` or the table's folder, and must not leave it. The
    identity column is identity, label, labels, class, cls or person, or `options.label_column`; its numbers become
    names if the file's metadata name the classes. The id column is id, path, file_name, filename or __key__, else the
    image's path; `landmarks` (ten numbers or five pairs) and `score` are read too. Other columns are named as left out.
    If ids repeat, as file names without their folders do, the file's name and the row's number replace them, unless
    `options.id_column` asks for them.
    """
    return _read(paths, options, open_table, _ids_repeat(paths, options, open_table))


def _read(paths: Sequence[Path], options: SourceOptions, open_table: Open, by_row: Remark | None) -> Iterator[Item]:
    if by_row is not None:
        yield by_row
    stems = Counter(path.stem for path in paths)
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"  # splits call theirs the same
        try:
            with open_table(path) as table:
                yield from _rows(table, name, options, by_row is not None)
        except ColumnError:
            raise
        except DAMAGED as error:
            yield options.left_out(path.name, _damaged(path, open_table, error))


def _damaged(path: Path, open_table: Open, error: BaseException) -> InputError:
    return items.as_input_error(path, getattr(open_table, "kind", "table"), error)


def holds_images(path: Path, open_table: Open) -> bool:
    """Whether a table has a column of images; a damaged one may, and is refused when it is read."""
    try:
        with open_table(path) as table:
            return _image_column(table.schema, _holds_bytes) is not None
    except DAMAGED:
        return True


def _image_column(schema: pa.Schema, holds: Callable[[pa.DataType], bool]) -> str | None:
    return next((name for name in IMAGES if name in schema.names and holds(schema.field(name).type)), None)


class ColumnError(InputError):
    """A table without a column that it must have, which is not damage that `on_error` may skip."""


def _columns(path: Path, schema: pa.Schema, options: SourceOptions) -> _Columns:
    names = schema.names
    try:
        check_columns(options, path, names)
    except InputError as error:
        raise ColumnError(str(error)) from error
    asked = options.image_column
    image = asked or _image_column(schema, _holds_bytes) or _image_column(schema, _is_text)
    if image is None or not (_holds_bytes(schema.field(image).type) or _is_text(schema.field(image).type)):
        got = ", ".join(f"{field.name!r} ({field.type})" for field in schema)
        rule = f"{path} must have a column of image bytes called {', '.join(IMAGES)}"
        way = f"image_column is {asked!r}" if asked else name_it("image_column")
        raise ColumnError(f"{rule}; got {got:.300}; {way}")
    others = [name for name in names if name != image]
    identity, id = (next((n for n in known if n in others), None) for known in (items.IDENTITIES, IDS))
    landmarks, score = (name if name in others else None for name in ("landmarks", "score"))
    identity = options.label_column or identity or items.column_of(path, others, "identity", items.IDENTITIES)
    return _Columns(image, identity, options.id_column or id, landmarks, score)


def _ids_repeat(paths: Sequence[Path], options: SourceOptions, open_table: Open) -> Remark | None:
    """A remark if ids repeat, in one file or several; reads only their column."""
    ids: set[str] = set()
    for path in paths:
        try:
            with open_table(path) as table:
                columns = _columns(path, table.schema, options)
                column = columns.id or f"{columns.image}.path"
                kind = table.schema.field(columns.image).type
                if columns.id is None and not _has_path(kind) and not _is_text(kind):
                    continue
                for cells, _ in table.cells([columns.image if _is_text(kind) and not columns.id else column]):
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
        except ColumnError:
            raise
        except DAMAGED as error:
            options.left_out(path.name, _damaged(path, open_table, error))
    return None


def _rows(table: Table, name: str, options: SourceOptions, by_row: bool) -> Iterator[Item]:
    path, schema = table.path, table.schema
    columns = _columns(path, schema, options)
    yield from _guessed(table, columns, options)
    yield from unused_columns(path, schema.names, columns)
    classes = _class_names(schema, columns.identity)
    top = (options.root or path.parent).resolve()
    wanted = [column for column in columns if column is not None]
    for number, (cells, place) in enumerate(table.cells(wanted, columns.image)):
        where = f"{name}-{number:08d}"
        try:
            yield _row((not by_row and _id(cells, columns)) or where, cells, columns, classes, top, place)
        except InputError as error:
            yield LeftOut(where, str(error))


def _guessed(table: Table, columns: _Columns, options: SourceOptions) -> Iterator[Remark]:
    """A remark on columns that are taken though they are called neither image nor label, or on one that is missing."""
    others = [name for name in table.schema.names if name != columns.image]
    if columns.identity is None:
        known = (
            f"none of its columns ({', '.join(others) or 'there is no other'}) is called {', '.join(items.IDENTITIES)}"
        )
        yield Remark(table.path.name, f"{known}; label_column names the one of the classes")
    read_as = (("image", columns.image, options.image_column), ("label", columns.identity, options.label_column))
    usual = ("image", *items.IDENTITIES[:2])
    renamed = [
        f"{name!r} is taken as {what}" for what, name, asked in read_as if name and not asked and name not in usual
    ]
    if renamed:
        yield Remark(table.path.name, f"column {', '.join(renamed)}")


def _id(cells: dict[str, Any], columns: _Columns) -> str:
    """The id that a row states, or ""."""
    stated = items.text_of(cells.get(columns.id or ""), "id")
    value = cells.get(columns.image)
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    return stated or items.text_of(path, "path")


def _row(
    where: str, cells: dict[str, Any], columns: _Columns, classes: Sequence[str], top: Path, place: Place | None
) -> Item:
    value = cells[columns.image]
    data, file = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, str):
        data, file = None, data
    if data is None and not isinstance(file, str):
        return LeftOut(where, "its image has no bytes, and no path of a file either")
    reason = items.too_long(len(data or b""))
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
        if data is None:
            return read_listed(top, str(file), identity, id=where, landmarks=landmarks, score=score)
        return items.row_or_left_out(where, data, identity, landmarks=landmarks, score=score, place=place)
    except InputError as error:
        return LeftOut(where, f"its {error}")


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
