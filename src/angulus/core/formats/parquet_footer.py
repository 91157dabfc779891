"""The position of each column of a `.parquet` file, and its size in memory, from the file's footer.

Read without pyarrow, which aborts the process if the statistics of a damaged footer are malformed.

Source: the Parquet format, parquet.thrift, and Thrift's compact protocol.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from angulus.core import limits

_WIDTHS = {0: 1, 1: 4, 4: 4, 7: 4}  # bytes of a BOOLEAN, INT32, FLOAT or FIXED_LEN_BYTE_ARRAY in memory; others 8
_TEXT = 6  # the type BYTE_ARRAY

Fields = dict[int, Any]


class ColumnChunk(NamedTuple):
    """A column in a row group."""

    name: str
    unpacked: int  # bytes in memory; each text counts once, with its offsets
    start: int  # the first byte of its first data page in the file
    packed: int  # its bytes there


def chunks(file: BinaryIO) -> Iterator[ColumnChunk]:
    """The chunks of a file, group by group.

    Raises:
        ValueError: the footer is missing or damaged.
    """
    footer = _Compact(_footer(file))
    try:
        groups = footer.fields()[4]
        for column in (chunk[3] for group in groups for chunk in group[1]):
            text = max(0, column[6]) if column[1] == _TEXT else 0
            unpacked = _WIDTHS.get(column[1], 8) * max(0, column[5]) + text
            yield ColumnChunk(column[3][0].decode(), unpacked, int(column[9]), int(column[7]))
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError("its footer is damaged") from error


def _footer(file: BinaryIO) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > end - 8:
        raise ValueError("it has no footer")
    file.seek(end - 8 - length)
    return file.read(length)


class _Compact:
    """Reads Thrift's compact protocol: structs become {field number: value}."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def fields(self, depth: int = 0) -> Fields:
        if depth > limits.MOST_DEPTH:
            raise RecursionError
        fields: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._whole()
        if kind == 8:
            return self._bytes(self._number())
        if kind in (9, 10):
            head = self._byte()
            count = self._number() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.fields(depth + 1)
        if kind in (1, 2, 3):
            return self._byte()
        return struct.unpack("<d", self._bytes({7: 8}[kind]))[0]

    def _byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _bytes(self, count: int) -> bytes:
        self._place += count
        if self._place > len(self._data):
            raise IndexError
        return self._data[self._place - count : self._place]

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 70:
                return number

    def _whole(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)
