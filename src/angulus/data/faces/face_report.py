"""The report of `angulus prepare faces`: photos that are not plainly one good face, and crops to look at.

`report.jsonl` is the journal: a line with the settings, then one line per note. A note is on disk before the row it
belongs to, so that a later run knows what is done. `report.csv` and `report.html` are made from the journal.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from angulus.core import files, limits
from angulus.core.checks import InputError
from angulus.core.wording import guard_formula
from angulus.data.faces import face_page
from angulus.data.faces.align import Note
from angulus.data.faces.face_page import PICTURES, TABLE

JOURNAL, PAGE = "report.jsonl", "report.html"

_COLUMNS = tuple(field.name for field in fields(Note) if field.name not in ("picture", "source"))


class Journal:
    """Notes on photos, written as they come; a new note replaces an older one on the same photo."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Open the journal in a folder, or start one; an incomplete last line, and notes about others, are dropped."""
        files.make_folder(folder)
        self.path = folder / JOURNAL
        self._about = json.loads(json.dumps({"about": dict(about)}))
        self._notes: dict[tuple[str, str], Note] = {}
        self._pictures: Counter[str] = Counter()
        try:
            # unbuffered: what a full disk refuses must not stay in memory and be tried again
            self._file: BinaryIO = self.path.open("a+b", buffering=0)
            self._read()
        except OSError as error:
            raise InputError(files.sentence(error, self.path)) from error

    @property
    def notes(self) -> list[Note]:
        """All notes, in the order of their first versions; pictures beyond `PICTURES` are left out."""
        return list(self._notes.values())

    @property
    def dropped(self) -> dict[str, int]:
        """The `Row.checksum` of each photo that was processed and gave no crop, by id."""
        notes = self._notes.values()
        return {note.id: note.source for note in notes if not note.kept and note.source is not None}

    def __contains__(self, note: Note) -> bool:
        return _key(note) in self._notes

    def add(self, notes: Iterable[Note]) -> None:
        """Add notes; they are on disk when this returns."""
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
                break  # incomplete
            data = self._parse(line, number)
            if number == 1 and isinstance(data, dict) and data != self._about:
                break  # about other settings, of which there are no crops, or the records would have refused
            if isinstance(data, Note):
                self._take(data)
            end += len(line)
        self._file.truncate(end)
        if not end:
            self._write([self._about])

    def _parse(self, line: bytes, number: int) -> Note | dict[str, Any]:
        """A note; or, on the first line, the journal's settings."""
        try:
            data = limits.parse_json(line, f"{self.path} line {number}")
            if number == 1 and data.keys() == {"about"}:
                return dict(data)
            return Note(**data | {"picture": base64.b64decode(data["picture"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            rule = f"{self.path} line {number} must be a note of `angulus prepare faces`; it is none"
            raise InputError(f"{rule}; choose another folder, or remove this one and start again") from error

    def _take(self, note: Note) -> None:
        self._notes[_key(note)] = note
        self._pictures[note.problem] += bool(note.picture)


def write(folder: Path, notes: Sequence[Note], title: str, crops: face_page.PageCrops | None = None) -> None:
    """Write `report.csv` and the self-contained `report.html`, which groups the notes by problem.

    `crops` are to be looked at; None while the records are unfinished.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(getattr(note, name)) for name in _COLUMNS] for note in notes)
    for name, text in ((TABLE, table.getvalue()), (PAGE, face_page.render(notes, title, crops))):
        files.write_text(folder / name, text, errors="backslashreplace")  # a file name may not be UTF-8


def _cell(value: object) -> str:
    """A table's cell.

    >>> _cell("=1.jpg"), _cell(None), _cell(0.98765)
    ("'=1.jpg", '', '0.9877')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else guard_formula(str(value))


def _key(note: Note) -> tuple[str, str]:
    """What makes two notes the same; things left out may share a name with a photo or with each other."""
    return note.id, note.detail if note.problem == "left out" else ""
