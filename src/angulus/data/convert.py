"""Convert any supported format to records: what was read, what was left out and why."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.workers import Died, map_tasks, start_workers
from angulus.data import decode
from angulus.data.records import RecordWriter, Row
from angulus.data.records.blobs import open_blobs
from angulus.data.records.writer import PastRows
from angulus.data.resize import Resize
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.data.sources.csv_list import PATHS, check_column, read_cells
from angulus.data.sources.items import Item, Remark, column_of
from angulus.evaluation.lists.bin_set import read_bin
from angulus.evaluation.lists.pair_list import pairs_text

LEFT_OUT = "left-out.jsonl"
PAIRS = "pairs.txt"
_TASK_ITEMS = 64  # checked by a process at a time
_TASK_BYTES = 16 * 2**20
_SHOWN = 5  # values of a column in an error


@dataclass(frozen=True)
class Selection:
    """Conditions on the images to take, all of which must hold.

    `list` and `where` need each other, `hold_out` and `held_out` exclude each other; otherwise InputError.
    """

    list: Path | None = None  # a CSV with the ids of images under `id`, or without it under `path`; None: every image
    where: tuple[str, ...] = ()  # `column=value` conditions on an image's line of the list
    hold_out: int | None = None  # N: leave out about one identity in N, by a checksum of its name: the same everywhere
    held_out: int | None = None  # N: take only the identities that `hold_out` leaves out

    def __post_init__(self) -> None:
        if (self.list is None) != (not self.where):
            got = "--where" if self.list is None else "--list"
            raise InputError(f"--list, a CSV, and --where, column=value of its lines, go together; got only {got}")
        for condition in self.where:
            if not condition.partition("=")[0] or "=" not in condition:
                raise InputError(f"--where must be column=value, such as split=train; got {condition!r}")
        if self.hold_out is not None and self.held_out is not None:
            raise InputError("hold_out takes all but the identities that held_out takes; give one of them")
        for name in ("hold_out", "held_out"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), low=2)

    def about(self) -> dict[str, Any]:
        """What records store of it: only the conditions that are set."""
        stated = asdict(self) | {"list": self.list and self.list.name, "where": [*self.where]}
        return {name: value for name, value in stated.items() if value}

    def takes_identity(self, identity: str) -> bool:
        """Whether to take an identity, by `hold_out` and `held_out`.

        >>> [name for name in ("ann", "bob", "cy", "dan") if Selection(held_out=2).takes_identity(name)]
        ['bob']
        """
        every = self.hold_out or self.held_out
        if every is None:
            return True
        return (zlib.crc32(identity.encode()) % every == 0) == (self.held_out is not None)


def select(items: Iterable[Item], selection: Selection) -> Iterator[Item | None]:
    """The items to take, and None for each other item.

    Images that the list does not name, names without an image, and, if identities are held out, images without
    identity become items left out. InputError for a list without such a column or id, or that names an id twice.
    """
    listed = None if selection.list is None else _read_list(selection.list, selection.where)
    return _select(items, selection, listed)


def _select(items: Iterable[Item], selection: Selection, listed: dict[str, bool] | None) -> Iterator[Item | None]:
    by_identity = selection.hold_out is not None or selection.held_out is not None
    missing = {id for id, taken in (listed or {}).items() if taken}
    for item in items:
        if isinstance(item, Remark):
            yield item
            continue
        id = item.where if isinstance(item, LeftOut) else item.id
        missing.discard(id)
        if listed is not None and not listed.get(id, True):
            yield None
        elif isinstance(item, LeftOut):
            yield item
        elif listed is not None and id not in listed:
            yield LeftOut(id, f"{selection.list} does not name it")
        elif by_identity and not item.identity:
            yield LeftOut(id, "it has no identity, which decides what is held out")
        else:
            yield item if selection.takes_identity(item.identity) else None
    for id in listed or {}:
        if id in missing:
            yield LeftOut(id, f"{selection.list} names it, but the source does not have it")


def _read_list(path: Path, where: tuple[str, ...]) -> dict[str, bool]:
    """Id -> whether its line meets the conditions."""
    names, lines = read_cells(path)
    wanted = dict(condition.split("=", 1) for condition in where)
    for name in wanted:
        check_column("where", name, path, names)
    key = column_of(path, names, "id") or column_of(path, names, "path", PATHS)
    if key is None:
        raise InputError(f"{path} must have a column `id` or `path` that names the images; got {', '.join(names)}")
    listed: dict[str, bool] = {}
    met: dict[str, set[str]] = {name: set() for name in wanted}
    for number, cell in lines:
        if isinstance(cell, LeftOut):
            raise InputError(cell.reason)
        if cell[key] in listed:
            raise InputError(f"{path} line {number} must name an image that no line before it names; got {cell[key]!r}")
        listed[cell[key]] = all(cell[name] == value for name, value in wanted.items())
        for name in wanted:
            met[name].add(cell[name])
    if not any(listed.values()):
        shown = "; ".join(f"{name} holds {', '.join(sorted(values)[:_SHOWN])}" for name, values in met.items())
        raise InputError(f"--where must hold for a line of {path}; got {' and '.join(where)}: {shown}")
    return listed


@dataclass(frozen=True)
class Converted:
    """The result of a conversion."""

    rows: int
    identities: int  # how many known identities
    unknown: int  # how many rows have no identity
    single: int  # how many identities have one image
    sizes: dict[tuple[int, int], int]  # how many rows have each (width, height)
    not_taken: int  # how many images the selection did not take
    left_out: tuple[LeftOut, ...]  # what did not become a row, in the order of the source


def convert(
    source: Path,
    out: Path | str,
    *,
    kind: str | None = None,
    options: SourceOptions | None = None,
    selection: Selection | None = None,
    resize: Resize | None = None,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Converted:
    """Convert a data set to records; resumes an earlier run. Every image is decoded once, as a check.

    What an earlier run has read is compared by content: a source that has changed since is refused.

    `out` gets `left-out.jsonl`, one line for each thing in the source that did not become a row; the pairs of a `.bin`
    set go to `pairs.txt`.

    Args:
        source, kind, options: as `sources.read_source` takes them.
        out: a path or URL as `RecordWriter` takes.
        selection: which images to take; None: all.
        resize: applied to each image; None: images stay as they were encoded.
        workers, engine, ray_address: as `workers.start_workers` takes them; this process alone if not given.
        on_row: called with the number of rows so far.

    Raises:
        checks.InputError: the source or the selection's list cannot be read, no row is left, or `out` lies in the
            source, holds something else, or was begun with a row that has changed since.
    """
    options, selection = options or SourceOptions(), selection or Selection()
    check_outside(source, out)
    items = select(read_source(source, kind, options), selection)  # before anything is written: it may be refused
    kind = kind or kind_of(source)
    left_out: list[LeftOut] = []
    counts: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    ids: set[str] = set()
    not_taken = 0
    about = {"source": source.name, "kind": kind, "depth": options.depth, **options.about(), **selection.about()}
    about |= asdict(resize) if resize else {}
    with contextlib.ExitStack() as stack:
        pool = start_workers(partial(_start, resize), engine, workers, ray_address, usual=1)
        stack.enter_context(contextlib.closing(pool))
        writer = stack.enter_context(RecordWriter(out, about=about))
        past = PastRows(writer.sources, out)
        results = map_tasks(pool, _tasks(items, past))
        for item, written in _merged(stack.enter_context(contextlib.closing(results))):
            if item is None:
                not_taken += 1
                continue
            if isinstance(item, Row) and item.id in ids:
                written = "the source has a row of this id before it"
            if isinstance(item, LeftOut) or isinstance(written, str | Died):
                reason = written.reason if isinstance(written, Died) else written
                left_out.append(item if isinstance(item, LeftOut) else LeftOut(item.id, str(reason)))
                continue
            if written is not None:
                writer.add(written, item.checksum())
            ids.add(item.id)
            header = resize or decode.header(item.image)
            sizes[header.width, header.height] += 1
            counts[item.identity] += 1
            if on_row is not None:
                on_row(len(ids))
        past.check_none_left(source)
        if not ids:
            images = [item for item in left_out if item.image] or left_out
            first = f"; the first left out is {images[0].where}: {images[0].reason}" if images else ""
            raise InputError(f"{source} must hold images; read as {kind}, it gave none{first}")
        writer.commit()
        write_left_out(out, left_out)
        if kind == "bin":
            text = pairs_text(replace(read_bin(source, folds=1).pairs, folds=None))
            open_blobs(out).write(PAIRS, lambda file: file.write(text.encode()))
    unknown = counts.pop("", 0)
    single = sum(count == 1 for count in counts.values())
    return Converted(len(ids), len(counts), unknown, single, dict(sizes), not_taken, tuple(left_out))


_Entry = Item | None  # of a task
_Checked = Row | str | Died | None  # what to write, or why it cannot be; None: nothing to do


def _tasks(items: Iterable[_Entry], past: PastRows) -> Iterator[tuple[list[tuple[_Entry, bool]], list[Row]]]:
    """A few items at a time, each with whether it is new, and the new rows, which are to be checked."""
    entries: list[tuple[_Entry, bool]] = []
    rows: list[Row] = []
    for item in items:
        new = [item] if isinstance(item, Row) and not past.take(item) else []
        entries.append((item, bool(new)))
        rows += new
        if len(entries) == _TASK_ITEMS or sum(len(row.image) for row in rows) >= _TASK_BYTES:
            yield entries, rows
            entries, rows = [], []
    yield entries, rows


def _merged(results: Iterable[tuple[list[tuple[_Entry, bool]], list[_Checked]]]) -> Iterator[tuple[_Entry, _Checked]]:
    """All items in order, each with the result of its check if it is new."""
    for entries, checked in results:
        remaining = iter(checked)
        yield from ((item, next(remaining) if new else None) for item, new in entries)


def _start(resize: Resize | None) -> Callable[[list[Row]], list[_Checked]]:
    return partial(_check, resize)


def _check(resize: Resize | None, rows: list[Row]) -> list[_Checked]:
    """The rows as they are to be written, or why they cannot be."""
    results: list[_Checked] = []
    for row in rows:
        try:
            if resize is None:
                decode.decode(row.image, "the file")
            results.append(row if resize is None else resize(row))
        except InputError as error:
            results.append(str(error))
    return results


def check_outside(source: Path, out: Path | str) -> None:
    """Refuse an output folder inside the source."""
    if source.is_dir() and "://" not in str(out) and Path(out).resolve().is_relative_to(source.resolve()):
        raise InputError(f"out must not lie in the source, {source}, which would read it; got {out}")


def write_left_out(out: Path | str, left_out: Iterable[LeftOut]) -> None:
    """Write `left-out.jsonl` next to records: one line per thing left out, with its reason."""
    data = left_out_text(left_out).encode()
    open_blobs(out).write(LEFT_OUT, lambda file: file.write(data))


def left_out_text(left_out: Iterable[LeftOut]) -> str:
    """One line of JSON per thing left out, with its reason."""
    lines = (json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) + "\n" for item in left_out)
    return "".join(lines)
