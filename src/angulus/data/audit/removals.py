"""Removal lists: one image a line with the reason; and a data set without what the lists name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core import files
from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT
from angulus.data.records import Records, parts
from angulus.data.records.blobs import open_blobs
from angulus.data.records.writer import PastRows, RecordWriter, read_about
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.evaluation.lists.text import malformed, read_lines

SUFFIX = ".txt"


@dataclass(frozen=True)
class Removal:
    """An image that a list names, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """What applying lists did.

    Attributes:
        kept: rows that were written.
        removed: rows that each list took out, by the list's name; one that several name counts for each.
        left_out: how many rows were not written: all that were removed, and what the source's reader left out.
    """

    kept: int
    removed: dict[str, int]
    left_out: int


def write_list(path: Path, removals: Iterable[Removal]) -> None:
    """Write `id<TAB>reason` lines, whole or not at all.

    Raises:
        checks.InputError: an id with a tab or a line's end in it, which no line can hold.
    """
    lines = []
    for each in removals:
        if len(f"{each.id}x".splitlines()) > 1 or "\t" in each.id:
            raise InputError(f"{path}: an id in a list must have no tab and no line's end; got {each.id!r}")
        lines.append(f"{each.id}\t{' '.join(each.reason.split())}\n")
    files.write_text(path, "".join(lines))


def read_list(path: Path) -> tuple[Removal, ...]:
    """Read what `write_list` wrote, or a list of ids alone; an empty file is a list that names nothing.

    Raises:
        checks.InputError: names file and line: an empty line, or an id that stands there before.
    """
    if path.is_file() and not path.stat().st_size:
        return ()
    found: dict[str, Removal] = {}
    for number, line in enumerate(read_lines(path), 1):
        id, _, reason = line.partition("\t")
        if not id:
            raise malformed(path, number, "an id, then if you like a tab and the reason", line)
        if id in found:
            raise malformed(path, number, "an id that no line before it has", id)
        found[id] = Removal(id, reason or "no reason given")
    return tuple(found.values())


def apply_removals(
    source: Path,
    lists: Mapping[str, Sequence[Removal]],
    out: Path | str,
    *,
    kind: str | None = None,
    options: SourceOptions | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Removed:
    """Write records of a data set without the images that the lists name; later columns of records come along.

    Resumes where an earlier try stopped. The records are whole once all of it is there.

    `out` gets `left-out.jsonl`: a line for each row that is not in it, with the list and the reason.

    Args:
        source: records, or what `sources.read_source` reads; it stays as it is.
        lists: by their name, what to remove.
        out: a path or URL as `RecordWriter` takes.
        kind, options: as `sources.read_source` takes them.
        on_row: told how many rows are written.

    Raises:
        checks.InputError: a list names an id that the source has not, nothing would be left, something else is at
            `out`, or it was begun with a row that has changed since.
    """
    check_free(source, out)
    kind = kind or kind_of(source)
    reasons: dict[str, list[tuple[str, str]]] = {}
    for name, removals in lists.items():
        for each in removals:
            reasons.setdefault(each.id, []).append((name, each.reason))
    _check_named(source, _ids(source, kind, options), reasons)
    about = {"source": source.name, "kind": kind, "removed": {name: len(each) for name, each in lists.items()}}
    kept: set[str] = set()
    gone: list[LeftOut] = []
    with RecordWriter(out, about=about) as writer:
        earlier = PastRows(writer.sources, out)
        for item in read_source(source, kind, options):
            if isinstance(item, LeftOut):
                gone.append(item)
            elif item.id in reasons:
                gone += [LeftOut(item.id, f"{name}: {reason}") for name, reason in reasons[item.id]]
            elif item.id in kept:
                gone.append(LeftOut(item.id, "the source has a row of this id before it"))
            else:
                kept.add(item.id)
                if not earlier.take(item):
                    writer.add(item)
                if on_row is not None:
                    on_row(len(kept))
        earlier.check_none_left(f"{source} without what the lists name")
        writer.commit()
        text = "".join(
            json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) + "\n" for item in gone
        )
        open_blobs(out).write(LEFT_OUT, lambda file: file.write(text.encode()))
        if kind == "records":  # before the new ones say that they are whole
            _copy_columns(Records(source), Records(out, unfinished=True).ids, writer)
    removed = {name: len(each) for name, each in lists.items()}
    return Removed(len(kept), removed, len({item.where for item in gone}))


def check_free(source: Path, out: Path | str) -> None:
    """Refuse a place for what is left that lies in the source, or holds whole records or something else.

    Raises:
        checks.InputError: as it says; unfinished records are for `apply_removals` to judge.
    """
    if source.is_dir() and "://" not in str(out) and Path(out).resolve().is_relative_to(source.resolve()):
        raise InputError(f"out must not lie in the source, {source}, which would read it; got {out}")
    store = open_blobs(out)
    names = store.names()
    if names and (parts.ABOUT not in names or "rows" in read_about(store)):
        raise InputError(
            f"{out} must not be there, or be an empty folder or unfinished records of the same command, to write what "
            f"is left; it holds {'whole records' if parts.ABOUT in names else repr(names[0])}; choose another folder"
        )


def _ids(source: Path, kind: str, options: SourceOptions | None) -> Iterator[str]:
    if kind == "records":
        yield from Records(source).ids.tolist()
    else:
        yield from (item.id for item in read_source(source, kind, options) if not isinstance(item, LeftOut))


def _check_named(source: Path, ids: Iterable[str], reasons: Mapping[str, list[tuple[str, str]]]) -> None:
    """Refuse ids that the source has not: a list for another set would remove nothing, and nobody would know."""
    unknown, left = set(reasons), 0
    for id in ids:
        unknown.discard(id)
        left += id not in reasons
    if unknown:
        first = min(unknown)
        raise InputError(
            f"a list may name only images of {source}; {len(unknown)} of its ids are not there, {first!r} "
            f"(in {reasons[first][0][0]}) among them; give the list that was made for this data set"
        )
    if not left:
        raise InputError(f"lists must leave at least one image of {source}; these name all of them")


def _copy_columns(source: Records, ids: NDArray[np.str_], writer: RecordWriter) -> None:
    rows = {id: row for row, id in enumerate(source.ids.tolist())}
    kept = np.array([rows[id] for id in ids.tolist()], dtype=np.int64)
    for name in source.columns:
        writer.add_column(name, source.column(name)[kept])
