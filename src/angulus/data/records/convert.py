"""Any known format to records: what was read, what was left out and why."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.records.resume import Earlier
from angulus.data.records.row import Row
from angulus.data.records.select import Selection, select
from angulus.data.records.store import Store, open_store
from angulus.data.records.writer import RecordWriter
from angulus.data.resize import Resize
from angulus.data.sources import LeftOut, Options, kind_of, read_source
from angulus.evaluation.lists.bin_set import read_bin
from angulus.evaluation.lists.pair_list import pairs_text

LEFT_OUT = "left-out.jsonl"
PAIRS = "pairs.txt"


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes:
        rows: how many rows the records have.
        identities: how many identities, of those known.
        unknown: how many rows have no identity.
        single: how many identities have one image.
        sizes: how many rows have each (width, height).
        not_taken: how many images the selection did not take.
        left_out: what did not become a row, in the order of the source.
    """

    rows: int
    identities: int
    unknown: int
    single: int
    sizes: dict[tuple[int, int], int]
    not_taken: int
    left_out: tuple[LeftOut, ...]


def convert(
    source: Path,
    out: Path | str,
    *,
    kind: str | None = None,
    options: Options | None = None,
    selection: Selection | None = None,
    resize: Resize | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Converted:
    """Convert a data set to records; resumes where an earlier try stopped. Every image is decoded once, as a check.

    What an earlier try has read is compared by content: a source that has changed since is refused.

    `out` gets `left-out.jsonl`, a line for each thing in the source that did not become a row; the pairs of a `.bin`
    set go to `pairs.txt`.

    Args:
        source: what `sources.read_source` reads.
        out: a path or URL as `RecordWriter` takes.
        kind: of the source, if its name does not tell.
        options: what some readers ask for.
        selection: which images are taken; None: all.
        resize: what is made of each image; None: it stays as it was encoded.
        on_row: told the number of rows so far.

    Raises:
        checks.InputError: the source or the selection's list cannot be read, no row is left, or `out` lies in the
            source, holds something else, or was begun with a row that has changed since.
    """
    options = options or Options()
    if source.is_dir() and "://" not in str(out) and Path(out).resolve().is_relative_to(source.resolve()):
        raise InputError(f"out must not lie in the source, {source}, which would read it; got {out}")
    selection = selection or Selection()
    items = select(read_source(source, kind, options), selection)  # before anything is written: it may be refused
    kind = kind or kind_of(source)
    left_out: list[LeftOut] = []
    shown: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    met: set[str] = set()
    not_taken = 0
    about = {"source": source.name, "kind": kind, "depth": options.depth, **options.about(), **selection.about()}
    about |= asdict(resize) if resize else {}
    with RecordWriter(out, about=about) as writer:
        earlier = Earlier(writer.sources, out)
        for item in items:
            if item is None:
                not_taken += 1
                continue
            found = item if isinstance(item, LeftOut) else _added(item, met, earlier, writer, resize)
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            met.add(found.id)
            sizes[_size(found, resize)] += 1
            shown[found.identity] += 1
            if on_row is not None:
                on_row(len(met))
        earlier.check_none_left(source)
        if not met:
            images = [item for item in left_out if item.image] or left_out
            first = f"; the first left out is {images[0].where}: {images[0].reason}" if images else ""
            raise InputError(f"{source} must hold images; read as {kind}, it gave none{first}")
        writer.commit()
        _write_beside(open_store(out), source, kind, left_out)
    unknown = shown.pop("", 0)
    single = sum(count == 1 for count in shown.values())
    return Converted(len(met), len(shown), unknown, single, dict(sizes), not_taken, tuple(left_out))


def _added(row: Row, met: set[str], earlier: Earlier, writer: RecordWriter, resize: Resize | None) -> Row | LeftOut:
    """A row of the source that is in the records now, or why it is not."""
    if row.id in met:
        return LeftOut(row.id, "the source has a row of this id before it")
    if earlier.has(row):
        return row
    try:
        if resize is None:
            decode.decode(row.image, "the file")
        made = row if resize is None else resize(row)
    except InputError as error:
        return LeftOut(row.id, str(error))
    writer.add(made, row.checksum())
    return row


def _size(row: Row, resize: Resize | None) -> tuple[int, int]:
    """Width and height of what the records hold of a row of the source."""
    if resize is not None:
        return resize.width, resize.height
    header = decode.header(row.image)
    return header.width, header.height


def _write_beside(store: Store, source: Path, kind: str, left_out: list[LeftOut]) -> None:
    lines = [json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) for item in left_out]
    store.write(LEFT_OUT, _text(lines))
    if kind == "bin":
        text = pairs_text(dataclasses.replace(read_bin(source, folds=1).pairs, folds=None))
        store.write(PAIRS, lambda file: file.write(text.encode()))


def _text(lines: list[str]) -> Callable[[BinaryIO], object]:
    return lambda file: file.write("".join(line + "\n" for line in lines).encode())
