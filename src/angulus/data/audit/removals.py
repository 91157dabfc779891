"""Removal lists, one image per line with the reason; and a data set without the images that lists name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from angulus.core import files
from angulus.core.checks import InputError
from angulus.data.convert import check_outside, write_left_out
from angulus.data.records import Records, RecordWriter
from angulus.data.records.blobs import open_blobs
from angulus.data.records.parts import ABOUT, read_about
from angulus.data.records.writer import PastRows
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.evaluation.lists.text import malformed, read_lines

SUFFIX = ".txt"


@dataclass(frozen=True)
class Removal:
    """An image on a removal list, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """The result of applying lists."""

    rows: int  # how many rows were written
    removed: dict[str, int]  # rows that each list removed, by the list's name; a row on several lists counts for each
    left_out: int  # how many rows were not written: all removed ones, and those that the source's reader left out


def write_list(path: Path, removals: Iterable[Removal]) -> None:
    """Write `id<TAB>reason` lines, completely or not at all; `InputError` if an id holds a tab or line end."""
    lines = []
    for removal in removals:
        if len(f"{removal.id}x".splitlines()) > 1 or "\t" in removal.id:
            raise InputError(f"{path}: an id in a list must have no tab and no line end; got {removal.id!r}")
        lines.append(f"{removal.id}\t{' '.join(removal.reason.split())}\n")
    files.write_text(path, "".join(lines))


def read_list(path: Path) -> tuple[Removal, ...]:
    """Read what `write_list` wrote, or a list of only ids; an empty file is an empty list; no id may be there twice."""
    if path.is_file() and not path.stat().st_size:
        return ()
    removals: dict[str, Removal] = {}
    for number, line in enumerate(read_lines(path), 1):
        id, _, reason = line.partition("\t")
        if not id:
            raise malformed(path, number, "an id, optionally followed by a tab and the reason", line)
        if id in removals:
            raise malformed(path, number, "an id that no line before it has", id)
        removals[id] = Removal(id, reason or "no reason given")
    return tuple(removals.values())


def apply_removals(
    source: Path,
    lists: Mapping[str, Sequence[Removal]],
    out: Path | str,
    *,
    kind: str | None = None,
    options: SourceOptions | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Removed:
    """Write records of a data set without the images that the lists name; added columns of records are copied.

    Resumes an earlier run. `out` gets `left-out.jsonl`: one line for each row that is not in it, with the list and
    the reason.

    Args:
        source, kind, options: as `sources.read_source` takes them; the source is not changed.
        lists: by name, what to remove.
        out: a path or URL as `RecordWriter` takes.
        on_row: called with the number of rows written.

    Raises:
        checks.InputError: a list names an id that the source does not have, nothing would be left, something else is
            at `out`, or it was begun with a row that has changed since.
    """
    check_free(source, out)
    kind = kind or kind_of(source)
    reasons: dict[str, list[tuple[str, str]]] = {}
    for name, removals in lists.items():
        for removal in removals:
            reasons.setdefault(removal.id, []).append((name, removal.reason))
    _check_ids(source, _ids(source, kind, options), reasons)
    removed = {name: len(removals) for name, removals in lists.items()}
    ids: set[str] = set()
    left_out: list[LeftOut] = []
    with RecordWriter(out, about={"source": source.name, "kind": kind, "removed": removed}) as writer:
        past = PastRows(writer.sources, out)
        for item in read_source(source, kind, options):
            if isinstance(item, LeftOut):
                left_out.append(item)
            elif item.id in reasons:
                left_out += [LeftOut(item.id, f"{name}: {reason}") for name, reason in reasons[item.id]]
            elif item.id in ids:
                left_out.append(LeftOut(item.id, "the source has a row of this id before it"))
            else:
                ids.add(item.id)
                if not past.take(item):
                    writer.add(item)
                if on_row is not None:
                    on_row(len(ids))
        past.check_none_left(f"{source} without what the lists name")
        writer.commit()
        write_left_out(out, left_out)
        if kind == "records":  # before the new ones are marked as complete
            _copy_columns(Records(source), Records(out, unfinished=True), writer)
    return Removed(len(ids), removed, len({item.where for item in left_out}))


def check_free(source: Path, out: Path | str) -> None:
    """Refuse an output inside the source, or that holds complete records or something else."""
    check_outside(source, out)
    blobs = open_blobs(out)
    names = blobs.names()
    if names and (ABOUT not in names or "rows" in read_about(blobs)):
        rule = f"{out} must be missing, an empty folder or unfinished records of the same command"
        held = "whole records" if ABOUT in names else repr(names[0])
        raise InputError(f"{rule}; it holds {held}; choose another folder")


def _ids(source: Path, kind: str, options: SourceOptions | None) -> Iterator[str]:
    if kind == "records":
        yield from Records(source).ids.tolist()
    else:
        yield from (item.id for item in read_source(source, kind, options) if not isinstance(item, LeftOut))


def _check_ids(source: Path, ids: Iterable[str], reasons: Mapping[str, list[tuple[str, str]]]) -> None:
    """Refuse ids that the source does not have: a list for another set would silently remove nothing."""
    unknown, left = set(reasons), 0
    for id in ids:
        unknown.discard(id)
        left += id not in reasons
    if unknown:
        first = min(unknown)
        fault = f"a list may name only images of {source}; {len(unknown)} of its ids are not there, such as {first!r}"
        raise InputError(f"{fault} (in {reasons[first][0][0]}); use the list that was made for this data set")
    if not left:
        raise InputError(f"lists must leave at least one image of {source}; these name all of them")


def _copy_columns(source: Records, copy: Records, writer: RecordWriter) -> None:
    places = {id: row for row, id in enumerate(source.ids.tolist())}
    rows = np.array([places[id] for id in copy.ids.tolist()], dtype=np.int64)
    for name in source.columns:
        writer.add_column(name, source.column(name)[rows])
