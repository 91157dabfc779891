"""Galleries of codes: recall, memory, time and the error of scores, for the kinds of index that hold little.

    python benchmarks/small_vectors.py [GALLERY QUERIES] [--rows 100000] [--size 512] [--queries 300] [--save]

GALLERY and QUERIES are embeddings files of one model; without them, vectors are made: people in clusters, ten images
each. bytes_per_row is what the store states of the index, whose codes queries keep in memory; resident_per_row is what
a process that asks one query grows by, per row, between a tenth of the rows and all of them. The vectors stay on disk,
as float32 and as float16. Exact answers are those of float64 over all vectors. A query is no answer to itself.

The stores are LanceDB and, if it is installed (pip install 'angulus[faiss]'), faiss.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
from angulus.search.vector_store import DTYPES, SUFFIX
from harness import Row, clock, options, python, run, show, store
from search import _people, _queries

TOP = 10
KINDS = ("int8", "binary")
EFFORTS = (16, 64)
STORES = {"lancedb": ""} | ({"faiss": SUFFIX} if importlib.util.find_spec("faiss") else {})
RESIDENT = """
import sys
from angulus.core.embeddings import Embeddings
from angulus.search import open_gallery
gallery = open_gallery(sys.argv[1])
gallery.query(Embeddings.read(sys.argv[2]), effort=16)
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("RssAnon")))
"""


def measure(
    folder: Path, gallery: Embeddings, queries: Embeddings, source: str, stores: Sequence[str], dtypes: Sequence[str]
) -> Iterator[Row]:
    """A row for each store, dtype, kind and effort."""
    people, asked = gallery.unit(dtype=np.float64), queries.unit(dtype=np.float64)
    place_of = {name: row for row, name in enumerate(gallery.ids.tolist())}
    own = [place_of.get(name, -1) for name in queries.ids.tolist()]
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

    tenth, one = _rows(gallery, np.arange(len(gallery) // 10)), _rows(queries, np.arange(1))
    one.write(folder / "one.npz")
    for dtype, name in ((dtype, name) for dtype in dtypes for name in stores):
        place, small = (folder / f"{which}-{dtype}{STORES[name]}" for which in ("all", "tenth"))
        opened, other = open_gallery(place), open_gallery(small)
        import_s = clock(partial(opened.add, gallery, dtype=dtype)).seconds
        other.add(tenth, dtype=dtype)
        disk = (opened.store.files().bytes or 0) / len(gallery)
        for kind in KINDS:
            seconds = clock(partial(opened.index, kind)).seconds
            other.index(kind)
            held = (opened.store.files().index_bytes or 0) / len(gallery)
            resident = (_resident(place, folder) - _resident(small, folder)) / (len(gallery) - len(tenth))
            for effort in EFFORTS:
                ask = partial(opened.query, queries, top=TOP, effort=effort, exclude_self=True)
                found = [[(place_of[match.id], match.score) for match in answer.matches] for answer in ask()]
                row = judged(found, held) | {"resident_per_row": resident, "import_s": import_s}
                row |= {"index_s": seconds, "disk_bytes_per_row": disk}
                taken = {"ms_per_query": 1e3 * clock(ask).seconds / len(queries)}
                yield shape | {"store": name, "dtype": dtype, "kind": kind, "effort": effort} | row | taken


def _rows(embeddings: Embeddings, rows: NDArray[np.int64]) -> Embeddings:
    models = None if embeddings.models is None else embeddings.models[rows]
    return Embeddings(embeddings.vectors[rows], embeddings.ids[rows], models=models)


def _resident(place: Path, folder: Path) -> int:
    """The bytes of memory, without mapped files, of a process that has asked one query."""
    return 1024 * int(python("-c", RESIDENT, place, folder / "one.npz"))


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rows=100_000, size=512, queries=100)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="GALLERY and QUERIES")
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES), help="of the galleries")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="of the vectors on disk")
    asked = parser.parse_args(arguments)
    if asked.files:
        gallery, queries = map(Embeddings.read, asked.files)
        queries = _rows(queries, np.random.default_rng(0).permutation(len(queries))[: asked.queries])
    else:
        gallery, queries = _people(asked.rows, asked.size), _queries(asked.rows, asked.size, asked.queries)
    source = asked.files[0].stem if asked.files else "made people"
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder), gallery, queries, source, asked.store, asked.dtype))
    show(f"{source}: {len(gallery):,} x {rows[0]['size']}, recall of the true {TOP} nearest", list(map(_texts, rows)))
    if asked.save:
        store("small_vectors", rows, *("faiss-cpu" if name == "faiss" else name for name in asked.store))


def _texts(row: Row) -> dict[str, str]:
    return {
        "store": row["store"],
        "vectors": row["dtype"],
        "kind": row["kind"],
        "effort": str(row["effort"]),
        "bytes per row": f"{row['bytes_per_row']:.0f}",
        "resident": f"{row['resident_per_row']:.0f}",
        "of float32": f"1/{1 / row['of_float32']:.1f}",
        "recall": f"{100 * row['recall']:.2f} %",
        "error of a score": f"{row['score_error']:.1e}",
        "ms per query": f"{row['ms_per_query']:.2f}",
        "import s": f"{row['import_s']:.1f}",
        "index s": f"{row['index_s']:.1f}",
    }


if __name__ == "__main__":
    run(main)
