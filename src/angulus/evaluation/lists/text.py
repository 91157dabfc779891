"""Lines and tables of text files, plain or gzipped, and the error for a malformed line."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError, one_line, why_unread
from angulus.core.formats.columns import text_array

_BLOCK = 2**24  # bytes of text parsed at a time

Kind = type[int] | type[float] | type[str]


@dataclass(frozen=True)
class Layout:
    """How a table is written: all its columns in order, the wanted ones with their kind, what separates them."""

    columns: Sequence[str]
    wanted: Mapping[str, Kind]
    separator: str
    heading: bool


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """A file's lines without their ends; line i stands at i − 1. Blank lines at the end are dropped."""
    return lines_of(limits.read_file(path), path)


class Unpacked(gzip.GzipFile):
    """A gzipped file that is refused as soon as it unpacks to too much."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path, self._packed, self._unpacked = path, path.stat().st_size, 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Count bytes that were unpacked; for readers of lines.

        Raises:
            InputError: they are too many.
        """
        self._unpacked += size
        limits.check_unpacked(self._unpacked, self._packed, str(self._path))


def lines_of(data: bytes, where: str | os.PathLike[str]) -> list[str]:
    """The lines of UTF-8 text with any line ends; an empty text is refused."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(where, data.count(b"\n", 0, error.start) + 1, "UTF-8 text", error.reason) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():  # line by line: a last cell may be empty, or end in a space
        lines.pop()
    if not lines:
        raise InputError(f"{os.fspath(where)} must hold lines; it is empty")
    return lines


def malformed(where: str | os.PathLike[str], number: int, rule: str, got: object) -> InputError:
    """The error for a line: file, number (from 1), what it must be, what it is."""
    text = repr(got[:200]) if isinstance(got, str) else str(got)
    return InputError(f"{os.fspath(where)} line {number} must be {rule}; got {text[:200]}")


def first_line(path: str | os.PathLike[str]) -> str:
    """The first line of a file, unpacked where its name ends in .gz."""
    with _opened(path) as file:
        line = _decoded(path, 1, next(_lines(path, file), b""))
    if not line:
        raise InputError(f"{os.fspath(path)} must hold lines; it is empty, or begins with an empty line")
    return line


def read_table(path: str | os.PathLike[str], layout: Layout) -> dict[str, NDArray[Any]]:
    """The wanted columns, whole: int64, float64 or str of shape [N].

    Raises:
        InputError: names file and line: another number of columns, or no number where one is due.
    """
    blocks = list(stream_table(path, layout))
    return {name: np.concatenate([block[name] for block in blocks]) for name in layout.wanted}


def stream_table(path: str | os.PathLike[str], layout: Layout) -> Iterator[dict[str, NDArray[Any]]]:
    """The wanted columns in blocks of consecutive lines, so that any length fits in little memory."""
    import pyarrow as arrow  # where it is used: most commands read no table
    from pyarrow import csv

    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    count = 0
    try:
        for number, block in enumerate(_blocks(path)):
            # pyarrow's threads get no Python object: one that needs Python while an error ends the process aborts it
            buffer = arrow.allocate_buffer(len(block))
            memoryview(buffer).cast("B")[:] = block
            table = csv.read_csv(
                arrow.BufferReader(buffer),
                csv.ReadOptions(
                    use_threads=False,
                    block_size=len(block),
                    column_names=list(layout.columns),
                    skip_rows=int(layout.heading and number == 0),
                ),
                csv.ParseOptions(delimiter=layout.separator, quote_char=False),
                csv.ConvertOptions(
                    column_types={name: types[kind] for name, kind in layout.wanted.items()},
                    include_columns=list(layout.wanted),
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
            count += len(table)
            yield {name: _plain(table.column(name)) for name in layout.wanted}
    except (arrow.ArrowException, OSError, EOFError, zlib.error) as error:
        _name_the_line(path, layout)
        raise InputError(f"{os.fspath(path)} must be a whole table; reading gave: {one_line(error)[:300]}") from error
    if not count:
        raise InputError(f"{os.fspath(path)} must hold lines after its heading; got none")


def _plain(column: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return text_array(values.tolist()) if values.dtype == object else values


def _name_the_line(path: str | os.PathLike[str], layout: Layout) -> None:
    """Read slowly up to the first malformed line and raise its error; return if there is none."""
    places = [(list(layout.columns).index(name), kind) for name, kind in layout.wanted.items()]
    names = layout.separator.join(layout.columns)[:200]
    rule = f"{len(layout.columns)} columns ({names}), numbers where they are due"
    with _opened(path) as file:
        for number, raw in enumerate(_lines(path, file), 1):
            line = _decoded(path, number, raw)
            if (number == 1 and layout.heading) or not line:
                continue
            cells = line.split(layout.separator)
            if len(cells) != len(layout.columns) or not all(_parses(cells[place], kind) for place, kind in places):
                raise malformed(path, number, rule, line)


def _parses(cell: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(cell)
    except ValueError:
        return False
    return True


def _opened(path: str | os.PathLike[str]) -> io.BufferedIOBase:
    path = Path(path)
    try:
        return Unpacked(path) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error


def _blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """A file's bytes in pieces of whole lines."""
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            rest = file.readline(_BLOCK)
            if len(rest) == _BLOCK:
                raise _long_line(path)
            if isinstance(file, Unpacked):
                file.count(len(rest))
            if (block := block + rest).lstrip(b"\r\n"):  # not of spaces and tabs, which may separate empty cells
                yield block


def _long_line(path: str | os.PathLike[str]) -> InputError:
    return InputError(f"{os.fspath(path)} must have lines of fewer than {_BLOCK:,} bytes; got a longer one")


def _lines(path: str | os.PathLike[str], file: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file, none of them longer than a block."""
    try:
        while line := file.readline(_BLOCK):
            if len(line) == _BLOCK:
                raise _long_line(path)
            if isinstance(file, Unpacked):
                file.count(len(line))
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{os.fspath(path)} must be a whole gzip file; got {error}") from error


def _decoded(path: str | os.PathLike[str], number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise malformed(path, number, "UTF-8 text", error.reason) from error
