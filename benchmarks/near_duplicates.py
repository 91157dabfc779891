"""Near duplicates in k-means cells against all pairs: seconds, memory and recall by the number of images.

    python benchmarks/near_duplicates.py [--images 1000000] [--size 128] [--exact 100000] [--by-visits] [--save]

float16 vectors of people with 20 images each, of which every hundredth is nearly another's; one thread. A quarter
of the images, half and all are searched in cells, and `--exact` of them by all pairs. The recall is that of 4,096
images with all others. The processor seconds of all are compared with what the half foretells by N^1.5; those of 100
million are foretold in the same way, from all. Memory follows no such law; see docs/cluster.md.

`--by-visits`: instead, which share of the planted pairs above the threshold would be found by the number of cells that
are visited, within one set and across two, and the processor seconds of a search of a tenth of the images.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.data.audit.duplicates import SAMPLE
from angulus.evaluation.scoring import above
from angulus.evaluation.scoring import cells as scoring_cells
from angulus.evaluation.scoring.cells import Cells
from harness import Row, options, peak_mib, run, show, store

THRESHOLD = 0.92
LARGE = 100_000_000
VISITS = (4, 8, 16)


def images(count: int, size: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Vectors, and the pairs of rows that were planted."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count // 20, size), np.float32).repeat(20, axis=0)[:count]
    vectors += rng.standard_normal(vectors.shape, np.float32)
    later = rng.permutation(len(vectors))
    near = later[: count // 100]
    vectors[near] = vectors[later[-len(near) :]] + 0.5 * rng.standard_normal((len(near), size), np.float32)
    places = rng.permutation(len(vectors))
    pairs = np.argsort(places)[np.stack([near, later[-len(near) :]], axis=1)]
    return vectors.astype(np.float16)[places], pairs


def search(vectors: NDArray[np.float16]) -> Row:
    """The pairs in cells, and how many of a sample's it finds."""
    started, cpu = time.perf_counter(), time.process_time()
    found: set[tuple[int, int]] = set()

    def work() -> int:
        cells = Cells(vectors)
        for batch in cells.above(THRESHOLD):
            rows = np.sort(np.stack([batch.probes, batch.gallery], axis=1), axis=1)
            found.update(map(tuple, rows.tolist()))
        return cells.count

    memory, count = peak_mib(work)
    row: Row = {"images": len(vectors), "size": vectors.shape[1], "cells": count, "pairs": len(found)}
    row |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu, "peak_mib": memory}
    chosen = np.random.default_rng(1).permutation(len(vectors))[:SAMPLE]
    sample: set[tuple[int, int]] = set()
    for batch in above(vectors[chosen], vectors, THRESHOLD):
        rows = np.stack([chosen[batch.probes], batch.gallery], axis=1)
        sample.update(map(tuple, np.sort(rows[rows[:, 0] != rows[:, 1]], axis=1).tolist()))
    return row | {"sample_pairs": len(sample), "sample_found": len(sample & found), "seed": 0}


def exact(vectors: NDArray[np.float16]) -> Row:
    """The same by all pairs."""
    started, cpu = time.perf_counter(), time.process_time()
    memory, pairs = peak_mib(lambda: sum(len(batch.scores) for batch in above(vectors, None, THRESHOLD)))
    row: Row = {"images": len(vectors), "size": vectors.shape[1], "cells": None, "pairs": pairs, "seed": 0}
    return row | {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": memory,
    }


def by_visits(vectors: NDArray[np.float16], pairs: NDArray[np.int64]) -> list[Row]:
    """Recall and processor seconds by the number of visits."""
    wide = vectors[pairs].astype(np.float64)
    wide /= np.linalg.norm(wide, axis=2, keepdims=True)
    pairs = pairs[(wide[:, 0] * wide[:, 1]).sum(axis=1) >= THRESHOLD]
    rows: list[Row] = []
    for visits in VISITS:
        scoring_cells.VISITS = visits
        count = math.isqrt(visits * len(vectors))
        sample = np.random.default_rng(0).permutation(len(vectors))[: 32 * count]  # as all rows would be sampled
        cells = Cells(vectors, sample, count=count)
        own, other = (cells._nearest(vectors, pairs[:, side], visits, None) for side in (0, 1))
        there, back = (own == other[:, :1]).any(axis=1), (other == own[:, :1]).any(axis=1)
        part = vectors[: len(vectors) // 10]
        cpu = time.process_time()
        for _ in Cells(part).above(THRESHOLD):
            pass
        row: Row = {"what": "by visits", "images": len(vectors), "size": vectors.shape[1], "cells": count}
        row |= {
            "visits": visits,
            "pairs": len(pairs),
            "within": float((there | back).mean()),
            "across": float(there.mean()),
        }
        rows.append(row | {"searched": len(part), "cpu_seconds": time.process_time() - cpu, "seed": 0})
    return rows


def foretell(smaller: Row, images: int) -> Row:
    """The processor seconds of a search, from a smaller one."""
    return {"foretold_cpu_seconds": smaller["cpu_seconds"] * (images / smaller["images"]) ** 1.5}


def main() -> None:
    parser = options(__doc__ or "", images=1_000_000, size=128, exact=100_000)
    parser.add_argument("--by-visits", action="store_true", help="recall and seconds by the number of visits alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    vectors, planted = images(asked.images, asked.size)
    if asked.by_visits:
        rows = by_visits(vectors, planted)
        names = ("visits", "cells", "pairs", "within", "across", "cpu_seconds")
        show(f"Pairs of cosine {THRESHOLD} or more", [{name: f"{row[name]:,.4g}" for name in names} for row in rows])
        if asked.save:
            store("near_duplicates", rows, "numpy", "torch", "scikit-learn")
        return
    parts = [search(vectors[: asked.images // share]) for share in (4, 2, 1)]
    parts[2] |= foretell(parts[1], asked.images)
    rows = [*parts, {"images": LARGE, "size": asked.size, **foretell(parts[2], LARGE)}]
    if asked.exact:
        rows.append(exact(vectors[: asked.exact]))
    shown = []
    for row in rows:
        known = row.get("sample_pairs")
        cells = {"images": f"{row['images']:,}", "cells": str(row.get("cells") or "none")}
        for name in ("cpu_seconds", "foretold_cpu_seconds", "peak_mib"):
            cells[name.replace("_", " ")] = f"{row[name]:,.0f}" if row.get(name) is not None else ""
        shown.append(
            cells
            | {"pairs": f"{row.get('pairs', '')}", "recall": f"{row['sample_found'] / known:.3f}" if known else ""}
        )
    show(f"Pairs of cosine {THRESHOLD} or more, {asked.size} numbers", shown)
    if asked.save:
        store("near_duplicates", rows, "numpy", "torch", "scikit-learn")


if __name__ == "__main__":
    run(main)
