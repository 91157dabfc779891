"""Limits on the unpacked size and the nesting of a file, so that a small file cannot fill the memory.

A file may unpack to `MOST_UNPACKED` bytes, or to `MOST_RATIO` times its own size if that is more. `angulus
--max-unpacked 16G COMMAND`, the environment variable ANGULUS_MAX_UNPACKED or `set_most_unpacked` raises the first.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from angulus.core import checks
from angulus.core.checks import InputError, why_unread

MOST_UNPACKED = 2**30  # bytes; more than any published list or image, less than a small machine's memory
MOST_RATIO = 20  # text compresses to a tenth, JPEGs and embeddings hardly at all
MOST_DEPTH = 64  # lists in lists; no format needs ten
VARIABLE = "ANGULUS_MAX_UNPACKED"
READ_DAMAGED = "ANGULUS_READ_DAMAGED"  # the variable that `angulus --read-damaged` sets: images cut short are read
RAISE = f"if you trust the file, raise the limit: angulus --max-unpacked 16G COMMAND, or {VARIABLE}=16G"

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def set_most_unpacked(size: str | int | None) -> None:
    """Change the limit for this process and those that it starts; None: the default."""
    if size is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(parse_size("--max-unpacked", size))


def most_unpacked(packed: int = 0) -> int:
    """How many bytes a file of `packed` bytes may unpack to."""
    stated = os.environ.get(VARIABLE)
    limit = parse_size(VARIABLE, stated) if stated else MOST_UNPACKED
    return max(limit, MOST_RATIO * packed)


def parse_size(name: str, text: str | int) -> int:
    """A number of bytes, from digits and an optional K, M, G or T (powers of 1024).

    >>> parse_size("size", "1.5G")
    1610612736
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", str(text).strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise InputError(f"{name} must be a size such as 500M or 16G; got {text!r:.80}")
    return size


def check_unpacked(size: int, packed: int, what: str) -> None:
    """Refuse to unpack `packed` bytes to `size` bytes if that exceeds the limit."""
    limit = most_unpacked(packed)
    if size > limit:
        raise InputError(f"{what} must unpack to at most {limit:,} bytes; it holds {size:,} or more; {RAISE}")


def read_unpacked(stream: BinaryIO | gzip.GzipFile, packed: int, what: str) -> bytes:
    """All bytes of a stream that unpacks as it is read, refused as soon as they exceed the limit."""
    data = stream.read(most_unpacked(packed) + 1)
    check_unpacked(len(data), packed, what)
    return data


def read_file(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz, up to the limit."""
    path = Path(path)
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            return read_unpacked(stream, path.stat().st_size, str(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} must be a whole gzip file; got {error}") from error
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error


def inflate(data: bytes, what: str) -> bytes:
    """The bytes of a zlib stream, refused as soon as they exceed the limit; a damaged stream raises zlib.error."""
    unpacked = zlib.decompressobj().decompress(data, most_unpacked(len(data)) + 1)
    check_unpacked(len(unpacked), len(data), what)
    return unpacked


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text that errors call `what`.

    Raises:
        checks.InputError: not JSON, not UTF-8, a number of thousands of digits, or nested too deep.

    >>> parse_json('{"a": [1, 2]}', "config.json")
    {'a': [1, 2]}
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InputError(_too_deep(what)) from error
    except ValueError as error:
        raise InputError(f"{what} must be JSON; reading it gave: {checks.one_line(error)}") from error
    check_nesting(value, what)
    return value


def check_nesting(value: Any, what: str, most_values: float = math.inf) -> None:
    """Refuse lists and mappings that nest deeper than `MOST_DEPTH` or hold more than `most_values` values.

    A value in several places (a YAML alias) counts in each.
    """
    left = [(value, 1)]
    count = 0
    while left:
        item, depth = left.pop()
        count += 1
        if depth > MOST_DEPTH:
            raise InputError(_too_deep(what))
        if count > most_values:
            raise InputError(f"{what} must hold at most {most_values:,} values, aliases written out; it holds more")
        if isinstance(item, Mapping):
            left += [(value, depth + 1) for value in item.values()]
        elif isinstance(item, list | tuple):
            left += [(value, depth + 1) for value in item]


def _too_deep(what: str) -> str:
    return f"{what} must nest lists and mappings at most {MOST_DEPTH} deep; it goes deeper"
