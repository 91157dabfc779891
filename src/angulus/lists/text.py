"""Lines of list files, plain or gzipped, and the sentence for one that is malformed."""

from __future__ import annotations

import os

from angulus import limits
from angulus.checks import InputError


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """A file's lines without their ends; line i stands at i − 1. Blank lines at the end are dropped."""
    return lines_of(limits.read_file(path), path)


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
    shown = repr(got) if isinstance(got, str) else str(got)
    return InputError(f"{os.fspath(where)} line {number} must be {rule}; got {shown[:200]}")
