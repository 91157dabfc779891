"""Convert any supported format to records: what was read, what was left out and why."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.records import RecordWriter, Row
from angulus.data.records.blobs import open_blobs
from angulus.data.records.writer import PastRows
from angulus.data.resize import Resize
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.data.sources.selection import Selection, select
from angulus.evaluation.lists.bin_set import read_bin
from angulus.evaluation.lists.pairs import pairs_text

LEFT_OUT = "left-out.jsonl"
PAIRS = "pairs.txt"


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        rows: how many rows the records have.
        identities: how many known identities.
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
    options: SourceOptions | None = None,
    selection: Selection | None = None,
    resize: Resize | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Converted:
    """Convert a data set to records; resumes an earlier run. Every image is decoded once, as a check.

    What an earlier run has read is compared by content: a source that has changed since is refused.

    `out` gets `left-out.jsonl`, one line for each thing in the source that did not become a row; the pairs of a `.bin`
    set go to `pairs.txt`.

    Args:
        source: what `sources.read_source` reads.
        out: a path or URL as `RecordWriter` takes.
        kind: of the source, if its name does not show it.
        options: for the source's reader.
        selection: which images to take; None: all.
        resize: applied to each image; None: images stay as they were encoded.
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
    about |= dataclasses.asdict(resize) if resize else {}
    with RecordWriter(out, about=about) as writer:
        past = PastRows(writer.sources, out)
        for item in items:
            if item is None:
                not_taken += 1
                continue
            result = item if isinstance(item, LeftOut) else _add(item, ids, past, writer, resize)
            if isinstance(result, LeftOut):
                left_out.append(result)
                continue
            ids.add(result.id)
            header = resize or decode.header(result.image)
            sizes[header.width, header.height] += 1
            counts[result.identity] += 1
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
            text = pairs_text(dataclasses.replace(read_bin(source, folds=1).pairs, folds=None))
            open_blobs(out).write(PAIRS, lambda file: file.write(text.encode()))
    unknown = counts.pop("", 0)
    single = sum(count == 1 for count in counts.values())
    return Converted(len(ids), len(counts), unknown, single, dict(sizes), not_taken, tuple(left_out))


def _add(row: Row, ids: set[str], past: PastRows, writer: RecordWriter, resize: Resize | None) -> Row | LeftOut:
    """Add a row of the source to the records and return it, or why it is left out."""
    if row.id in ids:
        return LeftOut(row.id, "the source has a row of this id before it")
    if past.take(row):
        return row
    try:
        if resize is None:
            decode.decode(row.image, "the file")
        written = row if resize is None else resize(row)
    except InputError as error:
        return LeftOut(row.id, str(error))
    writer.add(written, row.checksum())
    return row


def check_outside(source: Path, out: Path | str) -> None:
    """Refuse an output folder inside the source."""
    if source.is_dir() and "://" not in str(out) and Path(out).resolve().is_relative_to(source.resolve()):
        raise InputError(f"out must not lie in the source, {source}, which would read it; got {out}")


def write_left_out(out: Path | str, left_out: Iterable[LeftOut]) -> None:
    """Write `left-out.jsonl` next to records: one line per thing left out, with its reason."""
    lines = (json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) + "\n" for item in left_out)
    data = "".join(lines).encode()
    open_blobs(out).write(LEFT_OUT, lambda file: file.write(data))
