"""Lines of list files, plain or gzipped, and the sentence for one that is malformed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from angulus.core import limits
from angulus.core.checks import InputError


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
        """Take so many bytes more into account; for whoever reads lines.

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
