"""A gallery at scale: import, exact and approximate queries and their recall, and the disk that it takes.

People are random directions, their images the direction and noise: cosines of one person spread around `SAME`, those of
two around 0. A query is another image of someone in the gallery. A matrix product in memory is the floor of an exact
query: it reads the same numbers, and keeps nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, environment
from angulus.core.embeddings import Embeddings
from angulus.search import Gallery, open_gallery
from angulus.search.lance import KINDS

SAME = 0.6  # cosine of two images of one person, about
IMAGES = 10  # a person
TOP = 5
EFFORTS = (16, 64, 256)  # of the approximate queries

_ROWS = 100_000  # made at a time


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        what: what was done.
        effort: lists or neighbours looked at; None for what has no index.
        median_ms: of one query, or of the whole import or index.
        low_ms, high_ms: the 10th and 90th percentile over queries; the same as the median for what is done once.
        ratio: median over that of the matrix product; None for what is no query.
        recall: share of the true five nearest; None for what is no approximate query.
        mib: of the gallery's files afterwards.
    """

    what: str
    effort: int | None
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float | None = None
    recall: float | None = None
    mib: float | None = None


def run(
    folder: Path, *, rows: int, size: int = 512, queries: int = 50, kinds: Sequence[str] = KINDS
) -> Iterator[Measured]:
    """Make a gallery, fill it, and ask it one query at a time.

    Args:
        folder: where the gallery is made; not there yet, or empty.
        rows: of the gallery, >= 1000.
        size: numbers a vector.
        queries: how many, >= 10.
        kinds: of index, in turn.
    """
    checks.integer("rows", rows, low=1000)
    checks.integer("queries", queries, low=10)
    for kind in kinds:
        checks.choice("kinds", kind, KINDS)
    people = _people(rows, size)
    asked = _queries(rows, size, queries)
    gallery = open_gallery(folder)
    started = time.perf_counter()
    gallery.add(people)
    yield _once(f"import of {rows:,} rows", started, folder)
    floor = _floor(people, asked)
    yield floor
    yield _exact(gallery, asked, floor)
    for kind in kinds:
        started = time.perf_counter()
        gallery.store.index(kind)
        yield _once(f"index {kind}", started, folder)
        for effort in EFFORTS:
            yield _approximate(gallery, asked, floor, kind, effort)


def record(rows: int, size: int, queries: int, measured: Measured) -> dict[str, Any]:
    """One line of a results file."""
    about = environment.of_timing(torch.device("cpu"), "lancedb")
    return {"rows": rows, "size": size, "queries": queries} | asdict(measured) | {"environment": about}


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
    """An image's vector: √SAME of the person's direction, the rest noise."""
    directions = {person: np.random.default_rng([0, person]).standard_normal(size) for person in set(who.tolist())}
    person = np.stack([directions[each] for each in who.tolist()])
    vectors = SAME**0.5 * person + (1 - SAME) ** 0.5 * rng.standard_normal(person.shape)
    return np.asarray(vectors, dtype=np.float32)


def _floor(people: Embeddings, asked: Embeddings) -> Measured:
    unit, probes = people.unit(dtype=np.float32), asked.unit(dtype=np.float32)
    return _spread("matrix product in memory", _times(len(asked), lambda row: _nearest(unit, probes[row])))


def _exact(gallery: Gallery, asked: Embeddings, floor: Measured) -> Measured:
    singles = [_one(asked, row) for row in range(len(asked))]
    return _spread("exact", _times(len(asked), lambda row: gallery.query(singles[row], top=TOP)), floor=floor)


def _approximate(gallery: Gallery, asked: Embeddings, floor: Measured, kind: str, effort: int) -> Measured:
    singles = [_one(asked, row) for row in range(len(asked))]
    times = _times(len(asked), lambda row: gallery.query(singles[row], top=TOP, effort=effort))
    recall = gallery.recall(asked, top=TOP, effort=effort, queries=len(asked))
    return _spread(f"approximate, {kind}", times, floor=floor, effort=effort, recall=recall.value)


def _one(embeddings: Embeddings, row: int) -> Embeddings:
    return Embeddings(embeddings.vectors[row : row + 1], embeddings.ids[row : row + 1])


def _nearest(unit: NDArray[np.floating[Any]], probe: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    scores = unit @ probe
    return np.argpartition(-scores, TOP)[:TOP]


def _times(queries: int, ask: Callable[[int], object]) -> list[float]:
    """Milliseconds of each query; the first is asked once before, to warm up."""
    ask(0)
    times = []
    for row in range(queries):
        started = time.perf_counter()
        ask(row)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def _spread(
    what: str,
    times: list[float],
    *,
    floor: Measured | None = None,
    effort: int | None = None,
    recall: float | None = None,
) -> Measured:
    deciles = statistics.quantiles(times, n=10)
    median = statistics.median(times)
    ratio = None if floor is None else median / floor.median_ms
    return Measured(what, effort, median, deciles[0], deciles[-1], ratio, recall)


def _once(what: str, started: float, folder: Path) -> Measured:
    took = 1e3 * (time.perf_counter() - started)
    mib = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) / 2**20
    return Measured(what, None, took, took, took, mib=mib)
