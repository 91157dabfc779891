"""A gallery at scale: import, index, exact and approximate queries with their recall, and the disk that it takes.

    python benchmarks/search.py [--rows 20000] [--size 512] [--queries 50] [--kind ivf-pq] [--scratch FOLDER] [--save]

People are random directions, their images the direction plus noise: cosines of one person lie around `SAME`, those of
two people around 0. A query is another image of someone in the gallery. The floor of an exact query is a matrix product
in memory: it reads the same numbers and stores nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
from angulus.search.lance import KINDS
from harness import Row, clock, options, run, show, store

SAME = 0.6  # cosine of two images of one person, about
IMAGES = 10  # per person
TOP = 5
EFFORTS = (16, 64, 256)  # of the approximate queries

_ROWS = 100_000  # made at a time


def time_gallery(
    folder: Path, *, rows: int, size: int = 512, queries: int = 50, kinds: Sequence[str] = KINDS
) -> Iterator[Row]:
    """Make a gallery, fill it, and ask it one query at a time.

    Args:
        folder: where the gallery is made; not there yet, or empty.
        rows: of the gallery, >= 1000.
        size: numbers per vector.
        queries: how many, >= 10.
        kinds: of index, in turn.

    Yields:
        what was done, its effort (lists or neighbours looked at), median_ms of a query, or of the import or index as a
        whole, low_ms and high_ms (10th and 90th percentile), the ratio to the matrix product, the recall of the true
        five nearest, and mib, the size of the gallery's files.
    """
    checks.integer("rows", rows, low=1000)
    checks.integer("queries", queries, low=10)
    for kind in kinds:
        checks.choice("kinds", kind, KINDS)
    people, asked = _people(rows, size), _queries(rows, size, queries)
    singles = [Embeddings(asked.vectors[row : row + 1], asked.ids[row : row + 1]) for row in range(queries)]
    unit, probes = people.unit(dtype=np.float32), asked.unit(dtype=np.float32)
    gallery = open_gallery(folder)
    yield _once(f"import of {rows:,} rows", lambda: gallery.add(people), folder)
    floor = _spread("matrix product in memory", queries, lambda row: np.argpartition(-(unit @ probes[row]), TOP)[:TOP])
    yield floor
    yield _spread("exact", queries, lambda row: gallery.query(singles[row], top=TOP), floor)
    for kind in kinds:
        yield _once(f"index {kind}", lambda kind=kind: gallery.store.index(kind), folder)  # type: ignore[misc]
        for effort in EFFORTS:
            ask = partial(gallery.query, top=TOP, effort=effort)
            row = _spread(f"approximate, {kind}", queries, lambda number, ask=ask: ask(singles[number]), floor)  # type: ignore[misc]
            recall = gallery.recall(asked, top=TOP, effort=effort, queries=queries)
            yield row | {"effort": effort, "recall": recall.value}


def _people(rows: int, size: int) -> Embeddings:
    vectors = np.empty((rows, size), dtype=np.float32)
    for start in range(0, rows, _ROWS):
        part = np.arange(start, min(start + _ROWS, rows))
        vectors[part] = _images(part // IMAGES, size, np.random.default_rng([1, start]))
    return Embeddings(vectors, np.arange(rows).astype(np.str_), source="made people")


def _queries(rows: int, size: int, count: int) -> Embeddings:
    rng = np.random.default_rng(2)
    who = rng.integers(max(1, rows // IMAGES), size=count)
    return Embeddings(_images(who, size, rng), np.arange(count).astype(np.str_), source="made queries")


def _images(who: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The vectors of images: √SAME of the person's direction, the rest noise."""
    directions = {person: np.random.default_rng([0, person]).standard_normal(size) for person in set(who.tolist())}
    person = np.stack([directions[number] for number in who.tolist()])
    vectors = SAME**0.5 * person + (1 - SAME) ** 0.5 * rng.standard_normal(person.shape)
    return np.asarray(vectors, dtype=np.float32)


def _spread(what: str, queries: int, ask: Callable[[int], object], floor: Row | None = None) -> Row:
    """Times of single queries; the first is asked once before, to warm up."""
    ask(0)
    times = [1e3 * clock(lambda row=row: ask(row)).seconds for row in range(queries)]  # type: ignore[misc]
    deciles, median = statistics.quantiles(times, n=10), statistics.median(times)
    ratio = None if floor is None else median / floor["median_ms"]
    return _row(what) | {"median_ms": median, "low_ms": deciles[0], "high_ms": deciles[-1], "ratio": ratio}


def _once(what: str, step: Callable[[], object], folder: Path) -> Row:
    took = 1e3 * clock(step).seconds
    mib = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    return _row(what) | {"median_ms": took, "low_ms": took, "high_ms": took, "mib": mib}


def _row(what: str) -> Row:
    return {"what": what} | dict.fromkeys(("effort", "median_ms", "low_ms", "high_ms", "ratio", "recall", "mib"))


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rows=20_000, size=512, queries=50)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="of index")
    parser.add_argument("--scratch", type=Path, help="folder for the gallery, on the disk to be timed")
    asked = parser.parse_args(arguments)
    shape = {"rows": asked.rows, "size": asked.size, "queries": asked.queries}
    table = []
    with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
        for row in time_gallery(Path(folder) / "gallery", **shape, kinds=asked.kind):
            table.append(_texts(row))
            if asked.save:  # at once: the next step may take an hour
                store("search", [shape | row], "lancedb")
    show(f"{asked.rows:,} x {asked.size}, {asked.queries} queries, top {TOP}", table)


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {
        "what": row["what"],
        "effort": "" if row["effort"] is None else str(row["effort"]),
        "median ms": f"{row['median_ms']:,.1f}",
        "10 % .. 90 %": f"{row['low_ms']:,.1f} .. {row['high_ms']:,.1f}" if row["mib"] is None else "",
        "ratio to matrix product": "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        "recall": "" if row["recall"] is None else f"{100 * row['recall']:.1f} %",
        "MiB": "" if row["mib"] is None else f"{row['mib']:,.0f}",
    }


if __name__ == "__main__":
    run(main)
