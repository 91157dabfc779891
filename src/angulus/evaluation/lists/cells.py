"""The cells of CSV lines, with RFC 4180's quotes.

Not the csv module, which accepts stray quotes and reads on to the end of the file after an unclosed one.
"""

import os
import re
from collections.abc import Iterator, Sequence

from angulus.core.checks import InputError
from angulus.evaluation.lists.text import malformed

_MOST_LINES = 100  # that a quoted cell may span
_QUOTED = re.compile(r'"((?:[^"]|"")*+)"')


def separator_of(first: str) -> str:
    """What separates the cells of a file, by its first line: tabs if there are any, else what it has more of.

    >>> separator_of("case;x;y"), separator_of("case,x,y")
    (';', ',')
    """
    return "\t" if "\t" in first else ";" if first.count(";") > first.count(",") else ","


def split_rows(
    path: str | os.PathLike[str], lines: Sequence[str], separator: str
) -> Iterator[tuple[int, list[str] | InputError]]:
    """Each line's number, from 1, and its cells, or what is wrong with its quotes; empty lines are skipped.

    A quoted cell may span lines if it holds no separator: with both, a quote was left open, and what looks like one
    cell is the lines after it.
    """
    place = 0
    while place < len(lines):
        number, text = place + 1, lines[place]
        place = number
        try:
            if '"' in text:
                cells, place = _quoted_cells(path, lines, number, separator)
                yield number, cells
            elif text.strip(" "):
                yield number, text.split(separator)
        except InputError as error:
            yield number, error


def _quoted_cells(
    path: str | os.PathLike[str], lines: Sequence[str], place: int, separator: str
) -> tuple[list[str], int]:
    """The cells of line number `place`, which holds quotes, and the number of the last line they take."""
    text, start, opened = lines[place - 1], 0, place
    cells: list[str] = []
    while True:
        match = _QUOTED.match(text, start)
        spans = place > opened and separator in (match[1] if match else text[start:])
        if (match is None and text.startswith('"', start)) or spans:
            if spans or place == len(lines) or place - opened == _MOST_LINES:
                raise malformed(path, opened, "cells whose quotes are closed; one that opens here is not", text[start:])
            text, place = f"{text}\n{lines[place]}", place + 1
            continue
        end = match.end() if match else text.find(separator, start)
        end = len(text) if end < 0 else end
        cell = match[1].replace('""', '"') if match else text[start:end]
        if (match is None and '"' in cell) or text[end : end + 1] not in ("", separator):
            raise malformed(path, place, "cells with quotes around the whole, doubled within", text[start : end + 20])
        cells.append(cell)
        if end == len(text):
            return cells, place
        start, opened = end + 1, place
