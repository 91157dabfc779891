"""The series of a DICOM file whose elements all fit into it, found before a library reads the file.

A damaged length makes GDCM allocate up to 4 GB for a file of a few hundred bytes, and its search for series leaves out
what is cut short without a word.

Source: DICOM PS3.5, Sec. 7 (data elements, sequences of items) and A.4 (encapsulated pixel data); PS3.10, Sec. 7.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

# value representations with a length of two bytes, and those with one of four
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_TRANSFER_SYNTAX, _SERIES = (0x0002, 0x0010), (0x0020, 0x000E)
_LONGEST_UID = 128  # bytes; the standard allows 64
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_DEEPEST = 32  # sequences in sequences


@dataclass
class _Dataset:
    file: BinaryIO
    order: str
    explicit: bool
    series: str = ""


def series_of(file: BinaryIO, size: int) -> str | None:
    """The SeriesInstanceUID of a file that begins with 128 bytes and "DICM", "" if it has none.

    None if an element does not end within the `size` bytes of the file, or if the file is deflated.
    """
    file.seek(132)
    data = _Dataset(file, "<", True)
    syntax = ""
    while file.read(2) == b"\2\0":  # group 0002, the file's own description, is explicit and little-endian
        file.seek(-2, 1)
        head = _head(data)
        if head is None:
            return None
        tag, _, length = head
        if length > size - file.tell():
            return None
        value = file.read(length)
        if tag == _TRANSFER_SYNTAX:
            syntax = value.decode("latin-1").strip("\0 ")
    file.seek(max(132, file.tell() - 2))
    if syntax == _DEFLATED:
        return None
    data = _Dataset(file, ">" if syntax == _BIG_ENDIAN else "<", syntax != _IMPLICIT)
    return data.series if _walk(data, size, 0) else None


def _walk(data: _Dataset, size: int, depth: int) -> bool:
    """Step over elements or items to the end of the file, or within a sequence to its delimiter."""
    file = data.file
    while file.tell() < size:
        head = _head(data)
        if head is None or depth > _DEEPEST:
            return False
        tag, kind, length = head
        if tag in (_END_OF_ITEM, _END_OF_SEQUENCE):
            return depth > 0
        if length == _UNDEFINED:
            inner = _Dataset(file, data.order, data.explicit and kind != b"UN")
            if not _walk(inner, size, depth + 1):
                return False
        elif length > size - file.tell():
            return False
        elif tag == _SERIES and depth == 0 and length <= _LONGEST_UID:
            data.series = file.read(length).decode("latin-1").strip("\0 ")
        else:
            file.seek(length, 1)
    return depth == 0


def _head(data: _Dataset) -> tuple[tuple[int, int], bytes, int] | None:
    """Tag, representation ("" of an item or where it is implicit) and length of the next element; None if damaged."""
    head = data.file.read(8)
    if len(head) < 8:
        return None
    tag = struct.unpack_from(f"{data.order}HH", head)
    if tag[0] == 0xFFFE or not data.explicit:
        return tag, b"", struct.unpack_from(f"{data.order}I", head, 4)[0]
    kind = head[4:6]
    if kind in _SHORT:
        return tag, kind, struct.unpack_from(f"{data.order}H", head, 6)[0]
    more = data.file.read(4)
    whole = kind in _LONG and len(more) == 4
    return (tag, kind, struct.unpack(f"{data.order}I", more)[0]) if whole else None
