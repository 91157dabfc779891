"""Cells by separators, with RFC 4180's quotes and not a quote more: what is not closed is refused, not swallowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from angulus.core.checks import InputError
from angulus.data.sources.common import LeftOut
from angulus.data.sources.damage import OnError
from angulus.evaluation.lists.text import malformed

_QUOTED = re.compile(r'"((?:[^"]|"")*+)"')
_MOST_LINES = 100  # that a quoted cell may go over


def cells_of(
    path: Path, lines: Sequence[str], separator: str, on_error: OnError
) -> Iterator[tuple[int, list[str] | LeftOut]]:
    """Each line's number, from 1, and its cells; empty lines are passed over.

    A quoted cell may go over line ends where it holds no separator: with both, a quote was left open, and what looks
    like one cell is the lines after it.

    Raises:
        checks.InputError: names the line of a quote that is not closed, or stands within a cell.
    """
    place = 0
    while place < len(lines):
        number = place + 1
        if not lines[place].strip(" "):
            place += 1
        elif '"' not in lines[place]:
            yield number, lines[place].split(separator)
            place += 1
        else:
            try:
                cells, place = _quoted(path, lines, place, separator)
                yield number, cells
            except InputError as error:
                yield number, on_error.left_out(f"line {number}", error)
                place = number  # the line after it


def _quoted(path: Path, lines: Sequence[str], place: int, separator: str) -> tuple[list[str], int]:
    """The cells of a line with quotes, and the place of the line after it."""
    text, place, cells, start = lines[place], place + 1, [], 0
    while True:
        if text.startswith('"', start):
            cell, end, text, place = _cell(path, lines, place, text, start, separator)
        else:
            end = text.find(separator, start)
            end = len(text) if end < 0 else end
            cell = text[start:end]
            if '"' in cell:
                raise malformed(path, place, "cells with quotes around the whole, doubled within", cell)
        cells.append(cell)
        if end == len(text):
            return cells, place
        if text[end] != separator:
            raise malformed(path, place, "cells with quotes around the whole, doubled within", text[start : end + 20])
        start = end + 1


def _cell(
    path: Path, lines: Sequence[str], place: int, text: str, start: int, separator: str
) -> tuple[str, int, str, int]:
    """The quoted cell that begins at `start`: its text, where it ends, and text and place with the lines it takes."""
    opened = place
    while True:
        found = _QUOTED.match(text, start)
        if found and not ("\n" in found[1] and separator in found[1]):
            return found[1].replace('""', '"'), found.end(), text, place
        if (
            found
            or place == len(lines)
            or place - opened == _MOST_LINES
            or (place > opened and separator in text[start:])
        ):
            raise malformed(path, opened, "cells whose quotes are closed; one that opens here is not", text[start:])
        text += "\n" + lines[place]
        place += 1
