"""Galleries of codes: recall, memory, time and the error of scores, for the kinds of index that hold little.

    python benchmarks/small_vectors.py [GALLERY QUERIES] [--rows 100000] [--size 512] [--queries 300] [--save]

GALLERY and QUERIES are embeddings files of one model; without them, vectors are made: people in clusters, ten images
each. Memory is what LanceDB states of the index, whose codes queries keep in memory; the vectors stay on disk. Exact
answers are those of float64 over all vectors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
from angulus.search.lance import LanceStore
from harness import Row, clock, options, run, show, store
from search import _people, _queries

TOP = 10
KINDS = ("int8", "binary")
EFFORTS = (16, 64)


def measure(folder: Path, gallery: Embeddings, queries: Embeddings, source: str) -> Iterator[Row]:
    """A row for each kind and effort."""
    people, asked = gallery.unit(dtype=np.float64), queries.unit(dtype=np.float64)
    scores = asked @ people.T
    last = -np.partition(-scores, TOP - 1, axis=1)[:, TOP - 1]  # a row that is as near as the tenth counts
    place = {name: row for row, name in enumerate(gallery.ids.tolist())}
    opened = open_gallery(folder)
    opened.add(gallery)
    assert isinstance(opened.store, LanceStore)
    shape = {"source": source, "rows": len(gallery), "size": people.shape[1], "queries": len(queries), "top": TOP}
    for kind in KINDS:
        seconds = clock(partial(opened.index, kind)).seconds
        held = (opened.store.files().index_bytes or 0) / len(gallery)
        for effort in EFFORTS:
            ask = partial(opened.query, queries, top=TOP, effort=effort)
            answers = ask()  # reads the index, too
            shares, errors = [], [0.0]
            for number, answer in enumerate(answers):
                exact = scores[number, [place[match.id] for match in answer.matches]]
                shares.append(np.mean(exact >= last[number] - 1e-12))
                errors += [abs(match.score - truth) for match, truth in zip(answer.matches, exact, strict=True)]
            yield shape | {
                "kind": kind,
                "effort": effort,
                "index_s": seconds,
                "bytes_per_row": held,
                "of_float32": held / (4 * people.shape[1]),
                "recall": float(np.mean(shares)),
                "score_error": float(max(errors)),
                "ms_per_query": 1e3 * clock(ask).seconds / len(queries),
            }


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rows=100_000, size=512, queries=100)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="GALLERY and QUERIES")
    asked = parser.parse_args(arguments)
    if asked.files:
        gallery, queries = map(Embeddings.read, asked.files)
        assert queries.models is not None  # a file always names its models
        chosen = np.random.default_rng(0).permutation(len(queries))[: asked.queries]
        queries = Embeddings(queries.vectors[chosen], queries.ids[chosen], models=queries.models[chosen])
    else:
        gallery, queries = _people(asked.rows, asked.size), _queries(asked.rows, asked.size, asked.queries)
    source = asked.files[0].stem if asked.files else "made people"
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder) / "gallery", gallery, queries, source))
    show(f"{source}: {len(gallery):,} x {rows[0]['size']}, recall of the true {TOP} nearest", list(map(_texts, rows)))
    if asked.save:
        store("small_vectors", rows, "lancedb")


def _texts(row: Row) -> dict[str, str]:
    return {
        "kind": row["kind"],
        "effort": str(row["effort"]),
        "bytes per row": f"{row['bytes_per_row']:.0f}",
        "of float32": f"1/{1 / row['of_float32']:.1f}",
        "recall": f"{100 * row['recall']:.2f} %",
        "error of a score": f"{row['score_error']:.1e}",
        "ms per query": f"{row['ms_per_query']:.2f}",
        "index s": f"{row['index_s']:.1f}",
    }


if __name__ == "__main__":
    run(main)
