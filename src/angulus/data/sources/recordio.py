"""MXNet's RecordIO, read without MXNet: `X.rec`, with `X.idx`, `X.lst` and `property` next to it if present.

A record is a magic number, a word with a part flag (3 bits) and a length (29 bits), the data, and padding to four
bytes; data that holds the magic number is cut there into a first, middle and last part. An image's data begin with a
header of 24 bytes, (flag, label, id, id2), and `flag` more labels if flag > 0; then the image file.

Face sets begin with a record without an image, whose first label is the end of the images' keys: images are [1, end),
and what follows are the identities, each with its range of keys.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from angulus.core.checks import InputError, why_unread
from angulus.data.records import Place
from angulus.data.sources import lst
from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions, row_or_left_out, too_long
from angulus.evaluation.lists.text import malformed, read_lines

MAGIC = 0xCED7230A
_MAGIC = struct.pack("<I", MAGIC)
_MAGIC_PATTERN = re.compile(re.escape(_MAGIC))
_BLOCK = 2**12  # bytes searched at first for the next record, then twice as many, and so on
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_HEADER = struct.Struct("<IfQQ")


@dataclass(frozen=True)
class Record:
    """One record: its first byte, labels, number and the bytes of its image."""

    offset: int
    labels: tuple[float, ...]
    id: int
    image: bytes
    place: Place | None = None  # None if the record is in parts


def read(path: Path, options: SourceOptions) -> Iterator[Item]:
    """The images of a `.rec`, in the order of the file.

    A row's id is the image's path if `X.lst` gives it by the record's key, else the key: that of `X.idx`, or without
    one the number in the record, or if these repeat the record's position. Its identity is the label.
    """
    keys, paths = _keys(path.with_suffix(".idx")), lst.read_keys(path.with_suffix(".lst"))
    by_place = keys is None and _numbers_repeat(path)
    if by_place:
        text = f"{path.name} gives several records the same number and has no .idx; ids are the records' positions"
        yield Remark(".", text)
    end: int | None = None
    count, identities, met = 0, set(), set()
    for number, record in enumerate(records(path, options)):
        if isinstance(record, LeftOut):
            yield record
            continue
        if keys is not None and record.offset not in keys:
            yield LeftOut(f"byte {record.offset}", f"{path.with_suffix('.idx').name} does not name it")
            continue
        key = number if by_place else record.id if keys is None else keys[record.offset]
        met.add(record.offset)
        label = lst.whole(repr(record.labels[0])) if record.labels else None
        if number == 0 and not record.image and len(record.labels) > 1 and label is not None:
            end = int(label)
            continue
        if end is not None and key >= end:
            continue  # an identity's range of keys, which the images' labels give too
        reason = too_long(len(record.image))
        if reason or label is None:
            yield LeftOut(str(key), reason or f"its label must be a whole number; got {record.labels!s:.80}")
            continue
        count += 1
        identities.add(label)
        yield row_or_left_out(paths.get(key, str(key)), record.image, label, place=record.place)
    yield from _check_counts(path, keys, met, end, count, len(identities))


def records(path: Path, options: SourceOptions | None = None) -> Iterator[Record | LeftOut]:
    """The records of a file, and the damaged ones that are skipped."""
    options = options or SourceOptions()
    with _open(path) as file:
        size = path.stat().st_size
        while file.tell() < size:
            offset = file.tell()
            try:
                data = _read_parts(path, file, offset, size)
                record = _parse(path, offset, data, whole=file.tell() == offset + 8 + len(data) + -len(data) % 4)
            except InputError as error:
                yield options.left_out(f"byte {offset}", error)
                _seek_next(file, offset + 4)
            else:
                yield record


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error


def _seek_next(file: BinaryIO, start: int) -> None:
    """Seek the next place where a record can begin: an aligned magic number, which data never holds."""
    start += -start % 4
    file.seek(start)
    length = _BLOCK
    while block := file.read(length):
        words = np.frombuffer(block, "<u4", count=len(block) // 4)
        for place in np.flatnonzero(words[:-1] == MAGIC).tolist() if len(words) else ():
            if int(words[place + 1]) >> 29 in (_WHOLE, _FIRST):
                file.seek(start + 4 * place)
                return
        if len(block) < length:
            return
        start += length - 4  # the last word's length is in the next block
        length *= 2
        file.seek(start)


def _numbers_repeat(path: Path) -> bool:
    """Whether two records have the same number (im2rec's own loops leave it at 0); reads only headers."""
    met: set[int] = set()
    with _open(path) as file:
        while len(head := file.read(8 + _HEADER.size)) == 8 + _HEADER.size:
            magic, word, _, _, id, _ = struct.unpack("<II" + _HEADER.format[1:], head)
            part, length = word >> 29, word & (1 << 29) - 1
            if magic != MAGIC:
                return False  # damaged: refused when records are read
            if part in (_WHOLE, _FIRST):
                if id in met:
                    return True
                met.add(id)
            file.seek(length + -length % 4 - _HEADER.size, 1)
    return False


def _read_parts(path: Path, file: BinaryIO, offset: int, size: int) -> bytes:
    """The data of the record that begins here, with its parts put together."""
    data = bytearray()
    begun = False
    while True:
        head = file.read(8)
        magic, word = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
        part, length = word >> 29, word & (1 << 29) - 1
        if magic != MAGIC:
            raise _damaged(path, offset, f"begin with {MAGIC:#x}", f"{magic:#x}")
        if (part in (_WHOLE, _FIRST)) == begun or part > _LAST:
            raise _damaged(path, offset, "have its parts in order", f"part flag {part}")
        if file.tell() + length > size:
            rest = size - file.tell()
            raise _damaged(path, offset, f"have the {length} bytes that it says", f"{rest}; it is cut short")
        begun = True
        piece = file.read(length)
        if any(match.start() % 4 == 0 for match in _MAGIC_PATTERN.finditer(piece)):
            raise _damaged(path, offset, f"have no {MAGIC:#x} within its data", "one; its length must be damaged")
        data += piece
        file.seek(-length % 4, 1)
        if part in (_WHOLE, _LAST):
            return bytes(data)
        data += _MAGIC  # at which the parts were cut


def _parse(path: Path, offset: int, data: bytes, whole: bool) -> Record:
    if len(data) < _HEADER.size:
        raise _damaged(path, offset, f"begin with a header of {_HEADER.size} bytes", f"{len(data)}")
    flag, label, id, _ = _HEADER.unpack_from(data)
    start = _HEADER.size + 4 * flag
    if start > len(data):
        raise _damaged(path, offset, f"hold the {flag} labels that it says", f"{len(data)} bytes")
    labels = struct.unpack_from(f"<{flag}f", data, _HEADER.size) if flag else (label,)
    place = Place(path, offset + 8 + start, len(data) - start) if whole else None
    return Record(offset, labels, id, data[start:], place)


def _keys(path: Path) -> dict[int, int] | None:
    """Offset -> key, or None if there is no index."""
    if not path.is_file():
        return None
    keys: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        key, offset = (lst.digits(cell) for cell in cells) if len(cells := line.split("\t")) == 2 else (None, None)
        if key is None or offset is None:
            raise malformed(path, number, "a key and an offset, by a tab", line)
        keys[offset] = key
    return keys


def companions(path: Path) -> list[Path]:
    """The files next to a `.rec` that are read with it."""
    near = (path.with_suffix(".idx"), path.with_suffix(".lst"), path.with_name("property"))
    return [file for file in near if file.is_file()]


def _check_counts(
    path: Path, keys: dict[int, int] | None, met: set[int], end: int | None, count: int, identities: int
) -> Iterator[Item]:
    """Name what differs from the `.idx`, the first record and `property`, which is `identities,height,width`."""
    index, property_file = path.with_suffix(".idx"), path.with_name("property")
    for offset in sorted(set(keys or ()) - met):
        yield LeftOut(f"byte {offset}", f"{index.name} names a record there; {path.name} has none")
    if end is not None and count != end - 1:
        yield LeftOut(path.name, f"its first record says {end - 1} images; it has {count}")
    if property_file.is_file():
        line = read_lines(property_file)[0]
        stated = lst.digits(line.split(",")[0])
        if stated is None:
            raise malformed(property_file, 1, "identities,height,width", line)
        if stated != identities:
            yield LeftOut(property_file.name, f"it says {stated} identities; the images show {identities}")


def _damaged(path: Path, offset: int, rule: str, got: str) -> InputError:
    return InputError(f"{path}: the record at byte {offset} must {rule}; got {got}")
