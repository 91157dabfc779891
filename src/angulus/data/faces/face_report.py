"""What `angulus prepare faces` says of photos that are not plainly one good face: a journal, a table, a page.

`report.jsonl` is the journal: a line with the settings, then one per note, on disk before the rows that it goes with,
so that a later run knows what is done. `report.csv` and `report.html` are made from it.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, get_args

from angulus.core import files, limits
from angulus.core.checks import InputError
from angulus.data.faces.photos import Note, Problem

JOURNAL, TABLE, PAGE = "report.jsonl", "report.csv", "report.html"
PICTURES = 200  # of each problem, in the journal and on the page; the table has all

_COLUMNS = tuple(field.name for field in fields(Note) if field.name not in ("picture", "source"))
_FORMULA = (
    *"=+-@",
    "\t",
    "\r",
    "\n",
    *(chr(ord(sign) + 0xFEE0) for sign in "=+-@"),
)  # the last are the full-width ones
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:left}"
    "ul{display:flex;flex-wrap:wrap;gap:1em;list-style:none;padding:0}"
    "li{width:240px;overflow-wrap:anywhere;font-size:13px}img{display:block;max-width:100%}"
)


class Journal:
    """Notes, kept as they come; one that is made again takes the place of the older."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Open the journal in a folder or begin one; a line that a crash cut short is taken off.

        Args:
            folder: made if it is not there.
            about: of which photos and settings it is, as JSON holds it; notes about others are dropped.

        Raises:
            InputError: the file cannot be read or written, or holds something else.
        """
        files.make_folder(folder)
        self.path = folder / JOURNAL
        self._about = json.loads(json.dumps({"about": dict(about)}))
        self._notes: dict[tuple[str, str], Note] = {}
        self._pictures: Counter[str] = Counter()
        try:
            self._file: BinaryIO = self.path.open(
                "a+b", buffering=0
            )  # what a full disk refuses is not kept to try again
            self._read()
        except OSError as error:
            raise InputError(files.sentence(error, self.path)) from error

    @property
    def notes(self) -> list[Note]:
        """All notes, in the order in which they first came; without the pictures that there was no room for."""
        return list(self._notes.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Of photos that were looked at and gave no crop, by id: their `Row.checksum`."""
        notes = self._notes.values()
        return {note.id: note.source for note in notes if not note.kept and note.source is not None}

    def __contains__(self, note: Note) -> bool:
        return _key(note) in self._notes

    def add(self, notes: Iterable[Note]) -> None:
        """Take notes; they are on disk when this returns."""
        lines = []
        for note in notes:
            if self._pictures[note.problem] >= PICTURES:
                note = replace(note, picture=b"")
            self._take(note)
            lines.append(asdict(note) | {"picture": base64.b64encode(note.picture).decode()})
        if lines:
            self._write(lines)

    def close(self) -> None:
        self._file.close()

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        data = memoryview("".join(json.dumps(line) + "\n" for line in lines).encode())
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(files.sentence(error, self.path)) from error

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        lines = io.BufferedReader(io.FileIO(self._file.fileno(), closefd=False))
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # cut short
            data = self._parsed(line, number)
            if number == 1 and isinstance(data, dict) and data != self._about:
                break  # about other settings; none of their crops is there, or the records would have refused
            if isinstance(data, Note):
                self._take(data)
            end += len(line)
        self._file.truncate(end)
        if not end:
            self._write([self._about])

    def _parsed(self, line: bytes, number: int) -> Note | dict[str, Any]:
        """A note; or, on the first line, what the journal is about."""
        try:
            data = limits.parse_json(line, f"{self.path} line {number}")
            if number == 1 and data.keys() == {"about"}:
                return dict(data)
            return Note(**data | {"picture": base64.b64decode(data["picture"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path} line {number} must be a note of `angulus prepare faces`; it is none; "
                "choose another folder, or remove this one and start again"
            ) from error

    def _take(self, note: Note) -> None:
        self._notes[_key(note)] = note
        self._pictures[note.problem] += bool(note.picture)


def write(folder: Path, notes: Sequence[Note], title: str) -> None:
    """Write `report.csv` and `report.html`, which needs no other file.

    Args:
        folder: where they go.
        notes: what they say, in this order; the page by problem.
        title: of the page.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for note in notes:
        data = asdict(note)
        writer.writerow([_cell(data[name]) for name in _COLUMNS])
    files.write_atomically(folder / TABLE, lambda file: file.write(_bytes(table.getvalue())))
    page = _page(notes, title)
    files.write_atomically(folder / PAGE, lambda file: file.write(_bytes(page)))


def counts(notes: Sequence[Note]) -> dict[str, int]:
    """How many notes there are of each problem, of those that there are.

    >>> counts([Note("1.jpg", "ann", "no face", False, "no face was found")])
    {'no face': 1}
    """
    found = Counter(note.problem for note in notes)
    return {problem: found[problem] for problem in get_args(Problem) if found[problem]}


def _page(notes: Sequence[Note], title: str) -> str:
    found = counts(notes)
    rows = [
        f'<tr><td><a href="#{_anchor(name)}">{name}</a></td><td>{count:,}</td></tr>' for name, count in found.items()
    ]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<table>{''.join(rows)}</table>" if rows else "<p>Nothing to report.</p>",
    ]
    for name, count in found.items():
        some = [note for note in notes if note.problem == name][:PICTURES]
        rest = f" The first {len(some):,}; {TABLE} has all." if len(some) < count else ""
        parts.append(f'<h2 id="{_anchor(name)}">{name}</h2><p>{count:,} of them.{rest}</p><ul>')
        parts += [_item(note) for note in some]
        parts.append("</ul>")
    return "\n".join([*parts, "</html>\n"])


def _item(note: Note) -> str:
    source = base64.b64encode(note.picture).decode()
    picture = f'<img alt="" src="data:image/jpeg;base64,{source}">' if note.picture else ""
    kept = "kept" if note.kept else "no crop"
    return f"<li>{picture}<b>{html.escape(note.id)}</b><br>{html.escape(note.detail)} ({kept})</li>"


def _anchor(problem: str) -> str:
    return problem.replace(" ", "-")


def _cell(value: object) -> str:
    """A value as a spreadsheet takes it for text or a number: an apostrophe goes before what would be a formula.

    Source: OWASP, "CSV Injection". Names of files come from strangers.

    >>> _cell("=cmd|' /C calc'!A0/1.jpg"), _cell("1.jpg"), _cell(0.98765)
    ("'=cmd|' /C calc'!A0/1.jpg", '1.jpg', '0.9877')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # a file's name may be no UTF-8


def _key(note: Note) -> tuple[str, str]:
    """What makes two notes the same: things that were left out may share a name with a photo or with each other."""
    return note.id, note.detail if note.problem == "left out" else ""
