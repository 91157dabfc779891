"""Galleries of codes: recall, memory, time and the error of scores, for the kinds of index that hold little.

    python benchmarks/small_vectors.py [GALLERY QUERIES] [--rows 100000] [--size 512] [--queries 300] [--save]

GALLERY and QUERIES are embeddings files of one model; without them, vectors are made: people in clusters, ten images
each. Memory is what LanceDB states of the index, whose codes queries keep in memory; the vectors stay on disk, as
float32 and as float16. Exact answers are those of float64 over all vectors. A query is no answer to itself.

If faiss is installed (pip install faiss-cpu), two of its indexes are the floor: codes of all rows, without ids,
8 bits per number, or its sign (after a random rotation, less the median), rescored by float16.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
from angulus.search.vector_store import DTYPES, Vectors
from harness import Row, clock, options, run, show, store
from search import _people, _queries

TOP = 10
REFINE = 30  # times as many rows as asked for are rescored by faiss, as for LanceDB's "binary"
KINDS = ("int8", "binary")
EFFORTS = (16, 64)


def measure(folder: Path, gallery: Embeddings, queries: Embeddings, source: str) -> Iterator[Row]:
    """A row for each kind and effort."""
    people, asked = gallery.unit(dtype=np.float64), queries.unit(dtype=np.float64)
    place = {name: row for row, name in enumerate(gallery.ids.tolist())}
    own = [place.get(name, -1) for name in queries.ids.tolist()]
    scores = asked @ people.T
    others = np.where(np.arange(len(gallery)) == np.array(own)[:, None], -np.inf, scores)
    last = -np.partition(-others, TOP - 1, axis=1)[:, TOP - 1]  # a row that is as near as the tenth counts
    shape = {"source": source, "rows": len(gallery), "size": people.shape[1], "queries": len(queries), "top": TOP}

    def judged(found: list[list[tuple[int, float]]], held: float) -> Row:
        """Recall and error of the rows found, with their scores, for each query."""
        exact = [scores[number, [row for row, _ in each]] for number, each in enumerate(found)]
        errors = [
            abs(score - truth)
            for each, truths in zip(found, exact, strict=True)
            for (_, score), truth in zip(each, truths, strict=True)
        ]
        shares = [np.sum(truths >= last[number] - 1e-12) / TOP for number, truths in enumerate(exact)]
        return {
            "bytes_per_row": held,
            "of_float32": held / (4 * people.shape[1]),
            "recall": float(np.mean(shares)),
            "score_error": float(max(errors)),
        }

    for dtype in DTYPES:
        opened = open_gallery(folder / dtype)
        opened.add(gallery, dtype=dtype)
        disk = (opened.store.files().bytes or 0) / len(gallery)
        for kind in KINDS:
            seconds = clock(partial(opened.index, kind)).seconds
            held = (opened.store.files().index_bytes or 0) / len(gallery)
            for effort in EFFORTS:
                ask = partial(opened.query, queries, top=TOP, effort=effort, exclude_self=True)
                found = [[(place[match.id], match.score) for match in answer.matches] for answer in ask()]
                row = judged(found, held) | {"index_s": seconds, "disk_bytes_per_row": disk}
                taken = {"ms_per_query": 1e3 * clock(ask).seconds / len(queries)}
                yield shape | {"store": "lancedb", "dtype": dtype, "kind": kind, "effort": effort} | row | taken
    if importlib.util.find_spec("faiss"):
        for kind, held, rows, values in _ask_faiss(people.astype(np.float32), asked.astype(np.float32)):
            found = [
                [pair for pair in zip(*each, strict=True) if pair[0] != mine][:TOP]
                for *each, mine in zip(rows.tolist(), values.tolist(), own, strict=True)
            ]
            how = {"store": "faiss", "dtype": "float16", "kind": kind, "effort": REFINE}
            yield shape | how | judged(found, held)


def _ask_faiss(people: Vectors, asked: Vectors) -> Iterator[tuple[str, float, Any, Any]]:
    """For each kind: its name, bytes per row, and the rows and scores found for each query, one more than asked for."""
    import faiss

    size, inner = people.shape[1], faiss.METRIC_INNER_PRODUCT
    sign = faiss.IndexLSH(size, size, True, True)
    sign.metric_type = inner
    kinds = {"int8": faiss.IndexScalarQuantizer(size, faiss.ScalarQuantizer.QT_8bit, inner), "binary": sign}
    for kind, codes in kinds.items():
        index = faiss.IndexRefine(codes, faiss.IndexScalarQuantizer(size, faiss.ScalarQuantizer.QT_fp16, inner))
        index.train(people)
        index.add(people)
        values, rows = index.search(asked, TOP + 1, params=faiss.IndexRefineSearchParameters(k_factor=REFINE))
        yield kind, codes.code_size, rows, values


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
        store("small_vectors", rows, "lancedb", *(["faiss-cpu"] if importlib.util.find_spec("faiss") else []))


def _texts(row: Row) -> dict[str, str]:
    return {
        "store": row["store"],
        "vectors": row["dtype"],
        "kind": row["kind"],
        "effort": str(row["effort"]),
        "bytes per row": f"{row['bytes_per_row']:.0f}",
        "of float32": f"1/{1 / row['of_float32']:.1f}",
        "recall": f"{100 * row['recall']:.2f} %",
        "error of a score": f"{row['score_error']:.1e}",
        "ms per query": f"{row['ms_per_query']:.2f}" if "ms_per_query" in row else "",
        "index s": f"{row['index_s']:.1f}" if "index_s" in row else "",
    }


if __name__ == "__main__":
    run(main)
